from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.jose import Jwk
from bridge.udp import Peer, SocketCounters, UdpConfig, UdpEngine
from bridge.udp.metrics import _ENDPOINT, _SESSION, _SOCKET, UdpCollector
from bridge.udp.statistics import EndpointStatistics, SessionStatistics


@asynccontextmanager
async def star(leaves: int, *, host: str = "127.0.0.1") -> AsyncIterator[list[UdpEngine]]:
    """Engines, the first of which has a session with each of the others."""
    keys = [Jwk.generate() for _ in range(leaves + 1)]
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(
                UdpEngine(UdpConfig(host=host), identity=key, on_event=lambda _event: None)
            )
            for key in keys
        ]
        for n in range(1, leaves + 1):
            engines[0].add_peer(
                Peer(name=f"leaf{n}", public_key=keys[n].public(), address=engines[n].local_address)
            )
            engines[n].add_peer(
                Peer(name="hub", public_key=keys[0].public(), address=engines[0].local_address)
            )
            await engines[0].connect(f"leaf{n}", timeout=10)
        yield engines


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """(name without prefix, peer, reason) to value, by the text that a server would read."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (
            sample.name.removeprefix("khepri_bridge_udp_"),
            sample.labels.get("peer", ""),
            sample.labels.get("reason", ""),
        ): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("rows", "source"),
    [(_ENDPOINT, EndpointStatistics), (_SOCKET, SocketCounters), (_SESSION, SessionStatistics)],
)
def test_every_field_of_the_statistics_is_a_metric(rows: tuple[Any, ...], source: type) -> None:
    fields = {field.name for field in dataclasses.fields(source)} - {"drops"}
    assert {row.field for row in rows} == fields


def test_names_follow_the_conventions_and_are_unique() -> None:
    names = [row.name for row in (*_ENDPOINT, *_SOCKET, *_SESSION)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


async def test_metrics_say_what_the_statistics_say() -> None:
    async with star(2) as (hub, *_):
        registry = CollectorRegistry()
        registry.register(UdpCollector(hub, max_peers=2))
        values = samples(registry)
        assert values["sessions", "", ""] == 2
        assert values["handshakes_checked_total", "", ""] == 2
        assert values["session_datagrams_received_total", "leaf1", ""] >= 1
        assert 0 < values["session_rtt_seconds", "leaf2", ""] < 1


async def test_only_the_busiest_peers_are_told_apart() -> None:
    async with star(3) as (hub, *_):
        session = hub.session("leaf2")
        assert session is not None
        session.send_reliable(bytes(5000))
        hub.flush()
        registry = CollectorRegistry()
        registry.register(UdpCollector(hub, max_peers=1))
        values = samples(registry)
        assert {peer for _, peer, _ in values if peer} == {"leaf2"}
        assert values["sessions", "", ""] == 3


async def test_drops_are_counted_by_reason() -> None:
    async with star(1) as (hub, *_):
        hub._endpoint.receive_datagram(b"junk", ("127.0.0.1", 9), now=0.0)
        registry = CollectorRegistry()
        registry.register(UdpCollector(hub))
        assert samples(registry)["dropped_total", "", "malformed"] == 1


async def test_several_engines_share_a_collector_and_closed_ones_are_left_out() -> None:
    async with star(1, host="::1") as (hub, leaf):
        registry = CollectorRegistry()
        registry.register(UdpCollector(hub, leaf))
        text = generate_latest(registry).decode()
        assert f'khepri_bridge_udp_sessions{{endpoint="[::1]:{hub.local_address[1]}"}} 1.0' in text
        assert f'khepri_bridge_udp_sessions{{endpoint="[::1]:{leaf.local_address[1]}"}} 1.0' in text
    assert samples(registry) == {}


async def test_two_collectors_in_one_registry_are_refused_by_name() -> None:
    registry = CollectorRegistry()
    registry.register(UdpCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(UdpCollector())


def test_importing_the_room_does_not_load_prometheus() -> None:
    code = "import sys, bridge.udp; print('prometheus_client' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"

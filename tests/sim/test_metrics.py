from __future__ import annotations

import asyncio
import sys
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError
from bridge.sim.dataplane.messages import Measured
from bridge.sim.driver import SimulationProcess
from bridge.sim.metrics import Sample, SimulationCollector, check_metrics_address, exposing
from bridge.sim.relieving import ReliefCounts
from bridge.sim.zoning import ZoneCounts
from tests.support.cluster import fresh

PREFIX = "khepri_bridge_sim_"
UDP = "# TYPE khepri_bridge_udp_peers gauge\nkhepri_bridge_udp_peers 2.0\n"
SAMPLE = Sample(
    held=3,
    slots=5,
    lease_left=1.5,
    busy=0.25,
    messages={"push": 2, "pull": 1, "answer": 3},
    events={"authority_gained": 4, "fell_silent": 1},
    relief=ReliefCounts(shed=6, failed=1, in_vain=2),
    zones=ZoneCounts(given=8, drained=2, deferred=3, failed=1),
    ghosts=9,
    refused_changes=7,
    kept=20,
    data=Measured(id=1, udp=UDP, verdicts={"accepted": 90, "late": 2}, malformed=1, kept=11),
)


class Telling:
    """A server that tells the same each time, or hangs."""

    def __init__(self, sample: Sample | None) -> None:
        self._sample = sample

    async def sample(self) -> Sample:
        if self._sample is None:
            await asyncio.Event().wait()
        assert self._sample is not None
        return self._sample


def values_of(text: str) -> dict[str, float]:
    """By name, with the values of labels behind it."""
    return {
        " ".join((sample.name.removeprefix(PREFIX), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def collected(sample: Sample | None, seconds: float = 20.0) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(SimulationCollector(Telling(sample), asyncio.get_running_loop(), seconds=seconds))
    return values_of((await asyncio.to_thread(generate_latest, registry)).decode())


async def test_a_sample_becomes_metrics() -> None:
    values = await collected(SAMPLE)
    assert values == values | {
        "up": 1,
        "held_entities": 3,
        "slots_used": 5,
        "lease_left_seconds": 1.5,
        "busy_ratio": 0.25,
        "transfers_total push": 2,
        "transfers_total pull": 1,
        "messages_total answer": 3,
        "events_total authority_gained": 4,
        "pauses_total": 1,
        "shed_entities_total": 6,
        "shed_failures_total": 1,
        "shed_in_vain_total": 2,
        "ghosts": 9,
        "zone_entities_total left": 8,
        "zone_entities_total drained": 2,
        "zone_deferrals_total": 3,
        "zone_failures_total": 1,
        "refused_changes_total": 7,
        "kept_entries": 20,
        "data_plane_up": 1,
        "states_total late": 2,
        "malformed_total": 1,
        "data_plane_kept_entries": 11,
        "khepri_bridge_udp_peers": 2,
    }
    assert "transfers_total answer" not in values


async def test_a_server_of_no_mesh_tells_nothing_of_zones() -> None:
    values = await collected(replace(SAMPLE, zones=None))
    assert not [name for name in values if "zone" in name or "ghosts" in name]


async def test_a_process_that_hangs_is_told_as_such() -> None:
    assert await collected(None, seconds=0.05) == {"up": 0}
    values = await collected(replace(SAMPLE, data=None))
    assert (values["up"], values["data_plane_up"], values["held_entities"]) == (1, 0, 3)
    assert "states_total late" not in values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9465", ("127.0.0.1", 9465)),
        (":0", ("127.0.0.1", 0)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:2", ("::1", 2)),
    ],
)
def test_a_port_alone_is_one_of_this_machine(text: str, address: tuple[str, int]) -> None:
    assert check_metrics_address(text) == address


@pytest.mark.parametrize("text", ["", "here", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "1:²"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:9465"):
        check_metrics_address(text)


async def test_a_port_that_is_taken_is_said() -> None:
    async with exposing("0", Telling(SAMPLE)) as port:
        with pytest.raises(ConfigurationError, match="cannot be served"):
            async with exposing(f"127.0.0.1:{port}", Telling(SAMPLE)):
                pass


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_server_that_runs_is_scraped_with_its_data_plane(cluster: LocalCluster) -> None:
    names = [fresh("metered"), fresh("metered")]
    servers = []
    for name in names:
        command = [sys.executable, "-m", "bridge.cli", "sim", "--dir", str(cluster.directory), "--commands"]
        command += ["--name", name, "--metrics", "0", "--shed-entities", "500", "--shed-busy", "0.9"]
        servers.append(SimulationProcess(name, command, lambda *_: None))
    try:
        ports = [(await server.start()).metrics for server in servers]
        ball, box = fresh("ball"), fresh("box")
        for entity in (ball, box):
            await servers[0].spawn(entity, owner="ann", position=(1.0, 2.0, 0.0))
        await servers[1].take(ball, owner="bob")
        first, second = [await scraped(port) for port in ports]
        async with asyncio.timeout(30):
            # The former holder streams the other one on, and is believed.
            while not second.get("states_total accepted") or not second["khepri_bridge_udp_sessions"]:
                second = await scraped(ports[1])
        assert (first["held_entities"], second["held_entities"]) == (1, 1)
        assert 0 < first["lease_left_seconds"] <= 3_600
        assert (second["transfers_total pull"], second["events_total authority_gained"]) == (1, 1)
        assert (first["up"], first["data_plane_up"], first["pauses_total"], first["shed_entities_total"]) == (
            *(1, 1, 0, 0),
        )
        assert first["process_cpu_seconds_total"] > 0
    finally:
        for server in servers:
            await server.close()


async def scraped(port: int) -> dict[str, float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    values = values_of(await asyncio.to_thread(read))
    # One engine's metrics carry its address, which nobody knows.
    return values | {name.partition(" ")[0]: value for name, value in values.items() if "_udp_" in name}

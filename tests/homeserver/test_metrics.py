"""An instance as metrics."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError, DeadlineError
from bridge.etf import Atom
from bridge.homeserver.metrics import InstanceCollector, Sample, exposing
from bridge.khepri import Khepri
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.health import member_health
from tests.support.scripted_caller import ScriptedCaller


def _values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_sample_becomes_metrics_and_a_silent_member_is_down() -> None:
    registry = CollectorRegistry()
    collector = InstanceCollector(registry)
    collector.sample = Sample(
        at=1_800_000_000.0,
        members={
            "hs1@h": member_health(node="hs1@h", role="leader", term=7, last_applied=90),
            "hs2@h": DeadlineError("late"),
        },
        leases={"hs1@h": {"role": Atom("leads"), "generation": 3, "sessions": 12, "beats": 400}},
        grants=5,
        incarnation=2,
        refusals={("pull", "denied"): 4},
    )
    values = _values(generate_latest(registry).decode())
    assert values["khepri_bridge_member_up", "hs1@h"] == 1
    assert values["khepri_bridge_member_up", "hs2@h"] == 0
    assert ("khepri_bridge_member_term", "hs2@h") not in values
    assert values["khepri_bridge_member_term", "hs1@h"] == 7
    assert values["khepri_bridge_lessor", "hs1@h"] == 1
    assert values["khepri_bridge_lease_sessions", "hs1@h"] == 12
    assert values["khepri_bridge_lease_beats_total", "hs1@h"] == 400
    assert values["khepri_bridge_grants_total",] == 5
    assert values["khepri_bridge_refusals_total", "denied", "pull"] == 4


@erlang
async def test_a_running_instance_is_scraped(cluster: LocalCluster, store: Khepri) -> None:
    server = Server(store, fresh("sim"))
    await server.open()
    await server.spawn(fresh("thing"))
    async with exposing("127.0.0.1:0", store, CollectorRegistry(), every=0.05) as port:

        def scrape() -> dict[tuple[str, ...], float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return _values(answer.read().decode())

        while not (values := await asyncio.to_thread(scrape)).get(("khepri_bridge_grants_total",)):
            await asyncio.sleep(0.02)
    assert [values["khepri_bridge_member_up", member] for member in cluster.members] == [1, 1, 1]
    assert sum(values["khepri_bridge_member_leads", member] for member in cluster.members) == 1
    await server.home.close_session()


@pytest.mark.parametrize("address", ["", "somewhere", "127.0.0.1:70000", "127.0.0.1:x"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    store = Khepri(ScriptedCaller())
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        async with exposing(address, store, CollectorRegistry()):
            pass

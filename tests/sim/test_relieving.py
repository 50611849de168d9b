"""Servers with too much to do, of which others take some."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.authority import check, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.sim.events import AuthorityGained, StateAccepted
from bridge.sim.server import SimulationServer
from tests.support.cluster import fresh
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


class Slow(SimulationServer):
    """Each entity that it holds costs an eighth of a step's period."""

    def _step(self, seconds: float) -> None:
        super()._step(seconds)
        if self._tenure is not None:
            time.sleep(seconds / 8 * len(self.transfers.held()))


async def spawned(server: Observed, count: int) -> list[str]:
    names = [fresh("crate") for _ in range(count)]
    for number, name in enumerate(names):
        await server.server.transfers.spawn(name, owner=f"p{number}", position=(1.0, 2.0, 3.0))
    return names


async def check_history(*servers: Observed) -> None:
    reports = [await one.server.report() for one in servers]
    entries = decode_entries(line for report in reports for line in report.history)
    verdict = check(entries)
    assert verdict.violations == []
    assert verdict.acts > 0


async def test_a_server_that_holds_too_much_gives_some_to_those_who_stream_it_in(
    cluster: LocalCluster,
) -> None:
    """R0-44: owners stay who they are, and one that streams nothing in is given nothing."""
    async with (
        simulation(cluster, fresh("full"), shed=True, max_entities=5) as full,
        simulation(cluster, fresh("idle"), shed=True, max_entities=8) as idle,
        simulation(cluster, fresh("blind"), shed=True, follow=0) as blind,
    ):
        for one, other in ((full, idle), (full, blind), (idle, blind)):
            await one.meets(other)
        names = await spawned(full, 8)
        await idle.until(lambda: len(idle.server.transfers.held()) == 4)
        assert len(full.server.transfers.held()) == 4
        given = idle.server.transfers.held()
        for name in given:
            await full.told(StateAccepted, entity=name, sender=idle.name)
            assert idle.server.transfers.direct.owner(name) == f"p{names.index(name)}"
        assert full.server.relief.shed == 4
        assert full.server.relief.failed == 0
        await asyncio.sleep(2.5)
        assert idle.server.transfers.held() == given
        assert blind.server.transfers.held() == []
        await check_history(full, idle, blind)


async def test_a_simulation_whose_steps_take_too_long_is_relieved(cluster: LocalCluster) -> None:
    """R0-44."""
    async with (
        simulation(cluster, fresh("slow"), server_class=Slow, shed=True, rate_hz=200) as slow,
        simulation(cluster, fresh("quick")) as quick,
    ):
        await slow.meets(quick)
        await spawned(slow, 10)
        await quick.told(AuthorityGained)
        assert slow.server.relief.shed >= 1
        await quick.until(lambda: len(slow.server.transfers.held()) <= 7)
        assert slow.problems() == quick.problems() == []


async def test_where_nobody_has_room_a_server_keeps_what_it_has(cluster: LocalCluster) -> None:
    async with (
        simulation(cluster, fresh("one"), shed=True, max_entities=2) as one,
        simulation(cluster, fresh("two"), shed=True, max_entities=2) as two,
    ):
        await one.meets(two)
        await spawned(one, 3)
        await spawned(two, 3)
        async with asyncio.timeout(30):
            # Nothing tells of what does not happen.
            while one.server.relief.in_vain < 2 or two.server.relief.in_vain < 2:
                await asyncio.sleep(0.1)
        assert len(one.server.transfers.held()) == len(two.server.transfers.held()) == 3

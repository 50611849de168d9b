"""Homeservers are restarted one after the other, while entities go on changing hands."""

from __future__ import annotations

import asyncio

import pytest

from bridge.cluster.local import LocalCluster
from bridge.khepri import Khepri, MemberHealth, members_health
from bridge.sim.events import SessionLost
from tests.support.cluster import hidden_node
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(300)]


async def _pass_on(one: Observed, other: Observed, stop: asyncio.Event, epochs: list[int]) -> None:
    """Push the ball to and fro until told to stop; a push that fails ends the test."""
    giver, taker = one, other
    while not stop.is_set():
        record = await giver.server.transfers.push("ball", owner=taker.name, to=taker.name)
        epochs.append(record.epoch)
        await taker.acts("ball", record.epoch)
        giver, taker = taker, giver


async def test_no_transfer_fails_and_no_session_is_lost_while_all_are_restarted(
    own_cluster: LocalCluster,
) -> None:
    epochs: list[int] = []
    stop = asyncio.Event()
    async with simulation(own_cluster, "sim1") as a, simulation(own_cluster, "sim2") as b:
        await a.meets(b)
        await a.server.transfers.spawn("ball", owner="sim1", position=(0, 0, 0))
        passing = asyncio.create_task(_pass_on(a, b, stop, epochs))
        async with hidden_node(own_cluster) as node:
            # The leader last, as the guide says; the server's own member is among the others.
            health = await members_health(node, own_cluster.members, own_cluster.store)
            leaders = [n for n, h in health.items() if isinstance(h, MemberHealth) and h.role == "leader"]
        for member in (*(m for m in own_cluster.members if m not in leaders), *leaders):
            before = len(epochs)
            await asyncio.to_thread(own_cluster.stop_node, member)
            await asyncio.to_thread(own_cluster.start_node, member)
            while len(epochs) < before + 3 and not passing.done():
                await asyncio.sleep(0.05)
        stop.set()
        await passing
        assert [problem for one in (a, b) for problem in one.problems()] == []
        assert not [event for one in (a, b) for event in one.events if isinstance(event, SessionLost)]
        assert epochs == sorted(set(epochs))
        async with (
            hidden_node(own_cluster) as node,
            Khepri.connect(node, own_cluster.members, store=own_cluster.store) as store,
        ):
            assert len((await store.health()).members) == 3

"""Case 3: updates between two servers on a real cluster, and what the holder refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from bridge.authority import CASES, Update, transfers
from bridge.cluster.local import LocalCluster
from bridge.errors import InvalidStateError
from bridge.registry import NotOwnerError
from bridge.sim.events import EntityUpdated
from tests.support.cluster import fresh
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Pair = tuple[Observed, Observed]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(cluster: LocalCluster) -> AsyncIterator[Pair]:
    """The server where the players are, and the one that holds what they own."""
    async with simulation(cluster, fresh("sim")) as here, simulation(cluster, fresh("sim")) as holder:
        await here.meets(holder)
        yield here, holder


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def owned_by(pair: Pair, player: str) -> str:
    """A ball that the second server holds, of a player who is at the first one."""
    here, holder = pair
    ball = fresh("ball")
    await here.server.transfers.enter(player)
    record = await holder.server.transfers.spawn(ball, owner=player, position=(1.0, 2.0, 0.0))
    await here.sees(ball, record.epoch, holder)
    await until(lambda: player in holder.server.transfers.direct._players)
    return ball


async def test_an_update_and_its_credit_are_two_messages_and_no_homeserver_takes_part(pair: Pair) -> None:
    """R0-30."""
    here, holder = pair
    ball = await owned_by(pair, ann := fresh("Ann"))
    before = [len(one.server.transfers.messages) for one in pair]
    await here.server.transfers.update(ball, by=ann, velocity=(0.0, 9.0, 0.0))
    await holder.told(EntityUpdated, entity=ball, by=ann, owner=ann)
    crossed = [
        m for one, since in zip(pair, before, strict=True) for m in one.server.transfers.messages[since:]
    ]
    (transfer,) = transfers(crossed)
    assert (transfer.case, transfer.is_whole) == ("update", True)
    assert transfer.critical_path == CASES["update"].path == 1
    await until(lambda: holder.server.transfers.state(ball).position[1] > 2.0)
    assert ball in holder.server.transfers.held(), "authority stays where it was"


async def test_the_next_owner_counts_at_once_and_is_recorded_behind_the_play(pair: Pair) -> None:
    here, holder = pair
    ball = await owned_by(pair, ann := fresh("Ann"))
    await here.server.transfers.enter(bob := fresh("Bob"))
    await until(lambda: bob in holder.server.transfers.direct._players)
    passing = [
        here.server.transfers.update(ball, by=ann, velocity=(1.0, 0.0, 0.0), owner=bob),
        here.server.transfers.update(ball, by=bob, velocity=(2.0, 0.0, 0.0), owner=ann),
        here.server.transfers.update(ball, by=ann, velocity=(3.0, 0.0, 0.0), owner=bob),
    ]
    await asyncio.gather(*passing)
    assert holder.server.transfers.direct.refused == 0
    await until(lambda: here.server.transfers.recorded_owner(ball) == bob)
    await until(lambda: not holder.server.transfers.direct._named)
    holder.server.transfers.place(ball, (0.0, 0.0, 0.0), by=bob)
    with pytest.raises(NotOwnerError):
        holder.server.transfers.place(ball, (0.0, 0.0, 0.0), by=ann)


async def test_who_is_not_the_owner_or_not_there_changes_nothing_and_is_counted(pair: Pair) -> None:
    """R0-6."""
    here, holder = pair
    ball = await owned_by(pair, ann := fresh("Ann"))
    await here.server.transfers.enter(bob := fresh("Bob"))
    direct = holder.server.transfers.direct
    await here.server.transfers.update(ball, by=bob, velocity=(0.0, 5.0, 0.0))
    await until(lambda: direct.refused == 1)
    await here.server.transfers.update(ball, by=ann, velocity=(0.0, float("nan"), 0.0))
    await until(lambda: direct.refused == 2)
    session = holder.server.transfers._standing.servers.session_of(here.name)
    late = Update(trace=bytes(16), hop=0, entity=ball, epoch=1, by=ann, velocity=(0.0, 5.0, 0.0))
    direct.take(here.name, session, late, 0)
    await here.server.transfers.leave(ann)
    await until(lambda: ann not in direct._players)
    known = await here.server.transfers._home.entity(ball)
    gone = Update(trace=bytes(16), hop=0, entity=ball, epoch=known.epoch, by=ann, velocity=(0.0, 5.0, 0.0))
    direct.take(here.name, session, gone, 0)
    assert direct.refused == 4
    assert holder.server.transfers.state(ball).position[1] == 2.0


async def test_what_one_holds_oneself_or_nobody_does_takes_no_update(pair: Pair) -> None:
    here, holder = pair
    ball = await owned_by(pair, ann := fresh("Ann"))
    with pytest.raises(InvalidStateError, match="place it"):
        await holder.server.transfers.update(ball, by=ann, velocity=(0.0, 0.0, 0.0))
    known = await here.server.transfers._home.entity(ball)
    await holder.server.transfers._home.release(entity=ball, epoch=known.epoch)
    await until(lambda: here.server.transfers._standing.entities[ball].server is None)
    with pytest.raises(InvalidStateError, match="nobody simulates"):
        await here.server.transfers.update(ball, by=ann, velocity=(0.0, 0.0, 0.0))


async def test_a_holder_that_gives_no_credit_is_not_waited_for_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, holder = pair
    ball = await owned_by(pair, ann := fresh("Ann"))
    monkeypatch.setattr("bridge.sim.direct._CREDIT_SECONDS", 0.2)
    with holder.frozen(), pytest.raises(InvalidStateError, match="no credit"):
        await here.server.transfers.update(ball, by=ann, velocity=(1.0, 0.0, 0.0))

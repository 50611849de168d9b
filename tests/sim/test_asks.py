"""The rule ``ask`` between simulation servers on a real cluster: who asks, who masters, who holds (R0-8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.authority import CASES, transfers
from bridge.cluster.local import LocalCluster
from bridge.errors import InvalidStateError
from bridge.registry import (
    Ask,
    ConflictError,
    DeniedError,
    EntityRecord,
    MasterAwayError,
    NotHereError,
    NotOwnerError,
    Rule,
)
from bridge.sim.events import Asked
from tests.support.cluster import fresh
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Trio = tuple[Observed, Observed, Observed]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio(cluster: LocalCluster) -> AsyncIterator[Trio]:
    """The holder, who asks, and the master's server."""
    async with (
        simulation(cluster, fresh("sim")) as holder,
        simulation(cluster, fresh("sim")) as asker,
        simulation(cluster, fresh("sim")) as master,
    ):
        for one in (holder, asker, master):
            for other in (holder, asker, master):
                if one is not other:
                    await one.meets(other)
        yield holder, asker, master


@pytest.fixture
def gun() -> str:
    return fresh("gun")


async def spawned(trio: Trio, gun: str, owner: str, rule: Rule = Rule.ASK) -> EntityRecord:
    holder, asker, master = trio
    record = await holder.server.transfers.spawn(gun, owner=owner, position=(1.0, 2.0, 3.0), rule=rule)
    for one in (asker, master):
        await one.sees(gun, record.epoch, holder)
    return record


async def yes(ask: Ask) -> bool:
    del ask
    return True


async def no(ask: Ask) -> bool:
    del ask
    return False


async def test_an_ask_takes_one_round_trip_to_the_master_more_than_a_pull(trio: Trio, gun: str) -> None:
    """R0-8, R0-9: holder, master and who asks are at three servers; counted from what really crossed."""
    holder, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    seen: list[Ask] = []

    async def decide(ask: Ask) -> bool:
        seen.append(ask)
        return True

    await master.server.transfers.enter(ann, decide)
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    record = await asker.server.transfers.request(gun, player=bob)
    assert (record.owner, record.master, record.server) == (bob, ann, asker.name)
    assert gun in asker.server.transfers.held()
    assert gun not in holder.server.transfers.held()
    assert [(ask.entity, ask.player, ask.server, ask.authority) for ask in seen] == [
        (gun, bob, asker.name, True)
    ]
    kinds, path = CASES["ask"].kinds, CASES["ask"].path

    def crossed() -> list[str]:
        messages = [m for one in trio for m in one.server.transfers.messages if m.trace == seen[0].step.trace]
        (transfer,) = transfers(messages)
        assert transfer.case == "ask"
        assert "released" not in {m.kind for m in transfer.messages} or transfer.critical_path == path
        return sorted(m.kind for m in transfer.messages)

    async with asyncio.timeout(10):
        while crossed() != sorted(kinds):
            await asyncio.sleep(0.001)


async def test_a_master_who_refuses_is_told_to_who_asked(trio: Trio, gun: str) -> None:
    """R0-8."""
    holder, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await master.server.transfers.enter(ann, no)
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    with pytest.raises(DeniedError, match="its master refused"):
        await asker.server.transfers.request(gun, player=bob)
    assert gun in holder.server.transfers.held()


async def test_without_a_handler_events_tell_and_anyone_at_the_server_answers(trio: Trio, gun: str) -> None:
    _, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await master.server.transfers.enter(ann)
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    asking = asyncio.create_task(asker.server.transfers.request(gun, player=bob))
    await master.told(Asked, entity=gun, player=bob, master=ann)
    await master.server.transfers.answer(gun, player=bob, by=ann, grant=True)
    assert (await asking).server == asker.name


async def test_of_two_who_asked_the_master_makes_one_winner(trio: Trio, gun: str) -> None:
    """R0-8, the double grab: the other one hears who won, and at which epoch."""
    holder, asker, master = trio
    ann, bob, cid = fresh("Ann"), fresh("Bob"), fresh("Cid")
    await master.server.transfers.enter(ann)
    await asker.server.transfers.enter(bob)
    await master.server.transfers.enter(cid)
    await spawned(trio, gun, ann)
    asking = asyncio.create_task(asker.server.transfers.request(gun, player=bob))
    rival = asyncio.create_task(master.server.transfers.request(gun, player=cid))
    for player in (bob, cid):
        await master.told(Asked, entity=gun, player=player, master=ann)
    await master.server.transfers.answer(gun, player=bob, by=ann, grant=True)
    record = await asking
    with pytest.raises(ConflictError) as caught:
        await rival
    assert (caught.value.winner, caught.value.epoch) == (bob, record.epoch)
    assert gun not in holder.server.transfers.held()


async def test_a_master_who_does_not_answer_is_not_waited_for_longer_than_said(trio: Trio, gun: str) -> None:
    _, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await master.server.transfers.enter(ann)
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    with pytest.raises(DeniedError, match="did not answer in time"):
        await asker.server.transfers.request(gun, player=bob, seconds=0.2)


async def test_an_ask_ends_with_the_master_who_leaves(trio: Trio, gun: str) -> None:
    _, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await master.server.transfers.enter(ann)
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    asking = asyncio.create_task(asker.server.transfers.request(gun, player=bob))
    await master.told(Asked, entity=gun, player=bob, master=ann)
    await master.server.transfers.leave(ann)
    with pytest.raises(MasterAwayError):
        await asking
    with pytest.raises(MasterAwayError):
        await asker.server.transfers.request(gun, player=bob)


async def test_under_allow_a_request_is_a_pull(trio: Trio, gun: str) -> None:
    """R0-8, R0-29."""
    holder, asker, _ = trio
    bob = fresh("Bob")
    await asker.server.transfers.enter(bob)
    await spawned(trio, gun, fresh("Ann"), Rule.ALLOW)
    before = len(asker.server.transfers.messages)
    record = await asker.server.transfers.request(gun, player=bob)
    assert (record.owner, record.server) == (bob, asker.name)
    crossed = [m.kind for m in asker.server.transfers.messages[before:]]
    assert crossed == ["pull", "answer", "released"]
    with pytest.raises(InvalidStateError):
        await asker.server.transfers.request(gun, player=bob)
    assert gun not in holder.server.transfers.held()


async def test_ownership_alone_moves_no_authority(trio: Trio, gun: str) -> None:
    """R0-9."""
    holder, asker, master = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await master.server.transfers.enter(ann, yes)
    await asker.server.transfers.enter(bob)
    before = await spawned(trio, gun, ann)
    record = await asker.server.transfers.request(gun, player=bob, authority=False)
    assert (record.owner, record.server, record.epoch) == (bob, holder.name, before.epoch)
    assert gun in holder.server.transfers.held()


async def test_only_the_owner_changes_what_is_held_here(trio: Trio, gun: str) -> None:
    """R0-6: a change from a non-owner is refused and counted."""
    holder, _, _ = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await holder.server.transfers.spawn(gun, owner=ann, position=(0, 0, 0))
    before = holder.server.transfers.refused_changes
    with pytest.raises(NotOwnerError, match=f"not {bob}'s but {ann}'s"):
        holder.server.transfers.place(gun, (1, 1, 1), by=bob)
    assert holder.server.transfers.refused_changes == before + 1
    holder.server.transfers.place(gun, (2, 2, 2), by=ann)
    await holder.server.transfers.give(gun, owner=bob)
    holder.server.transfers.place(gun, (3, 3, 3), by=bob)
    assert holder.server.transfers.state(gun).position.tolist() == [3, 3, 3]


async def test_what_a_player_who_leaves_owned_is_their_masters(trio: Trio, gun: str) -> None:
    """R0-8."""
    holder, asker, _ = trio
    ann, bob = fresh("Ann"), fresh("Bob")
    await holder.server.transfers.enter(bob)
    await spawned(trio, gun, ann)
    await holder.server.transfers.give(gun, owner=bob)
    with pytest.raises(NotHereError):
        await asker.server.transfers.leave(bob)
    assert await holder.server.transfers.leave(bob) == [gun]
    with pytest.raises(NotHereError):
        await holder.server.transfers.request(gun, player=bob, authority=False)

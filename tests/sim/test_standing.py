import asyncio

import pytest

from bridge.authority import Phase
from bridge.errors import ClosedError, ConfigurationError, DeadlineError, InvalidStateError
from bridge.registry import Awaiting, ServerRecord
from bridge.sim.dataplane.messages import Forget, Unfollow
from bridge.sim.events import AuthorityGained
from tests.support.sealing import SESSION, Bench, Known, record


@pytest.fixture
def bench() -> Bench:
    return Bench()


def due(epoch: int) -> Awaiting:
    return Awaiting(session=b"o" * 16, server="sim2", epoch=epoch)


async def test_a_grant_with_nothing_due_is_acted_on_from_the_newest_state_known(bench: Bench) -> None:
    slot = bench.standing.slots["ball"]
    bench.plane.world.write(slot, tick=3, position=(1.0, 2.0, 3.0), velocity=(1.0, 0.0, 0.0))
    assert await bench.standing.gain("ball", 5, None)
    assert bench.plane.held() == [("ball", 5)]
    assert bench.standing.held() == ["ball"]
    bench.bodies.step(1.0)
    assert bench.plane.world.read(slot).position.tolist() == [1.5, 2.0, 3.0]
    assert [event.epoch for event in bench.events if isinstance(event, AuthorityGained)] == [5]


async def test_a_grant_with_a_release_due_waits_for_it(bench: Bench) -> None:
    assert not await bench.standing.gain("ball", 6, due(5))
    assert bench.plane.held() == []
    assert bench.standing.givers == {"ball": "sim2"}
    with pytest.raises(InvalidStateError, match="awaiting"):
        bench.standing.must_follow("ball")


async def test_an_answer_that_comes_again_revives_nothing(bench: Bench) -> None:
    """docs/authority-model.md, STALE_ANSWER."""
    await bench.standing.gain("ball", 5, None)
    bench.bodies.place(bench.standing.slots["ball"], (1.0, 2.0, 3.0), (1.0, 0.0, 0.0))
    await bench.standing.stop("ball", "sim2")
    bench.standing.holdings.follow("ball", 6)
    with pytest.raises(InvalidStateError, match="a grant of 5 after 6"):
        await bench.standing.gain("ball", 5, None)
    assert bench.plane.held() == [("ball", 5)]
    assert bench.standing.held() == []


async def test_what_this_session_released_itself_is_not_waited_for(bench: Bench) -> None:
    assert await bench.standing.gain("ball", 6, Awaiting(session=SESSION, server="sim1", epoch=5))


@pytest.mark.parametrize("in_the_meantime", [False, True])
async def test_what_the_feed_has_told_of_a_wait_counts_although_the_answer_is_older(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, in_the_meantime: bool
) -> None:
    """The session that is waited for ends while the answer, or the giver's key, is on its way."""

    def ended() -> None:
        bench.standing.entities["ball"] = record(6, session=SESSION, server="sim1", version=9)

    async def server(name: str) -> ServerRecord:
        ended()
        return await Known.server(bench.known, name)

    if in_the_meantime:
        monkeypatch.setattr(bench.known, "server", server)
    else:
        ended()
    assert await bench.standing.gain("ball", 6, due(5))
    assert bench.plane.held() == [("ball", 6)]


async def test_a_wait_that_is_anothers_by_now_is_for_the_one_that_is_due(bench: Bench) -> None:
    older = Awaiting(session=b"p" * 16, server="sim3", epoch=4)
    mine = Awaiting(session=SESSION, server="sim1", epoch=6, awaiting=older)
    bench.standing.entities["ball"] = record(7, session=b"q" * 16, server="sim4", awaiting=mine)
    assert not await bench.standing.gain("ball", 6, due(5))
    assert bench.standing.givers["ball"] == "sim3"
    assert bench.standing.holdings["ball"].awaited == 4


async def test_a_session_that_is_over_acts_for_nothing_again(bench: Bench) -> None:
    standing = bench.standing
    await standing.gain("ball", 5, None)
    await standing.gain("sack", 7, due(6))
    waiting = asyncio.create_task(
        standing.until_acting(record(7, entity="sack", session=SESSION, server="sim1"))
    )
    await asyncio.sleep(0)
    standing.end()
    with pytest.raises(InvalidStateError, match="is over"):
        await waiting
    assert standing.held() == []
    for refused in (
        lambda: standing.act("sack", 7),
        lambda: standing.must_hold("ball"),
        lambda: standing.must_follow("gun"),
    ):
        with pytest.raises(InvalidStateError, match="is over"):
            refused()
    assert bench.plane.held() == [("ball", 5)]
    before = bench.plane.world.read(standing.slots["ball"]).tick
    bench.bodies.step(1.0)
    assert bench.plane.world.read(standing.slots["ball"]).tick == before


async def test_work_of_a_session_that_is_over_touches_nothing_of_the_next_one(bench: Bench) -> None:
    """An answer came late, or a look-up took long: slot and sealing are a later session's."""
    standing = bench.standing
    await standing.gain("ball", 5, None)
    standing.end()
    slot = standing.slots["ball"]
    bench.bodies.place(slot, (4.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    bench.bodies.hold(slot)
    for late in (standing.gain("ball", 9, None), standing.stop("ball", "sim2")):
        with pytest.raises(InvalidStateError, match="is over"):
            await late
    assert bench.plane.stopped == []
    bench.bodies.step(1.0)
    assert bench.plane.world.read(slot).position.tolist() == [4.5, 0.0, 0.0]


async def test_a_recall_counts_as_obeyed_when_nothing_acts_or_will_under_its_epoch(bench: Bench) -> None:
    standing = bench.standing
    assert not standing.has_obeyed("ball", 5)  # a grant that was not read yet
    await standing.gain("ball", 5, None)
    assert not standing.has_obeyed("ball", 5)
    await standing.stop("ball", "sim2")
    assert standing.holdings["ball"].phase is Phase.RELEASING
    assert not standing.has_obeyed("ball", 5)
    standing.holdings.follow("ball", 6)
    assert standing.has_obeyed("ball", 5)
    assert standing.has_obeyed("ball", 6)
    await standing.gain("ball", 8, due(6))
    assert standing.has_obeyed("ball", 6)
    assert not standing.has_obeyed("ball", 8)


async def test_what_was_released_is_said_once_it_cannot_be_taken_back(bench: Bench) -> None:
    """docs/authority-model.md, RELEASED_BEFORE_ANSWER: a push may be refused, and this server goes on."""
    standing = bench.standing
    await standing.gain("ball", 5, None)
    assert standing.released_for_good("ball") == 0
    await standing.stop("ball", "sim2")
    assert standing.released_for_good("ball") == 0
    standing.act("ball", standing.holdings.resume("ball").epoch)
    assert standing.released_for_good("ball") == 0
    await standing.stop("ball", "sim2")
    standing.holdings.follow("ball", 6)
    assert standing.released_for_good("ball") == 5
    # A later grant that waits takes nothing of that back.
    await standing.gain("ball", 8, due(6))
    assert standing.released_for_good("ball") == 5
    assert standing.released_for_good("sack") == 0


async def test_what_the_data_plane_has_not_confirmed_was_not_released(bench: Bench) -> None:
    """The feed may name another holder before: state may be sealed still."""
    standing = bench.standing
    await standing.gain("ball", 5, None)
    confirmed = asyncio.Event()
    genuine = bench.plane.stop_sealing

    async def late(entity: str, to: str, *, linger_ns: int = 0) -> str:
        await confirmed.wait()
        return await genuine(entity, to, linger_ns=linger_ns)

    bench.plane.stop_sealing = late  # type: ignore[method-assign]
    stopping = asyncio.create_task(standing.stop("ball", "sim2"))
    await asyncio.sleep(0)
    standing.holdings.follow("ball", 6)
    assert standing.released_for_good("ball") == 0
    confirmed.set()
    await stopping
    assert standing.released_for_good("ball") == 5


async def lost(bench: Bench, error: BaseException) -> None:
    """A release that is asked for, whose answer does not come."""

    async def no_answer(*_: object, **__: object) -> str:
        raise error

    bench.plane.stop_sealing = no_answer  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        await bench.standing.stop("ball", "sim2")


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), DeadlineError("the data plane did not answer"), ClosedError("it has ended")],
    ids=lambda error: type(error).__name__,
)
async def test_where_nobody_got_the_release_the_session_acts_on(bench: Bench, error: BaseException) -> None:
    standing = bench.standing
    await standing.gain("ball", 5, None)
    await lost(bench, error)
    assert (standing.holdings["ball"].phase, standing.held()) == (Phase.HOLDING, ["ball"])
    # It may have stopped: what is told after that begins anew, under the same grant.
    assert bench.plane.held() == [("ball", 5), ("ball", 5)]
    bench.bodies.step(1.0)
    assert bench.plane.world.read(standing.slots["ball"]).tick == bench.bodies.tick


async def test_a_release_that_was_lost_while_another_was_granted_is_signed_for_its_recall(
    bench: Bench,
) -> None:
    standing = bench.standing
    await standing.gain("ball", 5, None)

    async def no_answer(*_: object, **__: object) -> str:
        standing.holdings.follow("ball", 6)  # The feed names another holder.
        raise asyncio.CancelledError

    bench.plane.stop_sealing = no_answer  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await standing.stop("ball", "sim2")
    assert standing.held() == []
    # The data plane may have refused, and seal still: nothing is said to be released before it has answered.
    assert (standing.released_for_good("ball"), standing.releasable("ball")) == (0, 5)
    assert not standing.has_obeyed("ball", 5)
    del bench.plane.stop_sealing
    assert await standing.stop("ball", "sim3") == "a.b"
    assert (standing.released_for_good("ball"), standing.releasable("ball")) == (5, 5)
    assert standing.has_obeyed("ball", 5)


async def test_a_release_that_is_lost_with_its_session_revives_nothing(bench: Bench) -> None:
    standing = bench.standing
    await standing.gain("ball", 5, None)

    async def no_answer(*_: object, **__: object) -> str:
        standing.end()
        raise asyncio.CancelledError

    bench.plane.stop_sealing = no_answer  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await standing.stop("ball", "sim2")
    assert (standing.held(), bench.plane.held()) == ([], [("ball", 5)])


async def test_where_all_slots_are_taken_what_is_only_followed_gives_way(bench: Bench) -> None:
    standing = bench.standing
    for number in range(8):
        await standing.gain(f"e{number}", 1, None)
        bench.bodies.place(standing.slots[f"e{number}"], (number, 0.0, 0.0), (1.0, 0.0, 0.0))
    with pytest.raises(ConfigurationError, match="raise the capacity"):
        await standing.make_room("ball")
    for entity in ("e2", "e5", "e7", "e6"):
        await standing.stop(entity, "sim2")
        standing.holdings.follow(entity, 2)
    standing.pinned.add("e2")
    standing.promise(["e7"], seconds=60.0)
    async with standing.locks["e5"]:
        await standing.make_room("ball")
    assert [entity for entity in standing.slots if entity in ("e2", "e5", "e6", "e7")] == ["e2", "e5", "e7"]
    assert bench.plane.told[-1] == Unfollow(entity="e6", keeps_slot=False)
    fresh = bench.plane.world.read(standing.slots["ball"])
    assert (fresh.tick, fresh.position.tolist(), fresh.velocity.tolist()) == (0, [0.0] * 3, [0.0] * 3)


async def test_slots_that_a_session_could_not_give_back_are_its_successors_to_give(bench: Bench) -> None:
    standing = bench.standing
    await standing.gain("ball", 1, None)
    slot = standing.slots["ball"]
    standing.forget("ball")

    async def dead() -> None:
        raise ClosedError("the data plane has ended")

    catch_up, bench.plane.catch_up = bench.plane.catch_up, dead  # type: ignore[method-assign]
    with pytest.raises(ClosedError):
        await standing.reuse_slots()
    assert list(standing.slots.dropped) == [slot]
    bench.plane.catch_up = catch_up  # type: ignore[method-assign]
    await standing.reuse_slots()
    assert (standing.slots["gun"], len(standing.slots.dropped)) == (slot, 0)


async def test_nothing_is_kept_of_an_entity_that_is_no_more(bench: Bench) -> None:
    standing = bench.standing
    before = standing.knows_of()
    await standing.gain("ball", 5, None)
    standing.note_owner(record(5))
    standing.entities["ball"] = record(5)
    await standing.stop("ball", "sim2")
    standing.holdings.follow("ball", 6)
    await standing.gain("ball", 8, due(6))
    waiting = asyncio.create_task(standing.until_acting(record(8)))
    await asyncio.sleep(0)
    assert standing.knows_of() > before
    standing.forget("ball")
    with pytest.raises(InvalidStateError, match="is no more"):
        await waiting
    assert standing.knows_of() == before
    assert "ball" not in standing.slots
    assert bench.plane.told[-1] == Forget(entity="ball")


async def test_what_nobody_follows_any_more_makes_room_for_what_is_to_be_followed(bench: Bench) -> None:
    standing = bench.standing
    standing.slots.is_wanted = lambda entity: entity == "near"
    for entity in ("near", "gone", "here", "left"):
        _ = standing.slots[entity]
    await standing.gain("here", 1, None)
    assert not standing.slots.may_follow("next")
    await standing.tidy()
    assert list(standing.slots) == ["near", "here"]
    assert standing.slots.may_follow("next")
    # With room for more, what was seen of an entity stays worth knowing.
    _ = standing.slots["next"]
    await standing.tidy()
    assert list(standing.slots) == ["near", "here", "next"]

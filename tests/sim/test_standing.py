import asyncio

import pytest

from bridge.authority import Awaiting, Phase
from bridge.errors import InvalidStateError
from bridge.sim.events import AuthorityGained
from tests.support.sealing import SESSION, Bench, record


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


async def test_a_server_is_known_from_the_feed_or_looked_up_and_never_itself(bench: Bench) -> None:
    standing = bench.standing
    assert standing.session_of("sim2") is None
    await standing.know("sim2")
    assert standing.session_of("sim2") == b"o" * 16
    with pytest.raises(InvalidStateError, match="is this server"):
        await standing.know("sim1")
    standing.forget_server("sim2")
    assert standing.session_of("sim2") is None

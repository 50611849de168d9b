import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from bridge.authority import Phase
from bridge.errors import AuthorityError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri import StoreFailureError
from bridge.registry import Awaiting, Away, ConflictError, EntityRecord, Homeserver, NotHolderError, Ownership
from bridge.sim import settling, transfers
from bridge.sim.asks import Asks
from bridge.sim.settling import Settling
from bridge.sim.transfers import Transfers
from tests.support.sealing import SESSION, Bench, Known, record


class Answering(Known):
    """A homeserver whose answers are the test's; what it is asked is noted."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.push_error: BaseException = OutcomeUnknownError("no answer before the deadline")
        self.release_errors: list[BaseException] = []
        self.pull_errors: list[BaseException] = []

    async def push(self, **_: Any) -> Any:
        self.asked.append("push")
        raise self.push_error

    async def release(self, *, entity: str, epoch: int) -> Any:
        self.asked.append("release")
        if self.release_errors:
            raise self.release_errors.pop(0)
        return record(epoch, session=None, server=None, version=epoch + 1)

    async def pull(self, *, owner: str, **_: Any) -> Any:
        self.asked.append(f"pull for {owner}")
        if self.pull_errors:
            raise self.pull_errors.pop(0)
        return record(9, session=SESSION, server="sim1")


class Giving(Bench):
    """A session that gives away."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []
        self.answers = Answering()
        self.here = True
        self.settling = Settling(
            standing=self.standing,
            home=cast(Homeserver, self.answers),
            streamed=self._streamed,
            spawn=self._spawn,
        )
        self.transfers = Transfers(
            standing=self.standing,
            home=cast(Homeserver, self.answers),
            players=cast(Ownership, None),
            asks=cast(Asks, None),
            settling=self.settling,
            may_act=lambda: True,
            on_event=self.events.append,
            spawn=self._spawn,
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def _streamed(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        return entities if self.here else ()

    async def pushes(self, expected: type[BaseException]) -> None:
        await self.standing.gain("ball", 5, None)
        with pytest.raises(expected):
            await self.transfers.push("ball", owner="Player2", to="sim2")


@pytest.fixture
def giving(monkeypatch: pytest.MonkeyPatch) -> Giving:
    monkeypatch.setattr(settling, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(transfers, "_CLAIM_SECONDS", 0.0)
    return Giving()


@pytest.mark.parametrize(
    "error",
    [
        OutcomeUnknownError("no answer before the deadline"),
        # Not an answer to the request: an earlier try of it may have been applied.
        StoreFailureError("the store failed", reason=Atom("unknown"), props={}),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_push_without_an_answer_is_made_impossible_before_its_entity_is_acted_for(
    giving: Giving, error: BaseException
) -> None:
    giving.answers.push_error = error
    await giving.pushes(type(error))
    assert giving.standing.holdings["ball"].phase is Phase.RELEASING
    assert giving.plane.held() == [("ball", 5)]
    await asyncio.gather(*giving.tasks)
    assert giving.answers.asked == ["push", "release", "pull for Player1"]
    assert giving.plane.held() == [("ball", 5), ("ball", 9)]
    assert giving.standing.held() == ["ball"]


async def test_a_push_that_was_refused_goes_on_at_once(giving: Giving) -> None:
    giving.answers.push_error = AuthorityError("no server", reason=Atom("no_server"))
    await giving.pushes(AuthorityError)
    assert giving.tasks == []
    assert giving.plane.held() == [("ball", 5), ("ball", 5)]


async def test_a_push_that_a_pull_came_before_is_left_to_its_recall(giving: Giving) -> None:
    giving.answers.push_error = NotHolderError("sim3 took it", reason=Atom("not_holder"))
    await giving.pushes(NotHolderError)
    assert giving.tasks == []
    assert giving.standing.held() == []


async def test_a_push_that_came_to_pass_is_not_taken_back(giving: Giving) -> None:
    giving.answers.release_errors = [
        OutcomeUnknownError("no answer before the deadline"),
        NotHolderError("sim2 has it", reason=Atom("not_holder")),
    ]
    await giving.pushes(OutcomeUnknownError)
    await asyncio.gather(*giving.tasks)
    assert giving.answers.asked == ["push", "release", "release"]
    assert giving.standing.held() == []


async def test_an_offer_that_nobody_claims_is_taken_back(giving: Giving) -> None:
    await giving.standing.gain("ball", 5, None)
    await giving.transfers.offer("ball", owner="Player2", to="sim2")
    await asyncio.gather(*giving.tasks)
    assert giving.answers.asked == ["release", "pull for Player1"]
    assert giving.standing.held() == ["ball"]


async def test_an_offer_that_was_claimed_is_not_taken_back(giving: Giving) -> None:
    await giving.standing.gain("ball", 5, None)
    await giving.transfers.offer("ball", owner="Player2", to="sim2")
    giving.standing.holdings.follow("ball", 6)
    await asyncio.gather(*giving.tasks)
    assert giving.answers.asked == []


async def test_a_session_that_is_over_takes_nothing_back(giving: Giving) -> None:
    await giving.pushes(OutcomeUnknownError)
    giving.standing.end()
    await asyncio.gather(*giving.tasks)
    assert giving.answers.asked == ["push"]


def left(giver: bytes = SESSION, **values: Any) -> EntityRecord:
    """Of an entity whose taker's session ended while its release was due."""
    due = Awaiting(session=giver, server="sim1", epoch=5, awaiting=None)
    return record(6, **({"session": None, "server": None, "awaiting": due} | values))


async def released(giving: Giving, told: EntityRecord) -> None:
    """Have the session release the ball to who is gone by now, and hear of the record."""
    await giving.standing.gain("ball", 5, None)
    await giving.standing.stop("ball", "sim2")
    giving.standing.holdings.follow("ball", 6)
    giving.standing.entities["ball"] = told
    giving.settling.unless_left(told)
    await asyncio.gather(*giving.tasks)


async def test_what_was_released_to_one_who_is_gone_and_is_nobodys_is_taken_back(giving: Giving) -> None:
    await released(giving, left())
    assert giving.answers.asked == ["pull for Player1"]
    assert giving.plane.held() == [("ball", 5), ("ball", 9)]


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(record(6), id="another-one-has-it"),
        pytest.param(left(awaiting=None), id="nothing-was-due"),
        pytest.param(left(giver=b"o" * 16), id="due-of-another-one"),
        pytest.param(left(is_deleted=True), id="deleted"),
        pytest.param(left(away=Away(instance="mars", in_escrow=False)), id="at-another-instance"),
    ],
)
async def test_what_is_anothers_to_take_is_not_taken_back(giving: Giving, told: EntityRecord) -> None:
    await released(giving, told)
    assert giving.answers.asked == []


async def test_what_is_acted_for_still_is_not_asked_for(giving: Giving) -> None:
    """docs/authority-model.md, FAILOVER_TO_DUE: its release is due as long as it has not stopped."""
    await giving.standing.gain("ball", 5, None)
    giving.standing.entities["ball"] = left()
    giving.settling.unless_left(left())
    assert giving.tasks == []


async def test_who_has_an_old_state_alone_leaves_it_to_others(giving: Giving) -> None:
    giving.here = False
    await released(giving, left())
    assert giving.answers.asked == []


async def test_whoever_takes_it_first_has_it(giving: Giving) -> None:
    giving.answers.pull_errors = [ConflictError("sim3 has it", reason=Atom("conflict"))]
    await released(giving, left())
    assert giving.answers.asked == ["pull for Player1"]
    assert giving.standing.held() == []


async def test_it_is_asked_for_until_a_homeserver_answers(giving: Giving) -> None:
    giving.answers.pull_errors = [OutcomeUnknownError("no answer before the deadline")]
    await released(giving, left())
    assert giving.answers.asked == ["pull for Player1"] * 2
    assert giving.standing.held() == ["ball"]

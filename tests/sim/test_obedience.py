import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from bridge.authority import Phase, Released
from bridge.etf import Atom
from bridge.registry import Awaiting, Closed, EntityRecord, Failover, Grant, Recall, Step, UnknownEntityError
from bridge.sim import obedience
from bridge.sim.abroad import Abroad
from bridge.sim.asks import Asks
from bridge.sim.dataplane.messages import Forget, RaiseFence
from bridge.sim.direct import DirectUpdates
from bridge.sim.events import EntityDeleted
from bridge.sim.obedience import Obedience
from bridge.sim.settling import Settling
from tests.support.sealing import SESSION, Bench, record

STEP = Step(trace=bytes(16), hop=0)


class Told(Bench):
    """What one session is told, and does."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []
        settling = Settling(
            standing=self.standing, home=self.home, streamed=self._streamed, spawn=self._spawn
        )
        self.obedience = Obedience(
            standing=self.standing,
            home=self.home,
            asks=cast(Asks, None),
            direct=cast(DirectUpdates, None),
            abroad=Abroad(standing=self.standing, home=self.home, settling=settling, spawn=self._spawn),
            settling=settling,
            spawn=self._spawn,
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def _streamed(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        return entities

    async def learns(self, *records: Any) -> None:
        for one in records:
            self.obedience.learn_entity(one)
        await asyncio.gather(*self.tasks)


@pytest.fixture
def told() -> Told:
    return Told()


def failover(epoch: int, awaiting: Awaiting | None = None) -> Failover:
    return Failover(
        entity="ball",
        epoch=epoch,
        previous=epoch - 1,
        giver="sim2",
        owner="Player1",
        awaiting=awaiting,
        step=STEP,
    )


def recall(epoch: int, granted: int, taker: str | None) -> Recall:
    return Recall(entity="ball", epoch=epoch, granted=granted, taker=taker, owner="Player2", step=STEP)


def due(server: str, epoch: int, older: Awaiting | None = None) -> Awaiting:
    return Awaiting(session=server.encode().ljust(16, b"-"), server=server, epoch=epoch, awaiting=older)


async def test_a_successor_goes_on_at_once_where_nothing_is_due(told: Told) -> None:
    await told.obedience.read_inbox(failover(5))
    assert told.plane.held() == [("ball", 5)]
    assert [message.kind for message in told.standing.traces] == ["failover"]


async def test_a_successor_waits_for_an_older_holders_release(told: Told) -> None:
    """docs/authority-model.md, FAILOVER_FORGETS_DUES."""
    await told.obedience.read_inbox(failover(5, due("sim3", 3)))
    assert told.plane.held() == []
    released = Released(trace=bytes(16), hop=1, entity="ball", epoch=5, box="a.b")
    await told.obedience.take_message("sim3", released, 1)
    assert told.plane.held() == [("ball", 5)]


async def test_a_release_that_comes_before_its_grant_was_read_is_kept_for_it(told: Told) -> None:
    """Of an ask, the holder may hear sooner than the asker."""
    released = Released(trace=bytes(16), hop=1, entity="ball", epoch=5, box="a.b")
    await told.obedience.take_message("sim3", released, 1)
    await told.learns(record(5, session=SESSION, server="sim1"))
    await told.obedience.take_message("sim3", released, 1)
    await told.obedience.read_inbox(failover(5, due("sim3", 3)))
    await told.learns()
    assert told.plane.held() == [("ball", 5)]


async def test_a_grant_whose_answer_was_lost_is_acted_on_and_its_recall_obeyed(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked gave up in the moment in which it was granted: it would be nobody's to simulate."""
    monkeypatch.setattr(obedience, "ADOPT_SECONDS", 0.0)
    await told.learns(record(5, session=SESSION, server="sim1"))
    assert told.plane.held() == [("ball", 5)]
    mine = Awaiting(session=SESSION, server="sim1", epoch=7)
    told.obedience.learn_entity(record(7, session=SESSION, server="sim1", entity="sack"))
    told.obedience.learn_entity(record(8, server="sim3", entity="sack", awaiting=mine))
    await told.obedience.read_inbox(replace(recall(7, 8, "sim3"), entity="sack"))
    assert told.plane.stopped == []
    await told.learns()
    assert told.plane.held() == [("ball", 5), ("sack", 7)]
    assert told.plane.stopped == [("sack", "sim3")]
    assert told.obedience.obeyed((("sack", 7),)) == [("sack", 7)]


async def test_a_grant_whose_answer_was_lost_waits_for_what_is_due_to_it(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obedience, "ADOPT_SECONDS", 0.0)
    await told.learns(record(5, session=SESSION, server="sim1", awaiting=due("sim2", 4)))
    assert told.plane.held() == []
    assert told.standing.givers == {"ball": "sim2"}


async def test_a_grant_that_the_feed_told_before_its_answer_came_is_acted_on_once(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obedience, "ADOPT_SECONDS", 0.0)
    told.obedience.learn_entity(record(5, session=SESSION, server="sim1"))
    await told.standing.gain("ball", 5, None)
    await told.learns()
    assert told.plane.held() == [("ball", 5)]


async def test_an_old_failover_is_old_news(told: Told) -> None:
    """docs/authority-model.md, STALE_ANSWER: a snapshot of the feed tells the inbox again."""
    for _ in range(2):
        await told.obedience.read_inbox(failover(5))
    await told.obedience.read_inbox(recall(5, 6, "sim3"))
    await told.obedience.read_inbox(failover(5))
    assert told.plane.held() == [("ball", 5)]
    assert told.standing.held() == []


async def test_a_failover_before_the_recall_that_precedes_it_was_read_waits_for_it(told: Told) -> None:
    await told.standing.gain("ball", 5, None)
    await told.obedience.read_inbox(failover(7))
    assert told.plane.held() == [("ball", 5)]
    await told.obedience.read_inbox(recall(5, 6, "sim3"))
    assert told.plane.stopped == [("ball", "sim3")]
    assert told.plane.held() == [("ball", 5), ("ball", 7)]


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "unread"])
async def test_a_recall_of_what_came_by_failover_is_obeyed(told: Told, is_read: bool) -> None:
    """It takes the failover's place in the inbox, and carries it, whether it was read or not."""
    if is_read:
        await told.obedience.read_inbox(failover(5))
    await told.obedience.read_inbox(replace(recall(5, 6, "sim3"), unread=failover(5)))
    assert told.plane.held() == [("ball", 5)]
    assert told.plane.stopped == [("ball", "sim3")]


async def test_who_gave_an_entity_away_may_be_its_successor(told: Told) -> None:
    await told.standing.gain("ball", 5, None)
    await told.standing.stop("ball", "sim3")
    await told.obedience.read_inbox(failover(7))
    assert told.plane.held() == [("ball", 5), ("ball", 7)]


async def test_a_recall_for_a_revoked_key_is_obeyed_and_the_release_is_the_next_ones(told: Told) -> None:
    """Nothing can be sealed for it, and who did not obey would lose its session."""
    await told.standing.gain("ball", 5, None)
    told.known.revoked = {"sim3"}
    await told.obedience.read_inbox(recall(5, 6, "sim3"))
    assert told.plane.stopped == [("ball", "")]
    assert told.standing.held() == []
    assert told.obedience.obeyed((("ball", 5),)) == [("ball", 5)]
    await told.obedience.read_inbox(recall(5, 7, "sim4"))
    assert told.plane.stopped == [("ball", ""), ("ball", "sim4")]


async def test_who_acts_for_a_deleted_entity_stops_and_says_so_once(told: Told) -> None:
    await told.standing.gain("ball", 5, None)
    for _ in range(2):
        await told.obedience.read_inbox(recall(5, 6, None))
    assert told.plane.stopped == [("ball", "")]
    assert told.standing.held() == []
    assert told.known.released == [("ball", 5)]
    assert told.obedience.obeyed((("ball", 5),)) == [("ball", 5)]
    assert told.plane.told[-1] == RaiseFence(entity="ball", epoch=6, server="")
    assert [event.entity for event in told.events if isinstance(event, EntityDeleted)] == ["ball"]


async def test_who_waits_for_a_deleted_entity_waits_no_more(told: Told) -> None:
    await told.standing.gain("ball", 6, due("sim2", 5))
    await told.obedience.read_inbox(recall(6, 7, None))
    assert told.standing.holdings["ball"].phase is Phase.FOLLOWING
    assert told.known.released == [("ball", 6)]
    assert (told.plane.held(), told.plane.stopped) == ([], [])
    released = Released(trace=bytes(16), hop=1, entity="ball", epoch=6, box="a.b")
    await told.obedience.take_message("sim2", released, 1)
    assert told.plane.held() == []


async def test_nobody_begins_to_act_for_a_deleted_entity_when_what_it_waits_for_has_gone(told: Told) -> None:
    """The record may be read before the recall."""
    await told.standing.gain("ball", 6, due("sim2", 5))
    mine = Awaiting(session=SESSION, server="sim1", epoch=6)
    deleted = record(7, session=None, server=None, version=9, awaiting=mine, is_deleted=True)
    await told.learns(deleted)
    assert told.plane.held() == []


async def test_an_unread_grant_of_a_deleted_entity_is_not_acted_on(told: Told) -> None:
    await told.obedience.read_inbox(replace(recall(5, 6, None), unread=failover(5)))
    await told.obedience.read_inbox(failover(5))
    assert told.plane.held() == []
    assert told.obedience.obeyed((("ball", 5),)) == [("ball", 5)]


async def test_who_said_already_that_it_has_stopped_hears_that_the_entity_is_gone(told: Told) -> None:
    told.known.released = [("ball", 5)]
    await told.standing.gain("ball", 5, None)
    await told.obedience.read_inbox(recall(5, 6, None))
    assert told.standing.held() == []


def granted(epoch: int) -> Grant:
    return Grant(
        entity="ball",
        epoch=epoch,
        previous=epoch - 1,
        giver="sim2",
        owner="Player1",
        box="a.b",
        step=STEP,
    )


@pytest.mark.parametrize("news", [granted(5), failover(5), replace(recall(5, 6, "sim3"), unread=granted(5))])
async def test_a_grant_that_is_told_again_of_what_is_no_more_is_not_acted_on(
    told: Told, news: Grant | Failover | Recall
) -> None:
    """Its place in the inbox outlives the entity: a nemesis saw it acted for a second after its deletion."""
    await told.learns(record(5, session=SESSION, server="sim1"), record(6))
    told.obedience.forget_entity("ball")
    told.known.deleted.add("ball")
    await told.obedience.read_inbox(news)
    assert told.plane.held() == []


@pytest.mark.parametrize("news", [granted(5), failover(5), replace(recall(5, 6, "sim3"), unread=granted(5))])
async def test_a_grant_to_an_earlier_entity_of_the_name_is_not_acted_on(
    told: Told, news: Grant | Failover | Recall
) -> None:
    told.obedience.learn_entity(record(9, version=1))
    told.standing.holdings.forget("ball")
    await told.obedience.read_inbox(news)
    assert told.plane.held() == []


async def test_a_grant_that_is_told_before_its_record_counts(told: Told) -> None:
    told.obedience.learn_entity(record(4))
    await told.obedience.read_inbox(granted(5))
    assert told.plane.held() == [("ball", 5)]


async def test_another_entity_of_a_deleted_ones_name_is_heard_of_at_its_first_version(told: Told) -> None:
    await told.learns(record(5, version=40, owner="Player1"))
    told.obedience.forget_entity("ball")
    assert "ball" not in told.standing.entities
    for again in (record(6, version=1, owner="Player2"), record(5, version=41, owner="Player1")):
        await told.learns(again)
    assert told.standing.entities["ball"].epoch == 6
    assert told.standing.owner("ball") == "Player2"


async def test_nothing_is_kept_of_an_entity_that_is_no_more(told: Told) -> None:
    before = (told.standing.knows_of(), told.obedience.knows_of())
    await told.learns(record(5))
    told.obedience.forget_entity("ball")
    await asyncio.gather(*told.tasks)
    assert (told.standing.knows_of(), told.obedience.knows_of()) == before


async def test_what_is_held_is_let_go_of_only_once_the_homeserver_says_that_it_is_no_more(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obedience, "ADOPT_SECONDS", 0.0)
    await told.standing.gain("ball", 5, None)
    told.obedience.forget_entity("ball", may_be_new=True)
    assert told.tasks == []
    asked: list[str] = []

    async def gone(entity: str) -> EntityRecord:
        asked.append(entity)
        raise UnknownEntityError("none", reason=Atom("no_entity"))

    async def there(entity: str) -> EntityRecord:
        asked.append(entity)
        return record(5)

    for answer, held in ((there, ["ball"]), (gone, [])):
        told.known.entity = answer  # type: ignore[method-assign]
        told.obedience.forget_entity("ball")
        await asyncio.gather(*told.tasks)
        await asyncio.gather(*told.tasks)
        assert told.standing.held() == held
    assert asked == ["ball", "ball"]
    assert told.plane.told[-1] == Forget(entity="ball")
    assert [event.entity for event in told.events if isinstance(event, EntityDeleted)] == ["ball"]


@pytest.mark.parametrize("closed_first", [True, False])
async def test_an_entity_that_went_home_goes_on_to_be_shown_here_whichever_is_heard_first(
    told: Told, closed_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obedience, "MAX_DEPARTED", 1)
    for entity in ("ball", "sack"):
        await told.learns(record(5, entity=entity))
        told.standing.pinned.add(entity)
        closed = Closed(entity=entity, epoch=6, holder="sim9@emerald", step=STEP)
        if closed_first:
            await told.obedience.read_inbox(closed)
        told.obedience.forget_entity(entity)
        if not closed_first:
            await told.obedience.read_inbox(closed)
        assert Forget(entity=entity) not in told.plane.told
        assert RaiseFence(entity=entity, epoch=6, server="sim9@emerald") in told.plane.told
        assert entity not in told.standing.entities
    # As many as there is room for.
    assert [command for command in told.plane.told if isinstance(command, Forget)] == [Forget(entity="ball")]


async def test_an_entity_that_came_back_is_forgotten_when_it_is_deleted(told: Told) -> None:
    await told.learns(record(5))
    await told.obedience.read_inbox(Closed(entity="ball", epoch=6, holder="sim9@emerald", step=STEP))
    await told.learns(record(7, version=9))
    told.obedience.forget_entity("ball")
    assert told.plane.told[-1] == Forget(entity="ball")
    assert told.obedience.knows_of() == 0


async def test_a_wait_ends_when_the_session_waited_for_ends(told: Told) -> None:
    await told.standing.gain("ball", 6, due("sim2", 5))
    await told.learns(record(6, session=SESSION, server="sim1", version=9))
    assert told.plane.held() == [("ball", 6)]


async def test_a_wait_is_for_the_older_holder_when_the_one_waited_for_ends(told: Told) -> None:
    await told.standing.gain("ball", 6, due("sim2", 5, due("sim3", 4)))
    await told.learns(record(6, session=SESSION, server="sim1", version=9, awaiting=due("sim3", 4)))
    assert told.plane.held() == []
    assert told.standing.givers == {"ball": "sim3"}
    assert told.standing.holdings["ball"].awaited == 4


async def test_who_waits_in_the_middle_hears_of_it_too_and_obeys_its_recall(told: Told) -> None:
    """docs/authority-model.md, MIDDLE_WAITS: the record names a later grant."""
    await told.standing.gain("ball", 6, due("sim2", 5))
    await told.obedience.read_inbox(recall(6, 7, "sim3"))
    mine = Awaiting(session=SESSION, server="sim1", epoch=6)
    waits = Awaiting(session=SESSION, server="sim1", epoch=6, awaiting=due("sim2", 5))
    await told.learns(record(7, server="sim3", version=8, awaiting=waits))
    assert told.standing.holdings["ball"].phase is Phase.AWAITING
    await told.learns(record(7, server="sim3", version=9, awaiting=mine))
    assert told.plane.held() == [("ball", 6)]
    assert told.plane.stopped == [("ball", "sim3")]
    assert told.standing.held() == []
    assert told.obedience.obeyed((("ball", 6), ("sack", 1))) == [("ball", 6)]


async def test_a_record_that_says_nothing_of_a_wait_leaves_it(told: Told) -> None:
    await told.standing.gain("ball", 6, due("sim2", 5))
    await told.learns(record(9, server="sim3"))
    assert told.standing.holdings["ball"].phase is Phase.AWAITING


@pytest.mark.parametrize("asked_first", [True, False])
async def test_a_giver_asked_before_it_has_released_takes_back_what_nobody_got(
    told: Told, asked_first: bool
) -> None:
    """The lessor asks who could go on in the very moment: without an answer the entity is dormant."""
    pulled: list[int] = []

    async def pull(*, epoch: int, **_: Any) -> Any:
        pulled.append(epoch)
        return record(9, session=SESSION, server="sim1")

    told.known.pull = pull  # type: ignore[attr-defined]
    await told.standing.gain("ball", 5, None)
    taken = record(6, awaiting=Awaiting(session=SESSION, server="sim1", epoch=5, awaiting=None))
    await told.learns(taken)
    dormant = replace(taken, session=None, server=None, version=7)
    if asked_first:
        await told.learns(dormant)
        assert (pulled, told.standing.held()) == ([], ["ball"])
    await told.obedience.read_inbox(recall(5, 6, "sim2"))
    if not asked_first:
        assert (pulled, told.standing.held()) == ([], [])
    await told.learns(dormant)
    assert pulled == [6]
    assert told.plane.held() == [("ball", 5), ("ball", 9)]

"""A session's feed without homeservers: what is told, and who hears it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import pytest

from bridge.errors import DeadlineError
from bridge.etf import Atom
from bridge.khepri import Deleted, Khepri, Snapshot, Updated
from bridge.registry import EntityRecord, PlayerRecord, Recall, ServerRecord
from bridge.sim import feed
from bridge.sim.asks import Asks
from bridge.sim.direct import DirectUpdates
from bridge.sim.events import Problem
from bridge.sim.feed import BRIDGE, Feed
from bridge.sim.obedience import Obedience
from bridge.sim.standing import Standing

SESSION = b"s" * 16
SERVERS, PLAYERS, ENTITIES, INBOX = map(Atom, ("servers", "players", "entities", "inbox"))


class Servers:
    """Hear of servers."""

    def __init__(self, heard: list[tuple[str, str]]) -> None:
        self.heard = heard

    def learn(self, record: ServerRecord) -> None:
        self.heard.append(("server", record.server))

    def forget(self, server: str) -> None:
        self.heard.append(("no server", server))


class Hearing:
    """Store, and everybody who hears of it: what they hear, in order."""

    def __init__(self, *changes: Any) -> None:
        self.session = SESSION
        self.entities: dict[str, Any] = {}
        self.heard: list[tuple[str, str]] = []
        self.servers = Servers(self.heard)
        self.changes = changes
        self.feed = Feed(
            store=cast(Khepri, self),
            standing=cast(Standing, self),
            obedience=cast(Obedience, self),
            direct=cast(DirectUpdates, self),
            asks=cast(Asks, self),
            on_event=self.on_event,
            spawn=self.spawn,
        )
        self.tasks: list[asyncio.Task[Any]] = []

    @contextlib.asynccontextmanager
    async def watch(self, *paths: Any) -> AsyncIterator[AsyncIterator[Any]]:
        assert [path[1] for path in paths] == [SERVERS, PLAYERS, ENTITIES, INBOX]

        async def told() -> AsyncIterator[Any]:
            for change in self.changes:
                yield change

        yield told()

    async def hears(self) -> list[tuple[str, str]]:
        await self.feed.run()
        await asyncio.gather(*self.tasks)
        return self.heard

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def on_event(self, event: Any) -> None:
        assert isinstance(event, Problem)
        self.heard.append(("problem", event.text.split(":")[1]))

    def learn_player(self, record: PlayerRecord) -> None:
        self.heard.append(("player", record.player))

    def learn_entity(self, record: EntityRecord) -> None:
        self.entities[record.entity] = record
        self.heard.append(("entity", record.entity))

    async def read_inbox(self, message: Any) -> None:
        assert isinstance(message, Recall)
        self.heard.append(("inbox", message.entity))

    def forget_player(self, player: str) -> None:
        self.heard.append(("no player", player))

    def forget_entity(self, entity: str, *, may_be_new: bool = False) -> None:
        self.heard.append(("maybe no entity" if may_be_new else "no entity", entity))

    def forget_ask(self, entity: str, player: str) -> None:
        self.heard.append(("no ask", f"{entity} {player}"))


def term(**members: Any) -> dict[Atom, Any]:
    return {Atom(name): value for name, value in members.items()}


def entity(name: bytes) -> tuple[Any, Any]:
    data = term(
        entity=name,
        owner=b"ann",
        master=b"ann",
        rule=Atom("allow"),
        session=Atom("undefined"),
        server=Atom("undefined"),
        epoch=1,
        awaiting=Atom("undefined"),
        home=b"local",
        version=1,
    )
    return (BRIDGE, ENTITIES, name), data


def snapshot(nodes: dict[Any, Any]) -> Snapshot:
    return Snapshot(nodes=nodes, member="hs1@127.0.0.1")


SERVER = (
    (BRIDGE, SERVERS, b"sim2"),
    term(
        server=b"sim2",
        session=b"o" * 16,
        key=b"{}",
        thumbprint=b"t",
        address=(b"127.0.0.1", 4000),
    ),
)
RECALL = (
    (BRIDGE, INBOX, SESSION, b"ball"),
    term(
        type=Atom("recall"),
        entity=b"ball",
        epoch=1,
        granted=2,
        to=b"sim2",
        session=b"o" * 16,
        owner=b"bob",
        trace=bytes(16),
        hop=1,
        unread=Atom("undefined"),
    ),
)


async def test_keys_are_heard_of_before_the_messages_that_need_them() -> None:
    nodes = dict([RECALL, entity(b"ball"), SERVER])
    heard = await Hearing(snapshot(nodes)).hears()
    assert heard == [("server", "sim2"), ("entity", "ball"), ("inbox", "ball")]


async def test_a_record_that_cannot_be_read_is_told_and_the_rest_counts() -> None:
    path, data = entity(b"ball")
    broken = {name: value for name, value in data.items() if name != Atom("epoch")}
    hearing = Hearing(snapshot({path: broken, **dict([entity(b"cup")])}), Updated(path=path, data=data))
    kinds = [kind for kind, _ in await hearing.hears()]
    assert kinds == ["problem", "entity", "entity"]
    assert hearing.feed.ready.is_set()


async def test_what_a_snapshot_lacks_may_be_no_more() -> None:
    first, second = dict([entity(b"ball"), entity(b"cup")]), dict([entity(b"cup")])
    heard = await Hearing(snapshot(first), snapshot(second)).hears()
    assert heard[-2:] == [("entity", "cup"), ("maybe no entity", "ball")]


async def test_what_is_gone_is_told_to_who_knew_it() -> None:
    gone = [
        (BRIDGE, SERVERS, b"sim2"),
        (BRIDGE, PLAYERS, b"ann"),
        (BRIDGE, ENTITIES, b"ball"),
        (BRIDGE, INBOX, SESSION, Atom("asks"), b"ball", b"bob"),
        (BRIDGE, INBOX, SESSION, b"ball"),
    ]
    assert await Hearing(*(Deleted(path=path) for path in gone)).hears() == [
        ("no server", "sim2"),
        ("no player", "ann"),
        ("no entity", "ball"),
        ("no ask", "ball bob"),
    ]


async def turns_meanwhile(hearing: Hearing) -> list[int]:
    """How much had been heard at each turn of somebody else, while all is told."""
    turns: list[int] = []
    hearing_all = asyncio.create_task(hearing.hears())
    while not hearing_all.done():
        turns.append(len(hearing.heard))
        await asyncio.sleep(0)
    await hearing_all
    return turns


async def test_others_have_their_turns_while_a_world_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """R0-52: renewals and steps of the simulation must not wait for all of it."""
    monkeypatch.setattr(feed, "_LEARNED_AT_ONCE", 10)
    hearing = Hearing(snapshot(dict(entity(b"tree%d" % number) for number in range(100))))
    turns = await turns_meanwhile(hearing)
    assert sorted(set(turns)) == list(range(0, 101, 10))
    assert hearing.feed.learned == 100


async def test_others_have_their_turns_while_a_world_is_sorted_and_what_it_lacks_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_SORTED_AT_ONCE", 10)
    nodes = dict(entity(b"tree%d" % number) for number in range(100))
    hearing = Hearing(snapshot(nodes), snapshot({}))
    turns = await turns_meanwhile(hearing)
    assert turns.count(0) >= 10
    assert {100, 110, 120, 150, 190} < set(turns)
    assert hearing.heard[100:] == [("maybe no entity", f"tree{number}") for number in range(100)]


async def test_what_is_gone_already_is_not_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While others have their turns, an entity that a snapshot lacks may end by another way."""
    monkeypatch.setattr(feed, "_SORTED_AT_ONCE", 1)
    hearing = Hearing(snapshot(dict([entity(b"ball"), entity(b"cup")])), snapshot({}))
    hears = asyncio.create_task(hearing.hears())
    while ("maybe no entity", "ball") not in hearing.heard:
        await asyncio.sleep(0)
    del hearing.entities["cup"]
    assert ("maybe no entity", "cup") not in await hears


async def test_others_have_their_turns_while_many_changes_have_come_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_LEARNED_AT_ONCE", 10)
    hearing = Hearing(
        *(Updated(path=path, data=data) for path, data in (entity(b"tree%d" % n) for n in range(100)))
    )
    assert {10, 20, 50, 90} <= set(await turns_meanwhile(hearing))


async def lasts() -> None:
    await asyncio.Event().wait()


class Slow(Feed):
    """Tells of another record each time that it is looked at, so many times."""

    def __init__(self, times: int) -> None:
        self.ready = asyncio.Event()
        self.times = times
        self.looks = 0

    @property
    def learned(self) -> int:
        self.looks += 1
        if self.looks == self.times:
            self.ready.set()
        return self.looks

    @learned.setter
    def learned(self, value: int) -> None:
        raise AssertionError


async def until_begun(told: Feed, *, acknowledged: bool, over: Coroutine[Any, Any, None]) -> None:
    event, session = asyncio.Event(), asyncio.create_task(over)
    if acknowledged:
        event.set()
    try:
        await told.until_begun("sim1", acknowledged=event, over=session)
    finally:
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)


async def test_a_world_may_be_told_for_as_long_as_more_of_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """R0-52: one of tens of thousands takes a busy machine longer than an election may."""
    monkeypatch.setattr(feed, "_START_SECONDS", 0.001)
    slow = Slow(20)
    await until_begun(slow, acknowledged=True, over=lasts())
    assert slow.ready.is_set()


@pytest.mark.parametrize(
    ("acknowledged", "text"),
    [(True, "has heard no more of the world in"), (False, "do the homeservers have a leader")],
)
async def test_who_waits_in_vain_is_told_for_what(
    monkeypatch: pytest.MonkeyPatch, acknowledged: bool, text: str
) -> None:
    monkeypatch.setattr(feed, "_START_SECONDS", 0.001)
    with pytest.raises(DeadlineError, match=text):
        await until_begun(Hearing().feed, acknowledged=acknowledged, over=lasts())


async def test_a_session_that_is_lost_meanwhile_is_not_waited_for() -> None:
    with pytest.raises(DeadlineError, match="was lost before"):
        await until_begun(Hearing().feed, acknowledged=True, over=asyncio.sleep(0))

"""Simulation servers of two instances, with their data planes, and what really crossed between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from bridge.authority import CASES, Entry, HandOver, check, decode_entries, of_instance, transfers
from bridge.errors import AuthorityError, InvalidStateError
from bridge.etf import Atom
from bridge.registry import Closed, Returned, UnknownServerError
from tests.support.cluster import fresh
from tests.support.federation import Federation, Instance, term
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@dataclass
class Pair:
    """A server in each instance, and couriers."""

    federation: Federation
    a: Observed
    b: Observed

    async def history(self) -> list[Entry]:
        """The records of both, as one."""
        entries: list[Entry] = []
        for observed, side in ((self.a, self.federation.x), (self.b, self.federation.y)):
            report = await observed.server.report()
            entries += of_instance(decode_entries(report.history), side.name)
        return entries


async def knows(side: Instance, other: Instance, server: str) -> None:
    """Wait until one side was told of a server of the other."""
    async with asyncio.timeout(10):
        while True:
            told = await term(side, "abroad", other.name)
            if told is not None and server.encode() in told[Atom("servers")]:
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def pair(federation: Federation) -> AsyncIterator[Pair]:
    x, y = federation.x, federation.y
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(federation.couriers())
        a = await stack.enter_async_context(simulation(x.cluster, fresh("sim")))
        b = await stack.enter_async_context(simulation(y.cluster, fresh("sim")))
        await knows(x, y, b.name)
        await knows(y, x, a.name)
        yield Pair(federation, a, b)


async def test_an_entity_goes_there_and_back_with_its_state(pair: Pair) -> None:
    """R0-27, R0-28, B-3: the state hash at the first tick equals that of the last one, both ways."""
    a, b, ball = pair.a, pair.b, fresh("ball")
    ours, theirs = a.server.transfers, b.server.transfers
    await ours.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0))
    await ours.push_abroad(ball, owner="Player2", instance="ruby", to=b.name)
    closed = await ours.abroad.decided(ball, seconds=20)
    assert isinstance(closed, Closed)
    assert closed.holder == f"{b.name}@ruby"
    await b.acts(ball, closed.epoch)
    assert (ours.held(), theirs.held()) == ([], [ball])
    # State streams across, and is believed from its new holder.
    await a.told_state(ball, closed.epoch, f"{b.name}@ruby")

    await theirs.push_abroad(ball, owner="Player1", instance="emerald", to=a.name)
    back = await theirs.abroad.decided(ball, seconds=20)
    assert isinstance(back, Closed)
    await a.acts(ball, back.epoch)
    assert (ours.held(), theirs.held()) == ([ball], [])
    assert ours.state(ball).position == pytest.approx((1.0, 2.0, 3.0), abs=0.01)
    entries = await pair.history()
    sides: dict[str, dict[int, bytes]] = {"gave": {}, "took": {}}
    for entry in entries:
        if isinstance(entry, HandOver):
            sides[entry.side][entry.epoch] = entry.hash
    assert len(sides["gave"]) == 2
    assert sides["gave"] == sides["took"]
    assert check(entries).violations == []
    assert check(entries).acts >= 2


async def test_who_gave_entities_home_goes_on_seeing_them(pair: Pair) -> None:
    """Their records go with the same commit that tells of the new holder, and either may be heard first."""
    a, b = pair.a, pair.b
    balls = [fresh("ball") for _ in range(16)]

    async def there_and_home(ball: str) -> None:
        await a.server.transfers.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0))
        await a.server.transfers.push_abroad(ball, owner="Player2", instance="ruby", to=b.name)
        there = await a.server.transfers.abroad.decided(ball, seconds=20)
        await b.acts(ball, there.epoch)
        await b.server.transfers.push_abroad(ball, owner="Player1", instance="emerald", to=a.name)
        back = await b.server.transfers.abroad.decided(ball, seconds=20)
        await a.acts(ball, back.epoch)
        await b.told_state(ball, back.epoch, f"{a.name}@emerald")

    await asyncio.gather(*map(there_and_home, balls))


async def test_four_and_two_messages_cross_three_of_them_on_the_critical_path(pair: Pair) -> None:
    """R0-28: 4 + 2H and 2 + H at H = 1, counted where each message was received."""
    a, b, ball = pair.a, pair.b, fresh("ball")
    await a.server.transfers.spawn(ball, owner="Player1", position=(0.0, 0.0, 0.0))
    await a.server.transfers.push_abroad(ball, owner="Player2", instance="ruby", to=b.name)
    closed = await a.server.transfers.abroad.decided(ball, seconds=20)
    await b.acts(ball, closed.epoch)
    x, y = pair.federation.x, pair.federation.y
    crossed = a.server.transfers.messages + b.server.transfers.messages + x.messages + y.messages
    (transfer,) = [t for t in transfers(crossed) if t.trace == closed.step.trace]
    assert transfer.case == "push_abroad"
    assert sorted(message.kind for message in transfer.messages) == sorted(CASES["push_abroad"].kinds)
    assert (len(transfer.messages), transfer.critical_path) == (6, 3)


async def test_refused_it_goes_on_where_it_was(pair: Pair) -> None:
    a, b, ball = pair.a, pair.b, fresh("ball")
    ours = a.server.transfers
    spawned = await ours.spawn(ball, owner="Player1", position=(4.0, 5.0, 6.0))
    # Something of that name is there.
    await b.server.transfers.spawn(ball, owner="Player9", position=(0.0, 0.0, 0.0))
    await ours.push_abroad(ball, owner="Player2", instance="ruby", to=b.name)
    returned = await ours.abroad.decided(ball, seconds=20)
    assert isinstance(returned, Returned)
    assert returned.reason == "entity_exists"
    await a.acts(ball, returned.epoch)
    assert returned.epoch > spawned.epoch
    assert ours.held() == [ball]
    assert ours.state(ball).position == pytest.approx((4.0, 5.0, 6.0), abs=0.01)
    assert (await pair.federation.x.entity(ball)).owner == "Player1"


async def test_what_cannot_be_given_stays(pair: Pair) -> None:
    a, ball = pair.a, fresh("ball")
    ours = a.server.transfers
    await ours.spawn(ball, owner="Player1", position=(0.0, 0.0, 0.0))
    with pytest.raises(UnknownServerError):
        await ours.push_abroad(ball, owner="Player2", instance="ruby", to=fresh("nobody"))
    with pytest.raises(UnknownServerError):
        await ours.push_abroad(ball, owner="Player2", instance="opal", to=pair.b.name)
    with pytest.raises(InvalidStateError):
        await ours.push_abroad(fresh("nothing"), owner="Player2", instance="ruby", to=pair.b.name)
    with pytest.raises(InvalidStateError, match="not given"):
        await ours.abroad.decided(ball, seconds=1)
    assert ours.held() == [ball]


async def test_refused_at_home_it_goes_on_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    a, ball = pair.a, fresh("ball")
    ours = a.server.transfers
    record = await ours.spawn(ball, owner="Player1", position=(0.0, 0.0, 0.0))

    async def refuses(**request: object) -> None:
        raise AuthorityError("no", reason=Atom("too_many_open"), props={})

    monkeypatch.setattr(ours.abroad._home, "push_abroad", refuses)
    with pytest.raises(AuthorityError):
        await ours.push_abroad(ball, owner="Player2", instance="ruby", to=pair.b.name)
    assert ours.held() == [ball]
    assert ours.held_epoch(ball) == record.epoch


async def test_a_taker_that_is_known_is_not_asked_for_before_the_push(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R0-28: else every transfer would begin with a round trip that no trace counts."""
    a, b, ours = pair.a, pair.b, pair.a.server.transfers
    for ball in (fresh("ball"), fresh("ball")):
        await ours.spawn(ball, owner="Player1", position=(0.0, 0.0, 0.0))
        await ours.push_abroad(ball, owner="Player2", instance="ruby", to=b.name)
        assert isinstance(await ours.abroad.decided(ball, seconds=20), Closed)
        # From the second one on the answer may take as long as it likes.
        monkeypatch.setattr(ours.abroad._home, "server_abroad", _never)
    assert a.problems() == []


async def _never(*_arguments: object) -> None:
    await asyncio.Event().wait()

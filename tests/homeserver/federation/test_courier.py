"""Two real instances: what is in escrow gets to its receiver, or home, whatever is lost and whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.homeserver.federation import CourierConfig, Peer
from bridge.homeserver.federation.documents import Refused
from bridge.khepri import Khepri
from bridge.registry import AwayError, Closed, Grant, NotHolderError, Returned
from tests.support.authority import Server
from tests.support.cluster import fresh, hidden_node
from tests.support.federation import QUICK, Federation, Instance, instance_cluster, term

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

STEPS = ("ask", "answered", "closed")


class Ended(BaseException):
    """A courier's process is no more."""


@pytest.fixture
async def servers(federation: Federation) -> AsyncIterator[tuple[Server, Server]]:
    """One in each instance."""
    a, b = federation.x.server(), federation.y.server()
    await a.open()
    await b.open()
    yield a, b
    await a.home.close_session()
    await b.home.close_session()


async def test_an_entity_goes_there_and_comes_back(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    """R0-28, B-3."""
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))
    async with federation.couriers():
        escrowed = await x.push_abroad(spawned, a, y, b)
        assert escrowed.away is not None
        assert (escrowed.away.instance, escrowed.away.in_escrow, escrowed.session) == ("ruby", True, None)
        await federation.settled(ball)

        there, here = await y.entity(ball), await x.entity(ball)
        assert (there.server, there.session, there.owner) == (b.name, b.session, "Player2")
        assert (there.master, there.home) == ("Player1@emerald", "emerald")
        assert there.epoch > escrowed.epoch > spawned.epoch
        assert here.away is not None
        assert (here.away.instance, here.away.in_escrow, here.epoch) == ("ruby", False, there.epoch)
        grant, closed = await b.inbox(ball), await a.inbox(ball)
        assert isinstance(grant, Grant)
        assert isinstance(closed, Closed)
        assert grant.abroad is not None
        assert (grant.giver, grant.abroad.thumbprint) == (f"{a.name}@emerald", a.key.thumbprint())
        assert (closed.holder, closed.epoch) == (f"{b.name}@ruby", there.epoch)
        assert grant.box == a.release(spawned, b) or grant.box.count(".") == 6

        with pytest.raises(AwayError) as refused:
            await a.pull(here)
        assert refused.value.instance == "ruby"

        await y.push_abroad(there, b, x, a)
        await federation.settled(ball)
        back = await x.entity(ball)
        assert (back.server, back.away, back.master, back.home) == (a.name, None, "Player1", "emerald")
        assert back.epoch > there.epoch
        # Its home keeps its place; who has passed it on keeps nothing.
        assert await term(y, "entities", ball) is None


async def test_what_crosses_is_counted(federation: Federation, servers: tuple[Server, Server]) -> None:
    """R0-28: two of the six messages are between homeservers."""
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(fresh("ball"))
    async with federation.couriers():
        await x.push_abroad(spawned, a, y, b)
        await federation.settled(spawned.entity)
    assert [(m.kind, m.hop, m.sender, m.receiver) for m in y.messages] == [("escrow", 1, "emerald", "ruby")]
    assert [(m.kind, m.hop, m.sender, m.receiver) for m in x.messages] == [("accept", 2, "ruby", "emerald")]
    grant, closed = await b.inbox(spawned.entity), await a.inbox(spawned.entity)
    assert (grant.step.hop, closed.step.hop) == (2, 3)
    assert {grant.step.trace, closed.step.trace} == {m.trace for m in x.messages + y.messages}


async def test_to_a_server_that_is_not_there_it_comes_back(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))
    await b.home.close_session()
    async with federation.couriers():
        await x.push_abroad(spawned, a, y, b)
        await federation.settled(ball)
    back, returned = await x.entity(ball), await a.inbox(ball)
    assert (back.server, back.owner, back.away) == (a.name, "Player1", None)
    assert isinstance(returned, Returned)
    assert (returned.reason, returned.epoch) == ("no_server", back.epoch)
    assert back.epoch > spawned.epoch
    assert await term(y, "entities", ball) is None


async def test_refused_when_its_giver_has_left_it_is_dormant(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))
    await b.home.close_session()
    await x.push_abroad(spawned, a, y, b)
    await a.home.close_session()
    async with federation.couriers():
        await federation.settled(ball)
    back = await x.entity(ball)
    assert (back.server, back.session, back.away) == (None, None, None)
    assert await federation.places(ball) == ["emerald"]


async def test_that_an_instance_is_away_is_said_once_and_once_that_it_is_back(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    """However many transfers, acknowledgements and questions for servers fail meanwhile."""
    (a, b), x, y = servers, federation.x, federation.y
    balls = [fresh("ball") for _ in range(3)]
    federation.link.lose_question = lambda body: True
    spawned = [await a.spawn(ball) for ball in balls]
    async with federation.couriers():
        for one in spawned:
            await x.push_abroad(one, a, y, b)
        while x.questions["ruby", "unreachable"] < 12:
            await asyncio.sleep(0.02)
        assert x.problems == ["lost on the way there; what is for ruby waits"]
        federation.link.lose_question = lambda body: False
        for ball in balls:
            await federation.settled(ball)
        tries = x.questions["ruby", "unreachable"]
        assert [problem for problem in x.problems if "answers again" in problem] == [x.problems[1]], (
            x.problems
        )
        assert x.problems[1].startswith("ruby answers again, after ")
        assert x.problems[1].endswith(f" and {tries} questions")
        assert x.questions["ruby", "answered"] >= 3


@pytest.mark.parametrize("lost", ["question", "answer"])
async def test_a_receiver_that_is_never_heard_is_asked_to_refuse_until_it_is(
    federation: Federation, servers: tuple[Server, Server], lost: str
) -> None:
    """X never decides alone: where Y accepted and X did not hear, the entity is Y's."""
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))

    def offers(body: bytes) -> bool:
        return bool(json.loads(body)["act"] == "offer")

    if lost == "question":
        federation.link.lose_question = offers
    else:
        federation.link.lose_answer = offers
    config = CourierConfig(patience=0.2, first_wait=0.02, longest_wait=0.05, servers_every=5.0)
    async with federation.couriers(config=config):
        await x.push_abroad(spawned, a, y, b)
        await federation.settled(ball)
    assert await federation.places(ball) == ["emerald" if lost == "question" else "ruby"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_courier_may_end_at_every_step(
    federation: Federation, servers: tuple[Server, Server], step: str
) -> None:
    """B-3, R4-16: the next one goes on from the tree, and nothing is lost or doubled."""
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))

    async def ends(name: str) -> None:
        if name == step:
            raise Ended

    await x.push_abroad(spawned, a, y, b)
    for _ in range(2):
        with pytest.raises(BaseExceptionGroup):
            async with asyncio.timeout(1.0):
                await federation.courier(x, checkpoint=ends).run()
        assert len(await federation.places(ball)) == 1
        if step == "closed":
            break
    async with federation.couriers():
        await federation.settled(ball)
    assert await federation.places(ball) == ["ruby"]
    assert (await y.entity(ball)).server == b.name


async def test_two_couriers_of_one_instance_do_no_harm(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    balls = [await a.spawn(fresh("ball")) for _ in range(8)]
    async with federation.couriers(), federation.couriers():
        await asyncio.gather(*(x.push_abroad(ball, a, y, b) for ball in balls))
        for ball in balls:
            await federation.settled(ball.entity)
            assert await federation.places(ball.entity) == ["ruby"]


async def test_who_answers_never_delays_no_other(
    federation: Federation, servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    jade = Instance(fresh("jade"), y.cluster, y.store)
    await x.escrows.pin(jade.as_peer())
    ask = federation.link.ask

    async def silent(peer: Peer, body: bytes, seal: str) -> tuple[bytes, str]:
        if peer.instance == jade.name:
            await asyncio.Event().wait()
        return await ask(peer, body, seal)

    monkeypatch.setattr(federation.link, "ask", silent)
    stuck, ball = await a.spawn(fresh("ball")), await a.spawn(fresh("ball"))
    transfer = (await x.push_abroad(stuck, a, jade, b)).epoch
    carrying = asyncio.create_task(federation.courier(x, config=replace(QUICK, at_once=1)).run())
    try:
        # The first one has its turn before the second is there.
        await asyncio.sleep(0.2)
        await x.push_abroad(ball, a, y, b)
        await federation.settled(ball.entity)
        async with asyncio.timeout(10):
            while b.name.encode() not in ((await term(x, "abroad", y.name)) or {}).get(Atom("servers"), {}):
                await asyncio.sleep(0.02)
    finally:
        carrying.cancel()
        await asyncio.wait([carrying])
    refusal = Refused(transfer=str(transfer), reason="cancelled", trace="A" * 22, hop=1)
    await x.escrows.close(jade.name, refusal)
    await x.escrows.unpin(jade.name)


async def test_answers_are_forgotten_once_the_giver_has_closed(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))
    async with federation.couriers():
        transfer = (await x.push_abroad(spawned, a, y, b)).epoch
        await federation.settled(ball)
        async with asyncio.timeout(10):
            while await term(y, "incoming", "emerald", str(transfer)) is not None:
                await asyncio.sleep(0.02)
    assert (await term(y, "incoming", "emerald"))[Atom("low")] >= transfer


async def test_each_knows_the_servers_of_the_other(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    async with federation.couriers():
        async with asyncio.timeout(10):
            for side, other, server in ((x, y, b), (y, x, a)):
                while server.name.encode() not in ((await term(side, "abroad", other.name)) or {}).get(
                    Atom("servers"), {}
                ):
                    await asyncio.sleep(0.02)
    known = (await term(x, "abroad", "ruby"))[Atom("servers")][b.name.encode()]
    assert known[Atom("thumbprint")].decode() == b.key.thumbprint()


async def test_an_entity_that_is_passed_on_is_found_by_its_home_and_comes_back(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    """B-3: its home is notary."""
    (a, b), x, y = servers, federation.x, federation.y
    spawned = await a.spawn(ball := fresh("ball"))
    async with contextlib.AsyncExitStack() as stack:
        cluster = stack.enter_context(instance_cluster("opal"))
        node = await stack.enter_async_context(hidden_node(cluster))
        store = await stack.enter_async_context(Khepri.connect(node, cluster.members, store=cluster.store))
        z = Instance("opal", cluster, store)
        for one, other in ((x, z), (y, z), (z, x), (z, y)):
            await one.escrows.pin(other.as_peer())
        federation.link.desks["opal"] = z.desk
        c = z.server()
        await c.open()
        carrying = asyncio.create_task(federation.courier(z).run())
        stack.callback(carrying.cancel)
        await stack.enter_async_context(federation.couriers())

        await x.push_abroad(spawned, a, y, b)
        await federation.settled(ball)
        await y.push_abroad(await y.entity(ball), b, z, c)
        # Until the receiver has it and the home has heard, which both were asked for by the courier of Y.
        await federation.settled(ball)
        there, home = await z.entity(ball), await x.entity(ball)
        assert (there.server, there.master, there.home) == (c.name, "Player1@emerald", "emerald")
        assert home.away is not None
        assert (home.away.instance, home.away.in_escrow, home.epoch) == ("opal", False, there.epoch)
        assert await term(y, "entities", ball) is None

        await z.push_abroad(there, c, x, a)
        async with asyncio.timeout(20):
            while (back := await x.entity(ball)).away is not None:
                await asyncio.sleep(0.05)
        assert (back.server, back.master, back.epoch > there.epoch) == (a.name, "Player1", True)
        async with asyncio.timeout(20):
            while await term(z, "entities", ball) is not None:
                await asyncio.sleep(0.05)
        for side in (x, y):
            await side.escrows.unpin("opal", anyway=True)


async def test_only_its_holder_puts_an_entity_into_escrow(
    federation: Federation, servers: tuple[Server, Server]
) -> None:
    (a, b), x, y = servers, federation.x, federation.y
    other = x.server()
    await other.open()
    spawned = await a.spawn(fresh("ball"))
    with pytest.raises(NotHolderError):
        await x.push_abroad(spawned, other, y, b)
    await other.home.close_session()


def test_times_of_no_use_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        CourierConfig(patience=0)
    with pytest.raises(ConfigurationError):
        CourierConfig(at_once=0)
    assert QUICK.patience < CourierConfig().patience

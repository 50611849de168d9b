"""The whole way between two instances: a REST service each, real sockets, real stores."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridge.homeserver.federation.service import federating
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.serve import Listening, serving, store_context
from bridge.registry.trust import FixedTrust
from tests.support.cluster import fresh
from tests.support.federation import QUICK, Federation, Instance

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@contextlib.asynccontextmanager
async def served(side: Instance) -> AsyncIterator[str]:
    """One side's service; its URL."""
    async with federating(
        side.store, instance=side.name, signer=side.signer, config=QUICK, on_message=side.messages.append
    ) as desk:
        app = create_app(replace(await store_context(side.store, trust=FixedTrust({})), desk=desk))
        async with serving(app, Listening()) as (url, _):
            yield url


async def test_an_entity_goes_there_and_back_by_rest(federation: Federation) -> None:
    x, y = federation.x, federation.y
    a, b = x.server(), y.server()
    await a.open()
    await b.open()
    spawned = await a.spawn(ball := fresh("ball"))
    async with served(x) as x_url, served(y) as y_url:
        await x.escrows.pin(y.as_peer(urls=(y_url,)))
        await y.escrows.pin(x.as_peer(urls=(x_url,)))
        await x.push_abroad(spawned, a, y, b)
        await federation.settled(ball)
        there = await y.entity(ball)
        assert there.server == b.name
        await y.push_abroad(there, b, x, a)
        await federation.settled(ball)
    back = await x.entity(ball)
    assert (back.server, back.away) == (a.name, None)
    assert back.epoch > there.epoch > spawned.epoch
    assert [m.kind for m in y.messages] == ["escrow", "accept"]


async def test_while_the_other_is_away_an_entity_waits_in_escrow(federation: Federation) -> None:
    x, y = federation.x, federation.y
    a, b = x.server(), y.server()
    await a.open()
    await b.open()
    spawned = await a.spawn(ball := fresh("ball"))
    async with served(x) as x_url:
        await y.escrows.pin(x.as_peer(urls=(x_url,)))
        await x.escrows.pin(y.as_peer(urls=("http://127.0.0.1:1",)))
        await x.push_abroad(spawned, a, y, b)
        assert await federation.places(ball) == ["escrow of emerald"]
        async with served(y) as y_url:
            await x.escrows.pin(y.as_peer(urls=(y_url,)))
            await federation.settled(ball)
    assert len(await federation.places(ball)) == 1

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest

from bridge.homeserver.rest.serve import Listening, serving
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose import Jwk
from bridge.jose.credentials import AccessToken, Role
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from bridge.registry import Rule
from bridge.registry.trust import FixedTrust
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.credentials import KEYS
from tests.support.rest import GENEROUS, Rest, bearer, kind


class Stream:
    """Events of a feed, read as a browser does."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last = ""

    async def next(self) -> tuple[str, Any]:
        """The next event; ids and comments between are taken note of."""
        event = ""
        async with asyncio.timeout(20):
            while True:
                name, _, value = (await anext(self._lines)).partition(": ")
                if name == "id":
                    self.last = value
                elif name == "event":
                    event = value
                elif name == "data":
                    return event, json.loads(value)

    async def until(self, wanted: str) -> Any:
        while (event := await self.next())[0] != wanted:
            pass
        return event[1]

    async def has_id(self) -> str:
        async with asyncio.timeout(20):
            while not self.last:
                line = await anext(self._lines)
                self.last = line.removeprefix("id: ") if line.startswith("id: ") else ""
        return self.last


@contextlib.asynccontextmanager
async def _served(rest: Rest) -> AsyncIterator[str]:
    async with serving(rest.app, Listening()) as (url, _):
        yield url


@contextlib.asynccontextmanager
async def _following(url: str, token: str, last: str = "", **query: Any) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        client.stream("GET", "/v1/feed", params=query) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Stream(response)


@erlang
async def test_a_feed_begins_with_what_is_there_and_goes_on_where_it_broke_off(
    rest: Rest, server: Server
) -> None:
    record = await server.spawn(fresh("thing"))
    token = bearer(rest.context.instance, "reader")
    home = server.home
    async with _served(rest) as url:
        async with _following(url, token, entity=record.entity) as stream:
            assert (await stream.next())[1]["gap"] is False
            assert (await stream.next())[1]["owner"] == "Player1"
            assert (await stream.next())[0] == "complete"
            last = await stream.has_id()
            await rest.context.ownership.transfer(record.entity, "Player2", by="Player1")
            assert (await stream.next())[1]["owner"] == "Player2"
        await rest.context.ownership.transfer(record.entity, "Player3", by="Player2")
        async with _following(url, token, last, entity=record.entity) as stream:
            told = [await stream.next() for _ in range(2)]
            assert [entity["owner"] for _, entity in told] == ["Player2", "Player3"]
        other = (
            await home.create_entity(entity=fresh("thing"), owner="a", master="a", rule=Rule.DENY)
        ).entity
        async with _following(url, token, last, entity=[record.entity, other]) as stream:
            assert (await stream.next())[0] == "snapshot", "an id of another feed says nothing here"


@erlang
async def test_a_master_sees_questions_and_a_player_what_became_of_them(rest: Rest, server: Server) -> None:
    """R3-13: with no polling at all."""
    master, guest, thing = fresh("Master"), fresh("Guest"), fresh("thing")
    for player in (master, guest):
        await rest.context.ownership.enter(player, server.session)
    record = await server.home.create_entity(entity=thing, owner=master, master=master, rule=Rule.ASK)
    here = rest.context.instance
    async with (
        _served(rest) as url,
        _following(url, bearer(here, master), topic="asks") as of_master,
        _following(url, bearer(here, guest), topic="asks") as of_guest,
    ):
        for stream in (of_master, of_guest):
            await stream.until("complete")
        await rest.context.ownership.request(record, player=guest, session=server.session)
        (question,) = (await of_master.until("asks"))["asks"]
        assert question["player"] == guest
        await rest.context.ownership.answer(thing, player=guest, by=master, grant=True)
        event, outcome = await of_guest.next()
        assert (event, outcome["outcome"], outcome["record"]["owner"]) == ("outcome", "granted", guest)


@erlang
async def test_a_server_without_a_cookie_gets_its_inbox(rest: Rest, server: Server) -> None:
    record = await server.spawn(fresh("thing"))
    token = bearer(rest.context.instance, server.name, Role.SERVER, key=server.key)
    taker = Server(server.store, fresh("sim"))
    await taker.open()
    async with (
        _served(rest) as url,
        _following(url, token, topic="inbox", session=base64url_encode(server.session)) as stream,
    ):
        await stream.until("complete")
        granted = await taker.pull(record)
        recall = await stream.until("inbox")
        assert (recall["type"], recall["taker"]) == ("recall", taker.name)
        assert recall["granted"] == str(granted.epoch)


@erlang
async def test_a_feed_ends_with_its_token_and_with_the_service(rest: Rest) -> None:
    here = rest.context.instance
    async with _served(rest) as url:
        nearly = time.time() - AccessToken.MAX_LIFETIME_S + 2
        async with _following(url, bearer(here, "a", issued_at=nearly), topic="scenes") as stream:
            await stream.until("end")
        async with _following(url, bearer(here, "b"), topic="scenes") as stream:
            await stream.until("complete")
            rest.context.stopping.set()
            await stream.until("end")
        async with asyncio.timeout(20):
            while len(rest.app.state.feeds):
                await asyncio.sleep(0.01)


@erlang
async def test_a_silent_feed_says_that_it_lives_and_there_are_only_so_many(store: Khepri) -> None:
    settings = RestSettings(max_feeds=1, feed_heartbeat=0.05)
    async with await Rest.over(store, settings) as rest, _served(rest) as url:
        token = bearer(rest.context.instance, "a")
        async with (
            httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client,
            client.stream("GET", "/v1/feed", params={"topic": "asks"}) as first,
        ):
            lines = first.aiter_lines()
            async with asyncio.timeout(20):
                while await anext(lines) != ": still here":
                    pass
            second = await client.get("/v1/feed", params={"topic": "asks"})
            assert (kind(second), second.status_code) == ("too_many_feeds", 503)


@erlang
async def test_who_hangs_up_before_the_first_byte_leaves_no_feed_behind(rest: Rest) -> None:
    """As who asks for much in one connection, reads nothing of it, and goes."""
    token = bearer(rest.context.instance, "a")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/feed",
        "raw_path": b"/v1/feed",
        "query_string": b"topic=scenes",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def stuck(message: MutableMapping[str, Any]) -> None:
        del message
        await asyncio.Event().wait()

    await rest.app(scope, gone, stuck)
    async with asyncio.timeout(20):
        while len(rest.app.state.feeds):
            await asyncio.sleep(0.01)


class _Revoking(FixedTrust):
    """Revokes while a service runs."""

    def __init__(self) -> None:
        super().__init__(KEYS)
        self.known: set[str] = set()

    def is_revoked(self, credential: str) -> bool:
        return credential in self.known


@erlang
async def test_one_caller_has_a_few_feeds_and_a_revoked_key_none(store: Khepri) -> None:
    """R0-6: a revocation ends a feed within a heartbeat."""
    trust = _Revoking()
    settings = RestSettings(max_feeds_of_one=1, feed_heartbeat=0.05)
    async with await Rest.over(store, settings, trust=trust) as rest, _served(rest) as url:
        key = Jwk.generate()
        token = bearer(rest.context.instance, "a", key=key)
        async with _following(url, token, topic="scenes") as stream:
            await stream.until("complete")
            client = await rest.client("a")
            assert kind(await client.get("/v1/feed", params={"topic": "scenes"})) == "too_many_requests"
            async with _following(url, bearer(rest.context.instance, "b"), topic="scenes") as other:
                await other.until("complete")
            trust.known.add(key.thumbprint())
            await stream.until("end")


@erlang
@pytest.mark.parametrize(
    ("role", "query", "why"),
    [
        (Role.PLAYER, {}, "invalid_request"),
        (Role.PLAYER, {"topic": "all"}, "invalid_request"),
        (Role.PLAYER, {"entity": ["a"] * 33}, "invalid_request"),
        (Role.PLAYER, {"topic": "inbox"}, "role"),
        (Role.SERVER, {"topic": "asks"}, "role"),
        (Role.SERVER, {"topic": "inbox"}, "invalid_request"),
        (Role.SERVER, {"topic": "inbox", "session": "AAECAwQFBgcICQoLDA0ODw"}, "no_session"),
    ],
)
async def test_a_feed_is_of_what_its_caller_may_see(
    rest: Rest, role: Role, query: dict[str, Any], why: str
) -> None:
    client = await rest.client(fresh("caller"), role)
    assert kind(await client.get("/v1/feed", params=query)) == why
    assert GENEROUS.max_feeds > len(rest.app.state.feeds) == 0

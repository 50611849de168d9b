from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bridge.homeserver.rest.handlers import add_handlers
from bridge.homeserver.rest.limits import AddressLimit, BodyLimit, CallerLimit, host_of
from bridge.homeserver.rest.problems import ProblemError
from bridge.homeserver.rest.settings import RestSettings
from bridge.homeserver.rest.tracing import Tracing
from tests.support.rest import kind, problem

SLOW = 1e-6
"""of a second: nothing comes back while a test runs"""


async def _statuses(address: tuple[str, int], count: int, app: AddressLimit) -> list[int]:
    transport = httpx.ASGITransport(Tracing(app), client=address)
    async with httpx.AsyncClient(transport=transport, base_url="http://rest") as client:
        responses = [await client.get("/") for _ in range(count)]
    for response in responses:
        if response.status_code == 429:
            assert response.headers["Retry-After"] == "1"
            problem(response)
    return [response.status_code for response in responses]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "no address"])
async def test_an_address_that_asks_too_often_waits_and_others_do_not(address: str) -> None:
    async def ok(_: object) -> JSONResponse:
        return JSONResponse({})

    settings = RestSettings(address_rate=SLOW, address_burst=2)
    app = AddressLimit(Starlette(routes=[Route("/", ok)]), settings)
    assert await _statuses((address, 1), 3, app) == [200, 200, 429]
    assert await _statuses(("192.0.2.2", 1), 1, app) == [200]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("size", [1, 0, -1])
async def test_a_body_is_bounded_whether_or_not_it_tells_its_length(told: bool, size: int) -> None:
    async def read(request: Request) -> JSONResponse:
        return JSONResponse(len(await request.body()))

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(50)
        yield bytes(50 + size)

    app = FastAPI()
    app.add_route("/", read, methods=["POST"])
    add_handlers(app, app.routes)
    transport = httpx.ASGITransport(Tracing(BodyLimit(app, RestSettings(max_body_bytes=100))))
    async with httpx.AsyncClient(transport=transport, base_url="http://rest") as client:
        response = await client.post("/", content=bytes(100 + size) if told else chunks())
        assert kind(response) == ("too_large" if size > 0 else "200")
        assert kind(await client.post("/", headers={"Content-Length": "9" * 30})) == "too_large"


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def read(request: Request) -> JSONResponse:
        return JSONResponse(len(await request.body()))

    async def beginning() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    app = FastAPI()
    app.add_route("/", read, methods=["POST"])
    add_handlers(app, app.routes)
    transport = httpx.ASGITransport(Tracing(BodyLimit(app, RestSettings(body_seconds=0.01))))
    async with httpx.AsyncClient(transport=transport, base_url="http://rest") as client:
        response = await client.post("/", content=beginning())
    assert (kind(response), response.headers["Connection"]) == ("too_slow", "close")


@pytest.mark.parametrize(
    ("client", "host"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8::1", 1), "2001:db8::1"),
        (("unknown", 0), "::"),
        (None, "::"),
    ],
)
def test_who_is_at_no_address_shares_one(client: tuple[str, int] | None, host: str) -> None:
    assert host_of({"type": "http", "client": client}) == host


def test_a_caller_who_asks_too_often_waits_and_others_do_not() -> None:
    limit = CallerLimit(RestSettings(caller_rate=SLOW, caller_burst=1))
    limit.take("player:a")
    limit.take("player:b")
    with pytest.raises(ProblemError, match="too many"):
        limit.take("player:a")


def test_callers_that_are_forgotten_begin_anew() -> None:
    limit = CallerLimit(RestSettings(caller_rate=SLOW, caller_burst=1))
    for number in range(10_001):
        limit.take(str(number))
    limit.take("0")
    with pytest.raises(ProblemError):
        limit.take("10000")


def test_keyed_writes_of_all_callers_have_one_rate() -> None:
    limit = CallerLimit(RestSettings(keyed_rate=SLOW, keyed_burst=1))
    limit.take_keyed("player:a")
    with pytest.raises(ProblemError, match="Idempotency-Key"):
        limit.take_keyed("player:b")


def test_who_writes_much_with_keys_leaves_some_to_others() -> None:
    limit = CallerLimit(RestSettings(keyed_rate=SLOW, keyed_burst=40))
    for _ in range(25):
        limit.take_keyed("player:a")
    with pytest.raises(ProblemError, match="of this caller"):
        limit.take_keyed("player:a")
    for _ in range(4):
        limit.take_keyed("player:b")

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from bridge.homeserver.rest.handlers import add_handlers
from bridge.homeserver.rest.tracing import Tracing
from tests.support.rest import problem


class Body(BaseModel):
    number: int


def _client() -> httpx.AsyncClient:
    app = FastAPI()
    app.add_middleware(Tracing)
    add_handlers(app, app.routes)

    @app.post("/echo")
    async def echo(body: Body) -> int:
        return body.number

    @app.get("/broken")
    async def broken() -> int:
        raise RuntimeError("the cookie is secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://rest")


async def test_what_http_refuses_is_a_problem_too() -> None:
    async with _client() as client:
        assert problem(await client.get("/nowhere"))["status"] == 404
        refused = await client.delete("/echo")
        assert problem(refused)["status"] == 405
        assert refused.headers["Allow"] == "POST"


async def test_a_body_that_does_not_fit_is_told_without_being_repeated() -> None:
    async with _client() as client:
        sent = await client.post("/echo", content="{", headers={"Content-Type": "application/json"})
        malformed = problem(sent)
        assert (malformed["status"], malformed["title"]) == (400, "The body is no JSON")
        wrong = await client.post("/echo", json={"number": "secret"})
        assert problem(wrong)["errors"][0]["where"] == "body/number"
        assert "secret" not in wrong.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonish", 415),
        ("", 415),
        ("application/json; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
    ],
)
async def test_a_body_says_that_it_is_json(said: str, status: int) -> None:
    async with _client() as client:
        response = await client.post("/echo", content='{"number": 1}', headers={"Content-Type": said})
        assert response.status_code == status
        if status == 415:
            assert "Content-Type" in problem(response)["detail"]
        nothing = await client.post("/echo", headers={"Content-Type": said})
        assert problem(nothing)["errors"][0]["what"] == "Field required"


async def test_a_defect_is_a_problem_without_a_stack_trace() -> None:
    async with _client() as client:
        response = await client.get("/broken")
        assert (response.status_code, response.headers["Content-Type"]) == (500, "application/problem+json")
        assert "secret" not in response.text

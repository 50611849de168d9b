from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from bridge.authority import ConflictError, NotHolderError
from bridge.errors import (
    AuthorityError,
    BridgeError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    NodeDownError,
    OutcomeUnknownError,
    ProtocolError,
)
from bridge.etf import Atom
from bridge.homeserver.rest.problems import KINDS, add_handlers, as_problem
from bridge.homeserver.rest.tracing import Tracing
from bridge.khepri import NoLeaderError, UnknownOutcomeError
from tests.support.rest import problem


class Body(BaseModel):
    number: int


def _refusal(cls: type[AuthorityError], reason: str) -> AuthorityError:
    return cls(reason, reason=Atom(reason))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_refusal(ConflictError, "conflict"), "conflict"),
        (_refusal(NotHolderError, "no_session"), "no_session"),
        (_refusal(AuthorityError, "something_new"), "refused"),
        (_refusal(AuthorityError, "reserved_name"), "reserved_name"),
        (ConfigurationError("a name has 1 to 255 bytes"), "invalid_request"),
        (OutcomeUnknownError("late"), "outcome_unknown"),
        (UnknownOutcomeError("forgotten", reason=Atom("outcome_unknown")), "outcome_forgotten"),
        (NoLeaderError("no leader", reason=Atom("no_leader")), "unavailable"),
        (DeadlineError("late"), "unavailable"),
        (NodeDownError("a@b"), "unavailable"),
        (HandshakeError("cookie"), "unavailable"),
    ],
)
def test_each_error_is_a_problem_of_its_kind(error: BridgeError, kind: str) -> None:
    assert as_problem(error).kind == kind


def test_what_may_pass_says_when_to_ask_again() -> None:
    assert as_problem(DeadlineError("late")).headers == {"Retry-After": "1"}


def test_a_refusal_tells_what_the_homeserver_said_of_it_and_no_more() -> None:
    props = {"winner": b"Player2", "epoch": 1 << 60, "session": b"secret", "member": Atom("owner")}
    error = ConflictError("conflict", reason=Atom("conflict"), props=props)
    assert as_problem(error).members == {"winner": "Player2", "epoch": str(1 << 60), "member": "owner"}


def test_a_defect_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    shown = as_problem(ProtocolError("the cookie is secret"))
    assert (shown.kind, "secret" in str(shown)) == ("internal", False)
    assert "unexpected error" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_to_do(kind: str) -> None:
    assert KINDS[kind].advice.endswith(".")
    assert 400 <= KINDS[kind].status < 600


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

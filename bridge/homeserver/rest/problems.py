"""Errors as ``application/problem+json`` (RFC 9457), with what to do about each.

A document has ``type`` (``urn:khepri-bridge:problem:<kind>``), ``title``, ``status``, ``detail`` (what is
wrong here), ``advice`` (what to do), ``trace``, and what the homeserver said about it: ``winner``,
``owner``, ….
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    OutcomeUnknownError,
    RemoteError,
    SignatureError,
)
from bridge.etf import Atom
from bridge.homeserver.rest.heads import ENDLESS
from bridge.homeserver.rest.tracing import trace_of
from bridge.khepri import OtherPurposeError
from bridge.khepri.reply import TRANSIENT

_log = logging.getLogger("bridge.homeserver.rest")

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_SECONDS: Final = "1"
"""an election takes a second or two, a token bucket refills in less"""
_JSON: Final = re.compile(r"application/([a-z0-9.-]+\+)?json\s*(;|$)", re.IGNORECASE)
_MAX_COMPLAINTS: Final = 10
"""of one request, about its members"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status code, and what to do about it."""

    status: int
    title: str
    advice: str


KINDS: Final[Mapping[str, Kind]] = {
    # Of HTTP
    "malformed": Kind(400, "The body is no JSON", "Send one JSON object, as the OpenAPI document shows."),
    "invalid_request": Kind(422, "The request is not valid", "Mend what `errors` or `detail` names."),
    "no_resource": Kind(404, "Nothing is here", "Look the path up in /v1/openapi.json."),
    "method_not_allowed": Kind(405, "Not a method of this resource", "Use one that the header Allow names."),
    "too_large": Kind(413, "The request is too large", "Send less."),
    "too_slow": Kind(408, "The body did not come in time", "Send it at once, on a new connection."),
    "media_type": Kind(
        415, "The body is not said to be JSON", "Send it with `Content-Type: application/json`."
    ),
    "http": Kind(400, "The request is not served", "Look the operation up in /v1/openapi.json."),
    "too_many_requests": Kind(429, "Too many requests", "Wait as long as Retry-After says, in seconds."),
    "too_many_feeds": Kind(503, "Too many live feeds", "Ask again: another service process may have room."),
    # Of who asks
    "unauthenticated": Kind(
        401, "No valid access token", "Get one with POST /v1/tokens, and send it as `Authorization: Bearer`."
    ),
    "role": Kind(403, "Not for this role", "Ask with a token of a role that `roles` names."),
    "other_name": Kind(
        403, "In somebody else's name", "Ask in your own name; only an operator may name others."
    ),
    "not_owner": Kind(403, "Only its owner or its master may", "Ask `owner` or `master` to do it."),
    "not_master": Kind(403, "Only its master may", "Ask `master` to do it."),
    "not_holder": Kind(403, "This session does not hold it", "Read the entity: it says who simulates it."),
    "denied": Kind(
        403, "The rule of the entity forbids it", "Request it from the master, under the rule `ask`."
    ),
    "server_key_mismatch": Kind(
        403, "Another key holds this name", "Use the key that the name was first opened with."
    ),
    "bad_proof": Kind(
        401, "The proof does not hold", "Sign a new one with your certificate's key, for this instance, now."
    ),
    "bad_enrolment": Kind(
        403,
        "The enrolment does not hold",
        "Sign a new one with the key it names, for this instance, now.",
    ),
    "replayed": Kind(401, "The proof was shown before", "Sign a new one for each request."),
    "revoked": Kind(403, "The key or the certificate was revoked", "Make a new key, and ask the operator."),
    "not_enrolled": Kind(403, "The key does not speak for the name", "Use the name's newest key."),
    "registration_closed": Kind(403, "Nobody registers by himself here", "Ask an operator to enrol you."),
    # Of what is there
    "no_entity": Kind(404, "No such entity", "Check the name; a server creates entities in its session."),
    "no_server": Kind(
        404, "No such server", "Check the name; a server is known once it has opened a session."
    ),
    "no_session": Kind(
        404, "No such session", "Open a new one: this one was never opened by you, or has ended."
    ),
    "no_scene": Kind(404, "No such scene", "Check the name, or create it."),
    "no_player": Kind(
        409, "The player is not here", "Enter at a server first: PUT /v1/players/{player}/presence."
    ),
    "no_ask": Kind(404, "Nothing is asked", "It was answered, withdrawn, or has expired: read the entity."),
    "reserved_name": Kind(
        409, "A name of another instance's player", "Use a name that does not end in @ and a pinned instance."
    ),
    "not_here": Kind(409, "The player is at another server", "Leave `server` instead."),
    "server_away": Kind(
        409, "That server has no session", "Choose another server, or wait until it is back."
    ),
    "conflict": Kind(
        409, "Somebody else was faster", "Read the entity, and ask again for what is there now."
    ),
    "pending": Kind(409, "Asked already", "Wait for the answer, until `expires`, or withdraw the request."),
    "master_away": Kind(409, "The master is at no server", "Ask again when the master is back."),
    "too_many_asks": Kind(
        409, "The master has too many questions", "Wait until some are answered or withdrawn."
    ),
    "already_owner": Kind(409, "The player has it already", "Nothing need be done."),
    "already_held": Kind(409, "This session holds it already", "Nothing need be done."),
    "entity_exists": Kind(409, "An entity of this name exists", "Choose another name."),
    "being_deleted": Kind(
        409, "The last entity of this name is being deleted", "Ask again in a moment, or choose another name."
    ),
    "quota": Kind(
        409,
        "There are as many entities as there may be",
        "Delete some; `limit` says of whom, `maximum` how many.",
    ),
    "not_home": Kind(409, "The entity has its home elsewhere", "Pass it back to `instance` first."),
    "scene_changed": Kind(412, "The scene was changed", "Read it again, and send its ETag in If-Match."),
    "name_in_use": Kind(409, "This server has an open session", "Close it, or wait until its lease is over."),
    "restoring": Kind(503, "A backup is being restored", "Try again when that has ended."),
    "key_reused": Kind(
        409, "This Idempotency-Key is another request's", "Repeat that one as it was, or use a new key."
    ),
    "outcome_forgotten": Kind(
        409, "This Idempotency-Key is too old", "Read what became of it; use a new key."
    ),
    "bad_release": Kind(422, "No release of this entity", "Send the holder's signed release as it came."),
    "invalid_key": Kind(
        403, "Not the key of the token", "Send the public P-256 key (JWK) that your token was got with."
    ),
    "name_taken": Kind(409, "Another key holds this name", "Choose another name, or show the name's key."),
    "key_taken": Kind(409, "Another name has this key", "Make a new key."),
    # Of other instances
    "away": Kind(409, "The entity is at another instance", "Ask there; `instance` says where it went."),
    "unpinned": Kind(403, "Not of an instance that is trusted here", "Have its operator pin your key."),
    "bad_seal": Kind(403, "The seal does not hold", "Seal the document anew, for this instance."),
    "elsewhere": Kind(409, "Not decided yet", "Ask again in a second: word from elsewhere is on its way."),
    "settled": Kind(409, "The transfer is over", "Nothing need be done."),
    "too_many_answers": Kind(
        429,
        "Too many answers are kept for this instance",
        "Say what you have closed (`settle`), and ask again.",
    ),
    "no_federation": Kind(404, "No federation here", "Ask a process that has the instance's signer."),
    "no_peer": Kind(404, "No such instance is pinned here", "Pin it: `khepri-bridge federation peer add`."),
    # Of the cluster
    "unavailable": Kind(503, "The cluster does not answer", "Ask again in a second: nothing was changed."),
    "outcome_unknown": Kind(
        503,
        "It may have been done, or not",
        "Repeat it with the same Idempotency-Key, or read what is there now.",
    ),
    "no_signer": Kind(503, "Nothing is signed here", "Ask another process of the service."),
    "not_signed": Kind(503, "The signer refuses", "Ask again in a moment; see `detail`."),
    "not_acknowledged": Kind(
        503,
        "The lessor has not answered",
        "Send the next renewal; act no longer than the lease you have.",
    ),
    "refused": Kind(422, "The homeserver refused", "See `detail`."),
    "internal": Kind(500, "A defect of the service", "Tell its operator the `trace`."),
}

_SAID: Final = (
    "winner",
    "owner",
    "master",
    "server",
    "epoch",
    "expires",
    "instance",
    "limit",
    "maximum",
    "member",
)
"""props of refusals that callers get to see"""
_OTHER_NAMES: Final = {"outcome_unknown": "outcome_forgotten"}
"""the store's word for an id that it has forgotten is ours for an answer that never came"""


class ProblemError(BridgeError):
    """A request that is refused.

    Args:
        kind: of ``KINDS``.
        detail: what is wrong with this request.
        members: more members of the document.
        headers: of the response.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.members = dict(members or {})
        self.headers = dict(headers or {})


class Problem(BaseModel):
    """What is wrong, and what to do (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:khepri-bridge:problem:conflict",
                "title": "Somebody else was faster",
                "status": 409,
                "detail": "conflict: Player2 has it",
                "advice": "Read the entity, and ask again for what is there now.",
                "trace": "0af7651916cd43dd8448eb211c80319c",
                "winner": "Player2",
                "epoch": "281474976710664",
            }
        },
    )

    type: str = Field(description="The kind of problem, a URN.")
    title: str = Field(description="The same for people.")
    status: int = Field(description="The HTTP status code.")
    detail: str = Field(description="What is wrong with this request.")
    advice: str = Field(description="What to do.")
    trace: str = Field(description="Names this request in logs and traces: 32 hexadecimal digits.")


def problem_of(description: str) -> dict[str, Any]:
    """A response with a problem, as the OpenAPI document describes it."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def as_problem(error: BridgeError) -> ProblemError:
    """What a caller is told of an error."""
    match error:
        case ProblemError():
            return error
        case OutcomeUnknownError():
            return _passing("outcome_unknown", "the answer to a write did not come in time")
        case DeadlineError() | ConnectionLostError() | HandshakeError() | ClosedError():
            return _passing("unavailable", "no homeserver answered in time")
        case OtherPurposeError():
            return ProblemError("key_reused", "this Idempotency-Key came with another request before")
        case RemoteError() if isinstance(error, TRANSIENT):
            return _passing("unavailable", "the store has no leader now, or no majority")
        case RemoteError(reason=Atom() as reason):
            name = _OTHER_NAMES.get(str(reason), str(reason))
            return ProblemError(name if name in KINDS else "refused", str(error), members=_said(error.props))
        case SignatureError():
            return _passing("not_signed", str(error))
        case ConfigurationError():
            return ProblemError("invalid_request", str(error))
    _log.error("unexpected error", exc_info=error)
    return ProblemError("internal", "the service met what it does not expect")


def problem_response(request: Request, problem: ProblemError) -> Response:
    """The response for a problem."""
    kind = KINDS[problem.kind]
    status = problem.members.pop("status", kind.status)
    document = {
        "type": f"urn:khepri-bridge:problem:{problem.kind}",
        "title": kind.title,
        "status": status,
        "detail": str(problem),
        "advice": kind.advice,
        "trace": trace_of(request).hex(),
        **problem.members,
    }
    return JSONResponse(document, status_code=status, headers=problem.headers, media_type=MEDIA_TYPE)


def too_many(detail: str) -> ProblemError:
    """A rate limit was met."""
    return ProblemError("too_many_requests", detail, headers={"Retry-After": _RETRY_SECONDS})


def add_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Have every error of the application end as a problem.

    Args:
        app: the application.
        routes: all that it has.
    """

    @app.exception_handler(BridgeError)
    async def _bridge(request: Request, error: Exception) -> Response:
        assert isinstance(error, BridgeError)
        return problem_response(request, as_problem(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(request, _invalid_request(request, error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _OF_STATUS.get(error.status_code, "http")
        headers = dict(error.headers or {})
        detail = _DETAILS.get(error.status_code, error.detail)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(routes, request))
            detail = f"this path takes {headers['Allow']}"
        members = {"status": error.status_code}
        return problem_response(request, ProblemError(kind, detail, members=members, headers=headers))

    @app.exception_handler(Exception)
    async def _defect(request: Request, error: Exception) -> Response:
        # The server logs the stack trace; the caller gets what finds it there.
        del error
        return problem_response(request, ProblemError("internal", "the service met what it does not expect"))


_OF_STATUS: Final = {
    400: "malformed",
    404: "no_resource",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
}
_DETAILS: Final = {400: "the body is no JSON", 404: "no resource has this path"}
"""in place of the bare phrases of HTTP"""


def _methods(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """Of all routes of a path: whoever refuses a method has looked at the first of them alone."""
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    methods = {method for route in matching for method in getattr(route, "methods", None) or ()}
    if "GET" in methods and request.scope["path"] != ENDLESS:
        methods.add("HEAD")
    return sorted(methods)


def _invalid_request(request: Request, error: RequestValidationError) -> ProblemError:
    """What was sent is not sent back: it may be long, and it may be a secret in the wrong place."""
    complaints = error.errors()[:_MAX_COMPLAINTS]
    if any(complaint["type"] == "json_invalid" for complaint in complaints):
        return ProblemError("malformed", "the body is no JSON")
    said = request.headers.get("Content-Type", "")
    if not _JSON.match(said) and any(
        complaint["loc"] == ("body",) and complaint["type"] != "missing" for complaint in complaints
    ):
        return ProblemError("media_type", "the body has no Content-Type, or another one than JSON's")
    told = [
        {
            "where": "/".join(str(part)[:100] for part in complaint["loc"]),
            "what": complaint["msg"].removeprefix("Value error, ")[:200],
        }
        for complaint in complaints
    ]
    return ProblemError("invalid_request", f"{told[0]['where']}: {told[0]['what']}", members={"errors": told})


def _passing(kind: str, detail: str) -> ProblemError:
    return ProblemError(kind, detail, headers={"Retry-After": _RETRY_SECONDS})


def _said(props: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in _SAID:
        match props.get(name):
            case bytes() as text:
                said[name] = text.decode(errors="replace")
            case bool() | None:
                continue
            case Atom() as word:
                said[name] = str(word)
            case int() as number:
                # 64 bits: as everywhere here, an epoch is a text.
                said[name] = str(number) if name == "epoch" else number
    return said

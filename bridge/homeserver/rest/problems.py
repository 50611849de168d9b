"""Errors as ``application/problem+json`` (RFC 9457), with what to do about each.

A document has ``type`` (``urn:khepri-bridge:problem:<kind>``), ``title``, ``status``, ``detail`` (what is
wrong here), ``advice`` (what to do), ``trace``, and what the homeserver said about it: ``winner``,
``owner``, ….
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

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
from bridge.homeserver.rest.kinds import KINDS
from bridge.homeserver.rest.tracing import trace_of
from bridge.khepri import OtherPurposeError
from bridge.khepri.reply import TRANSIENT

_log = logging.getLogger("bridge.homeserver.rest")

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_SECONDS: Final = "1"
"""an election takes a second or two, a token bucket refills in less"""

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

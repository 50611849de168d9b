"""Errors of the application, of its framework and of HTTP, all ended as problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from bridge.errors import BridgeError
from bridge.homeserver.rest.heads import ENDLESS
from bridge.homeserver.rest.problems import ProblemError, as_problem, problem_response

_JSON: Final = re.compile(r"application/([a-z0-9.-]+\+)?json\s*(;|$)", re.IGNORECASE)
_MAX_COMPLAINTS: Final = 10
"""of one request, about its members"""
_OF_STATUS: Final = {
    400: "malformed",
    404: "no_resource",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
}
_DETAILS: Final = {400: "the body is no JSON", 404: "no resource has this path"}
"""in place of the bare phrases of HTTP"""


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

"""A trace id for each request: that of a W3C ``traceparent`` header, or a new one.

It goes into the transfer that the request starts, so that messages between servers can be found by what
a player's HTTP client knows; and into every answer, as ``Khepri-Trace``.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.registry import Step

_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.DOTALL)
_NONE: Final = bytes(16)


class Tracing:
    """Gives every request its trace.

    Args:
        app: what is behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = _trace(scope)
        scope.setdefault("state", {})["trace"] = trace

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Khepri-Trace"] = trace.hex()
            await send(message)

        await self._app(scope, receive, told)


def trace_of(request: Request) -> bytes:
    """16 bytes that name the request."""
    trace: bytes = request.scope["state"]["trace"]
    return trace


def step_of(request: Request) -> Step:
    """The request as the beginning of a transfer."""
    return Step(trace=trace_of(request), hop=0)


def _trace(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"traceparent" and (found := _TRACEPARENT.fullmatch(value)):
            trace = bytes.fromhex(found[1].decode())
            if trace != _NONE:
                return trace
    return secrets.token_bytes(16)

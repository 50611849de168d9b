"""Bodies have a size and a time, requests a rate: of an address before its token is read, of a caller after.

Rates are of one service process and kept nowhere else, so that a limit never costs a write; behind a balancer
over n processes a caller may have n times as much.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.homeserver.rest.problems import ProblemError, problem_response, too_many
from bridge.homeserver.rest.settings import RestSettings
from bridge.udp.bucket import HostBuckets, TokenBucket

_MAX_CALLERS: Final = 10_000
_FOR_ALL: Final = 0.5
"""of the keyed writes"""
_SHARE: Final = 0.1
"""of these, for one caller"""
_Buckets = OrderedDict[str, TokenBucket]
_UNKNOWN_ADDRESS: Final = "::"
"""of all who are at no numeric address: behind a Unix socket, or a proxy that does not tell"""


class BodyLimit:
    """Refuses bodies that are too large, before they are read where their length is told, or too slow.

    Args:
        app: what is behind.
        settings: the size, and the time.
    """

    def __init__(self, app: ASGIApp, settings: RestSettings) -> None:
        self._app = app
        self._maximum = settings.max_body_bytes
        self._seconds = settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if len(length) > 19 or not length.isdecimal() or int(length) > self._maximum:
            problem = ProblemError("too_large", self._too_large)
            await problem_response(Request(scope), problem)(scope, receive, send)
            return
        size, is_whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        # Errors are of this class, since whoever parses bodies takes others for a body that is malformed.
        async def counted() -> Message:
            nonlocal size, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"a body comes within {self._seconds:g} seconds"
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._maximum:
                raise HTTPException(413, self._too_large)
            return message

        await self._app(scope, counted, send)

    @property
    def _too_large(self) -> str:
        return f"a body has at most {self._maximum} bytes"


class AddressLimit:
    """Refuses requests of an address that makes too many.

    Args:
        app: what is behind.
        settings: the rate.
    """

    def __init__(self, app: ASGIApp, settings: RestSettings) -> None:
        self._app = app
        self._buckets = HostBuckets(rate=settings.address_rate, burst=settings.address_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not self._take(scope):
            response = problem_response(Request(scope), too_many("too many requests from this address"))
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _take(self, scope: Scope) -> bool:
        return self._buckets.take(host_of(scope), time.monotonic())


def host_of(scope: Scope) -> str:
    """The numeric address of whoever asks, or one that stands for all who are at none."""
    host: str = (scope.get("client") or (_UNKNOWN_ADDRESS, 0))[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _UNKNOWN_ADDRESS
    return host


class CallerLimit:
    """A token bucket for each of the last 10,000 callers, and one for keyed writes of all of them.

    Of that one, who asks much gets half; the rest is for all, a tenth at most for each, so that one caller
    does not have the keyed writes of a process to itself.
    """

    def __init__(self, settings: RestSettings) -> None:
        self._settings = settings
        self._callers: _Buckets = OrderedDict()
        self._keyed = TokenBucket(rate=settings.keyed_rate, burst=settings.keyed_burst)
        self._keyed_callers: _Buckets = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request.

        Raises:
            ProblemError: it is one too many.
        """
        bucket = _bucket_of(caller, self._callers, self._settings.caller_rate, self._settings.caller_burst)
        if not bucket.take(time.monotonic()):
            raise too_many("too many requests of this caller")

    def take_keyed(self, caller: str) -> None:
        """Count one write with an ``Idempotency-Key``.

        Raises:
            ProblemError: it is one too many.
        """
        now = time.monotonic()
        if self._keyed.level(now) < _FOR_ALL:
            rate, burst = self._settings.keyed_rate * _SHARE, max(1, int(self._settings.keyed_burst * _SHARE))
            if not _bucket_of(caller, self._keyed_callers, rate, burst).take(now):
                raise too_many("too many requests with an Idempotency-Key of this caller")
        if not self._keyed.take(now):
            raise too_many("too many requests with an Idempotency-Key")


def _bucket_of(caller: str, buckets: _Buckets, rate: float, burst: int) -> TokenBucket:
    bucket = buckets.pop(caller, None)
    if bucket is None:
        if len(buckets) >= _MAX_CALLERS:
            buckets.popitem(last=False)
        bucket = TokenBucket(rate=rate, burst=burst)
    buckets[caller] = bucket
    return bucket

"""HEAD wherever there is GET: the same answer without its body (RFC 9110 section 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENDLESS = "/v1/feed"
"""the path of the feed, whose answer has no end: it takes GET alone"""


class Heads:
    """Serves a HEAD as a GET, of which it sends no body.

    Args:
        app: what is behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] == ENDLESS:
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # The server looks at its own scope, and must go on to see a HEAD there.
        await self._app({**scope, "method": "GET"}, receive, without_body)

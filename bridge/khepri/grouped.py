"""Requests that are made at once go in one message.

A client with many tasks makes many calls in one turn of the event loop. Each of them alone costs a message, a
process at the homeserver and, of a transaction, an entry of the log; together they cost one of each. Whoever
calls alone waits for nobody: a request is held back, to the end of the turn, only while another is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from bridge.errors import BridgeError
from bridge.khepri.reply import unwrap

MOST: Final = 64
"""requests in one message: what one of them waits for the others is bounded"""
_FIRST_PAUSE: Final = 64
"""requests that go by themselves after a group was refused; twice as many after each further refusal"""
_LONGEST_PAUSE: Final = 8_192

Item = TypeVar("Item")


class Grouped(Generic[Item]):
    """Requests of one kind.

    Args:
        one: makes a request by itself, and gives its value. It is told since when the request waits, in the
            loop's time, where it was to go in a group first.
        many: makes several in one message; gives a reply for each, an exception in place of one that is to be
            raised, ``None`` in place of one that is to be made by itself; or ``None`` when each of them is.
    """

    def __init__(
        self,
        one: Callable[[Item, float | None], Awaitable[Any]],
        many: Callable[[list[Item]], Awaitable[list[Any] | None]],
    ) -> None:
        self._one = one
        self._many = many
        self._under_way = 0
        self._waiting: list[tuple[Item, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause = 0
        self._next_pause = _FIRST_PAUSE

    async def run(self, item: Item) -> Any:
        """The value of a request; raises what ``one`` raises, or the ``KhepriError`` of its reply."""
        if self._pause:
            self._pause -= 1
            return await self._one(item, None)
        self._under_way += 1
        try:
            if self._under_way > 1:
                loop = self._loop
                if loop is None:
                    loop = self._loop = asyncio.get_running_loop()
                future: asyncio.Future[Any] = loop.create_future()
                self._waiting.append((item, future))
                if len(self._waiting) == 1:
                    loop.call_soon(self._flush)
                reply = await future
                return await self._one(item, reply) if type(reply) is float else unwrap(reply)
            return await self._one(item, None)
        finally:
            self._under_way -= 1

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        assert self._loop is not None
        now = self._loop.time()
        for start in range(0, len(waiting), MOST):
            group = [pair for pair in waiting[start : start + MOST] if not pair[1].done()]
            if len(group) == 1:
                group[0][1].set_result(now)
            elif group:
                task = self._loop.create_task(self._send(group, now))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _send(self, group: list[tuple[Item, asyncio.Future[Any]]], began: float) -> None:
        replies: list[Any] | None = None
        try:
            replies = await self._many([item for item, _ in group])
        except BridgeError:
            # What went wrong is found again, and told, by each request itself.
            replies = None
        finally:
            if replies is None or len(replies) != len(group):
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
                replies = [None] * len(group)
            else:
                self._next_pause = _FIRST_PAUSE
            for (_, future), reply in zip(group, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, BaseException):
                    future.set_exception(reply)
                else:
                    future.set_result(began if reply is None else reply)

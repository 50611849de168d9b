"""The client and the feed over something that is no Erlang node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bridge.errors import ClosedError, OutcomeUnknownError
from bridge.etf import Atom, Pid, Reference
from bridge.khepri import Caller, Inbox, Khepri, KhepriConfig, Snapshot, StoreTimeoutError, Updated

OK, ERROR = Atom("ok"), Atom("error")


class ListInbox:
    """An inbox that is a queue."""

    def __init__(self) -> None:
        self.pid = Pid(Atom("here"), 1, 0, 0)
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, message: Any) -> None:
        self._queue.put_nowait(message)

    async def receive(self, *, timeout: float | None = None) -> Any:
        message = await self._queue.get()
        if isinstance(message, ClosedError):
            raise message
        return message

    async def close(self) -> None:
        self._queue.put_nowait(ClosedError("closed"))


class ScriptedCaller:
    """Answers each call from a list, and notes what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.name = "here"
        self.current: str | None = "member"
        self.asked: list[tuple[str, str, Sequence[Any]]] = []
        self.inbox = ListInbox()
        self.closed = False
        self._answers = list(answers)

    async def call(
        self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
    ) -> Any:
        self.asked.append((module, function, args))
        return self._answers.pop(0)

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        self.asked.append((module, function, args))

    def mailbox(self) -> Inbox:
        return self.inbox

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        pass

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        pass

    def suspect(self, member: str) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


def timed_out() -> Any:
    return (ERROR, (Atom("timeout"), {Atom("message"): b"no answer"}))


async def test_a_client_asks_whatever_calls_for_it_and_leaves_it_open() -> None:
    caller = ScriptedCaller((OK, {Atom("data"): 3}))
    through: Caller = caller
    async with Khepri(through, store="stock") as store:
        assert await store.get("/:wood") == 3
    (_, function, arguments) = caller.asked[0]
    assert (function, list(arguments[:2])) == ("get", [Atom("stock"), b"/:wood"])
    assert not caller.closed


async def test_a_plain_write_that_timed_out_is_unknown_and_a_read_is_not() -> None:
    store = Khepri(ScriptedCaller(timed_out(), timed_out()), config=KhepriConfig(timeout=0.01))
    with pytest.raises(OutcomeUnknownError):
        await store.put("/:wood", 1)
    with pytest.raises(StoreTimeoutError):
        await store.get("/:wood")


async def test_a_feed_listens_at_the_callers_inbox() -> None:
    reference = Reference(Atom("member"), 1, (1, 2, 3))
    answer = {
        Atom("subscription"): reference,
        Atom("cursor"): (b"run", 0),
        Atom("mode"): Atom("snapshot"),
        Atom("nodes"): [],
    }
    caller = ScriptedCaller((OK, answer))
    async with Khepri(caller).watch("/:wood") as feed:
        changes = aiter(feed)
        assert await anext(changes) == Snapshot({}, "member")
        caller.inbox.put((Atom("kb_feed"), reference, [(1, Atom("created"), [Atom("wood")], 7)]))
        assert await anext(changes) == Updated((Atom("wood"),), 7)

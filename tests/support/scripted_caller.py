"""A caller that answers from a list, for tests of the client without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import ClosedError
from bridge.etf import Atom, Pid
from bridge.khepri import Inbox


class ListInbox:
    """An inbox that is a queue."""

    def __init__(self) -> None:
        self.pid = Pid(Atom("here"), 1, 0, 0)
        self.closed = False
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, message: Any) -> None:
        self._queue.put_nowait(message)

    async def receive(self, *, timeout: float | None = None) -> Any:
        message = await self._queue.get()
        if isinstance(message, ClosedError):
            raise message
        return message

    async def close(self) -> None:
        self.closed = True
        self._queue.put_nowait(ClosedError("closed"))


@dataclass(frozen=True)
class Asked:
    """One call."""

    module: str
    function: str
    args: Sequence[Any]
    timeout: float
    idempotent: bool


class ScriptedCaller:
    """Answers each call from a list, an exception by raising it, and notes what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.name = "here"
        self.current: str | None = "member"
        self.asked: list[Asked] = []
        self.cast_to: list[tuple[str, str, str, Sequence[Any]]] = []
        self.suspected: list[str] = []
        self.inbox = ListInbox()
        self.closed = False
        self._answers = list(answers)

    async def call(
        self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
    ) -> Any:
        self.asked.append(Asked(module, function, list(args), timeout, idempotent))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        self.cast_to.append((member, module, function, args))

    def mailbox(self) -> Inbox:
        return self.inbox

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        pass

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        pass

    def suspect(self, member: str) -> None:
        self.suspected.append(member)

    async def close(self) -> None:
        self.closed = True


def ok(value: Any) -> Any:
    """An answer of a homeserver."""
    return (Atom("ok"), value)


def refusal(reason: str, **props: Any) -> Any:
    """A refusal of a homeserver."""
    return (Atom("error"), (Atom(reason), {Atom(name): value for name, value in props.items()}))

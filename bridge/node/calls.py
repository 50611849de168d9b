"""Calls that wait for their answers.

Source: ``rpc`` of OTP's kernel application, which answers ``{'$gen_call', {Pid, Reference}, Request}`` to its
registered name ``rex`` by ``{Reference, Result}``. That name has been there in every release, and needs
neither a spawned process nor an alias of the caller as ``erpc`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from bridge.errors import (
    ClosedError,
    DeadlineError,
    InvalidStateError,
    LimitExceededError,
    NodeDownError,
    RemoteError,
)
from bridge.etf import Atom, Pid, Reference, encode_bare
from bridge.node.transport import DistTransport

REX: Final = Atom("rex")
_USER: Final = Atom("user")
_CALL: Final = Atom("call")
_CAST: Final = Atom("cast")
_GEN_CALL: Final = Atom("$gen_call")
_GEN_CAST: Final = Atom("$gen_cast")
_BADRPC: Final = Atom("badrpc")
_NODEDOWN: Final = Atom("nodedown")


# Atoms that nobody holds are collected, and the names in a call would be made anew for each one.
_atom = lru_cache(maxsize=1_024)(Atom)


class Calls:
    """Who waits for which reference.

    Args:
        caller: the process that the answers go to.
        reference: gives a reference that was never used before.
        maximum: calls that may wait at once.

    Attributes:
        made: calls sent so far.
        late: answers that came after their call had ended.
    """

    def __init__(self, caller: Pid, reference: Callable[[], Reference], maximum: int) -> None:
        self._caller = caller
        self._reference = reference
        self._maximum = maximum
        self._control = encode_bare((6, caller, Atom(""), REX))
        self._loop = asyncio.get_running_loop()  # kept: in Python 3.11 each asking costs a system call
        self._pending: dict[tuple[int, ...], tuple[asyncio.Future[Any], str]] = {}
        self._closed = False
        self.made = 0
        self.late = 0

    def __len__(self) -> int:
        return len(self._pending)

    async def call(
        self,
        peer: DistTransport,
        node: str,
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        seconds: float,
        deadline: float | None = None,
    ) -> Any:
        """Ask a node's ``rex`` and wait for the answer.

        Args:
            peer: the connection to ``node``.
            node: its full name.
            module: name of the module.
            function: name of the function.
            args: terms.
            seconds: what the caller allowed.
            deadline: time of the event loop at which the wait ends; ``None``: after ``seconds`` from now.

        Raises:
            RemoteError: the function raised.
            NodeDownError: the connection was lost before the answer.
            DeadlineError: no answer in time, or the peer took no more data in time.
            LimitExceededError: too many calls wait already.
            ClosedError: the node was closed.
        """
        if self._closed:
            raise ClosedError("the node was closed")
        if deadline is None:
            deadline = self._loop.time() + seconds
        reference = self._reference()
        request = (_CALL, _atom(module), _atom(function), list(args), _USER)
        payload = encode_bare((_GEN_CALL, (self._caller, reference), request))
        if not peer.takes(len(payload)):
            await peer.drain(deadline, len(payload))
        if len(self._pending) >= self._maximum:
            raise LimitExceededError("max_pending_calls", self._maximum, "calls")
        future: asyncio.Future[Any] = self._loop.create_future()
        # Who calls alone gains by an early write; of many at once the writes are joined.
        at_once = not self._pending
        self._pending[reference.ids] = (future, node)
        timer = self._loop.call_at(deadline, _expire, future, node, module, function, seconds)
        try:
            peer.send_encoded(self._control, payload, at_once=at_once)
            self.made += 1
            result = await future
        except InvalidStateError:
            if self._closed:
                raise ClosedError("the node was closed") from None
            raise NodeDownError(node, "the connection ended before the call was sent") from None
        finally:
            timer.cancel()
            del self._pending[reference.ids]
        if type(result) is tuple and len(result) == 2 and result[0] is _BADRPC:
            reason = result[1]
            if reason is _NODEDOWN:
                raise NodeDownError(node, "the node itself reports nodedown")
            raise RemoteError(
                f"{node} {module}:{function}/{len(args)} failed: {shorten(reason)}", reason=reason
            )
        return result

    def answer(self, message: Any) -> None:
        """Take a message to the calling process."""
        if type(message) is tuple and len(message) == 2 and type(message[0]) is Reference:
            waiting = self._pending.get(message[0].ids)
            if waiting is not None:
                if not waiting[0].done():
                    waiting[0].set_result(message[1])
                return
        self.late += 1

    def node_down(self, node: str) -> None:
        """The connection to a node ended: what waits for it fails."""
        for future, where in list(self._pending.values()):
            if where == node and not future.done():
                future.set_exception(NodeDownError(node, "the connection was lost before the answer came"))

    def close(self) -> None:
        """The node was closed: everything that waits fails."""
        self._closed = True
        for future, _ in list(self._pending.values()):
            if not future.done():
                future.set_exception(ClosedError("the node was closed"))


def cast_message(module: str, function: str, args: Sequence[Any]) -> tuple[Any, ...]:
    """What ``rex`` runs without answering."""
    return (_GEN_CAST, (_CAST, Atom(module), Atom(function), list(args), _USER))


def shorten(term: Any) -> str:
    """A term for a message that people read: at most 500 characters."""
    try:
        text = repr(term)
    except RecursionError:
        return "a deeply nested term"
    return text if len(text) <= 500 else f"{text[:500]}…"


def _expire(future: asyncio.Future[Any], node: str, module: str, function: str, seconds: float) -> None:
    if not future.done():
        future.set_exception(
            DeadlineError(f"no answer of {node} to {module}:{function} within {seconds:g} s")
        )

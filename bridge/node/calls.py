"""Calls that wait for their answers.

Source: ``rpc`` of OTP's kernel application, which answers ``{'$gen_call', {Pid, Reference}, Request}`` to its
registered name ``rex`` by ``{Reference, Result}``. That name has been there in every release, and needs
neither a spawned process nor an alias of the caller as ``erpc`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from bridge.errors import ClosedError, DeadlineError, InvalidStateError, LimitExceededError, NodeDownError
from bridge.etf import Atom, Pid, Reference, encode_bare
from bridge.node.outcomes import BADRPC, rpc_error
from bridge.node.peer import Peer

REX: Final = Atom("rex")
_USER: Final = Atom("user")
_CALL: Final = Atom("call")
_CAST: Final = Atom("cast")
_GEN_CALL: Final = Atom("$gen_call")
_GEN_CAST: Final = Atom("$gen_cast")


# Atoms that nobody holds are collected, and the names in a call would be made anew for each one.
_atom = lru_cache(maxsize=1_024)(Atom)


@dataclass(frozen=True, slots=True)
class Down:
    """What was asked has ended, or was never started, instead of answering."""

    reason: Any


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
        peer: Peer,
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
            RemoteError: the function did not return; see ``rpc_error`` for the class.
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
        timer = self._loop.call_at(deadline, _expire_call, future, node, module, function, seconds)
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
        if type(result) is tuple and len(result) == 2 and result[0] is BADRPC:
            raise rpc_error(node, f"{module}:{function}/{len(args)}", result[1])
        return result

    async def ask(
        self,
        peer: Peer,
        node: str,
        what: str,
        send: Callable[[Reference], None],
        *,
        seconds: float,
        deadline: float | None = None,
    ) -> Any:
        """Send something that is answered by a reference or by the end of a process, and wait for that.

        Args:
            peer: the connection to ``node``.
            node: its full name.
            what: is asked, for the text of an error.
            send: sends it with the reference that the answer will have.
            seconds: what the caller allowed.
            deadline: as for ``call``.

        Returns:
            The answer, or ``Down``.

        Raises:
            NodeDownError, DeadlineError, LimitExceededError, ClosedError: as for ``call``.
        """
        if self._closed:
            raise ClosedError("the node was closed")
        if deadline is None:
            deadline = self._loop.time() + seconds
        if not peer.writable:
            await peer.drain(deadline)
        if len(self._pending) >= self._maximum:
            raise LimitExceededError("max_pending_calls", self._maximum, "calls")
        reference = self._reference()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[reference.ids] = (future, node)
        timer = self._loop.call_at(deadline, _expire, future, node, what, seconds)
        try:
            send(reference)
            self.made += 1
            return await future
        except InvalidStateError:
            if self._closed:
                raise ClosedError("the node was closed") from None
            raise NodeDownError(node, "the connection ended before the call was sent") from None
        finally:
            timer.cancel()
            del self._pending[reference.ids]

    def waits(self, reference: Reference) -> bool:
        """Whether somebody waits for this reference."""
        return reference.ids in self._pending

    def settle(self, reference: Reference, outcome: Any) -> bool:
        """End the wait for a reference with what comes in place of an answer; whether somebody waited."""
        waiting = self._pending.get(reference.ids)
        if waiting is None:
            return False
        if not waiting[0].done():
            waiting[0].set_result(outcome)
        return True

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


def _expire(future: asyncio.Future[Any], node: str, what: str, seconds: float) -> None:
    if not future.done():
        future.set_exception(DeadlineError(f"no answer of {node} to {what} within {seconds:g} s"))


def _expire_call(future: asyncio.Future[Any], node: str, module: str, function: str, seconds: float) -> None:
    # The text is made here, since almost every call is answered.
    _expire(future, node, f"{module}:{function}", seconds)

"""Calls that wait for their answers.

Source: ``rpc`` of OTP's kernel application, which answers ``{'$gen_call', {Pid, Reference}, Request}`` to its
registered name ``rex`` by ``{Reference, Result}``. That name has been there in every release, and needs
neither a spawned process nor an alias of the caller as ``erpc`` does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    InvalidStateError,
    LimitExceededError,
    NodeDownError,
)
from bridge.etf import Atom, Pid, Reference, encode_bare
from bridge.node.outcomes import BADRPC, rpc_error
from bridge.node.peer import Peer

REX: Final = Atom("rex")
_USER: Final = Atom("user")
_CALL: Final = Atom("call")
_CAST: Final = Atom("cast")
_GEN_CALL: Final = Atom("$gen_call")
_GEN_CAST: Final = Atom("$gen_cast")


_KEPT_NAMES: Final = 1_024
"""functions whose encoded names are kept"""
_NO_ARGUMENTS: Final = encode_bare([])
_ROUNDING: Final = 0.001
_PAUSE: Final = 2e-6
"""seconds for each call that waits: what a wait may end late; a look at one costs a tenth of that"""
_unpack: Final = struct.Struct(">III").unpack

_Wait = tuple[asyncio.Future[Any], str, float, float, tuple[str, ...]]
"""who waits, for which node, until when, the seconds allowed, what was asked: for an error's text"""


@dataclass(frozen=True, slots=True)
class Down:
    """What was asked has ended, or was never started, instead of answering."""

    reason: Any


class Calls:
    """Who waits for which reference.

    A call is written from parts that are encoded once, a wait is a row of a table whose key is the words of
    its reference, and one timer serves all waits: 64 calls at once cost half of what they did as terms,
    references and timers of their own.

    Args:
        caller: the process that the answers go to.
        words: gives the three words of a reference that was never used before, as 12 bytes.
        maximum: calls that may wait at once.

    Attributes:
        made: calls sent so far.
        late: answers that came after their call had ended.
    """

    def __init__(self, caller: Pid, words: Callable[[], bytes], maximum: int) -> None:
        self._caller = caller
        self._words = words
        self._maximum = maximum
        self._control = encode_bare((6, caller, Atom(""), REX))
        reference = encode_bare(Reference(caller.node, caller.creation, (0, 0, 0)))[:-12]
        # {'$gen_call', {Pid, Reference}, {call, Module, Function, Args, user}}, up to the reference's words.
        self._head = b"h\x03" + encode_bare(_GEN_CALL) + b"h\x02" + encode_bare(caller) + reference
        self._functions: dict[tuple[str, str], bytes] = {}
        self._loop = asyncio.get_running_loop()  # kept: in Python 3.11 each asking costs a system call
        self._pending: dict[bytes, _Wait] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf
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
        encoded = encode_bare(args if type(args) is list else argument_list(args)) if args else _NO_ARGUMENTS
        if not peer.takes(len(encoded)):
            await peer.drain(deadline, len(encoded))
            if self._closed:
                raise ClosedError("the node was closed")
        pending = self._pending
        if len(pending) >= self._maximum:
            raise LimitExceededError("max_pending_calls", self._maximum, "calls")
        names = self._functions.get((module, function)) or self._named(module, function)
        words = self._words()
        payload = b"%b%b%b%b%b" % (self._head, words, names, encoded, _USER.wire)
        future: asyncio.Future[Any] = self._loop.create_future()
        # Who calls alone gains by an early write; of many at once the writes are joined.
        at_once = not pending
        pending[words] = (future, node, deadline, seconds, (module, function))
        if deadline < self._alarm_at:
            self._arm(deadline)
        try:
            peer.send_encoded(self._control, payload, at_once=at_once)
            self.made += 1
            result = await future
        except InvalidStateError:
            if self._closed:
                raise ClosedError("the node was closed") from None
            raise NodeDownError(node, "the connection ended before the call was sent") from None
        finally:
            del pending[words]
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
            if self._closed:
                raise ClosedError("the node was closed")
        if len(self._pending) >= self._maximum:
            raise LimitExceededError("max_pending_calls", self._maximum, "calls")
        words = self._words()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[words] = (future, node, deadline, seconds, (what,))
        if deadline < self._alarm_at:
            self._arm(deadline)
        try:
            send(Reference(self._caller.node, self._caller.creation, _unpack(words)))
            self.made += 1
            return await future
        except InvalidStateError:
            if self._closed:
                raise ClosedError("the node was closed") from None
            raise NodeDownError(node, "the connection ended before the call was sent") from None
        finally:
            del self._pending[words]

    def waits(self, reference: Reference) -> bool:
        """Whether somebody waits for this reference."""
        return _key(reference) in self._pending

    def settle(self, reference: Reference, outcome: Any) -> bool:
        """End the wait for a reference with what comes in place of an answer; whether somebody waited."""
        waiting = self._pending.get(_key(reference))
        if waiting is None:
            return False
        if not waiting[0].done():
            waiting[0].set_result(outcome)
        return True

    def answer(self, message: Any) -> None:
        """Take a message to the calling process."""
        if type(message) is tuple and len(message) == 2 and type(message[0]) is Reference:
            self.answers([(_key(message[0]), message[1])])
        else:
            self.late += 1

    def answers(self, answers: list[tuple[bytes, Any]]) -> None:
        """Take messages ``{Reference, Result}`` to the calling process; see ``bridge.dist.Answered``."""
        pending = self._pending
        for words, result in answers:
            waiting = pending.get(words)
            if waiting is None:
                self.late += 1
            elif not waiting[0].done():
                waiting[0].set_result(result)

    def node_down(self, node: str) -> None:
        """The connection to a node ended: what waits for it fails."""
        for future, where, *_ in list(self._pending.values()):
            if where == node and not future.done():
                future.set_exception(NodeDownError(node, "the connection was lost before the answer came"))

    def close(self) -> None:
        """The node was closed: everything that waits fails."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for future, *_ in list(self._pending.values()):
            if not future.done():
                future.set_exception(ClosedError("the node was closed"))

    def _named(self, module: str, function: str) -> bytes:
        if len(self._functions) >= _KEPT_NAMES:
            self._functions.clear()
        names = b"h\x05" + encode_bare(_CALL) + encode_bare(Atom(module)) + encode_bare(Atom(function))
        self._functions[module, function] = names
        return names

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """End the waits whose time has come; the timer is set anew for the first of the others."""
        self._alarm, self._alarm_at = None, inf
        # The loop rounds times to a millisecond and may be that much early.
        now = self._loop.time() + _ROUNDING
        first = inf
        # Each look at all of them is a step that holds up the loop: of many the next is so much later.
        pause = len(self._pending) * _PAUSE
        for future, node, deadline, seconds, what in self._pending.values():
            if deadline > now:
                first = min(first, deadline)
            elif not future.done():
                asked = ":".join(what)
                future.set_exception(DeadlineError(f"no answer of {node} to {asked} within {seconds:g} s"))
        if first < inf:
            self._arm(max(first, now + pause))


def argument_list(args: Sequence[Any]) -> list[Any]:
    """Arguments of a call, as a list.

    Raises:
        ConfigurationError: one argument that stands there alone; a string's letters would be taken for many.
    """
    if isinstance(args, list | tuple):
        return list(args)
    if isinstance(args, str | bytes | bytearray) or not isinstance(args, Sequence):
        raise ConfigurationError(f"the arguments of a call are a list, also a single one: not {args!r:.60}")
    return list(args)


def cast_message(module: str, function: str, args: Sequence[Any]) -> tuple[Any, ...]:
    """What ``rex`` runs without answering."""
    return (_GEN_CAST, (_CAST, Atom(module), Atom(function), argument_list(args), _USER))


def _key(reference: Reference) -> bytes:
    return b"".join(word.to_bytes(4, "big") for word in reference.ids)

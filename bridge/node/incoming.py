"""What other nodes ask of this one: pings, and calls of exposed functions by ``rpc`` and ``erpc``.

Source: OTP's ``net_kernel`` (``net_adm:ping/1`` is a call of it), ``rpc`` (requests to ``rex``) and ``erpc``
(``execute_call/4`` and ``execute_cast/3``, spawned from outside).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bridge.dist import MonitorP, SpawnReply, SpawnRequest
from bridge.errors import BridgeError
from bridge.etf import Atom, Pid, shorten
from bridge.node.functions import Functions
from bridge.node.gen import GEN_CALL, GEN_CAST, Sender, sender
from bridge.node.outcomes import (
    BADRPC,
    EXIT,
    SYSTEM_LIMIT,
    erpc_failure,
    erpc_reply,
    exit_reason,
    rpc_failure,
)
from bridge.node.peer import Peer
from bridge.node.processes import Processes

_Done = Callable[[Any, Exception | None], None]
"""takes what a function gave, or what it raised"""

_log = logging.getLogger("bridge.node")

_CALLS: Final = (Atom("call"), Atom("block_call"))
_CAST: Final = Atom("cast")
_IS_AUTH: Final = Atom("is_auth")
_YES: Final = Atom("yes")
_NORMAL: Final = Atom("normal")
_KILLED: Final = Atom("killed")
_ERPC: Final = Atom("erpc")
_EXECUTE_CALL: Final = Atom("execute_call")
_EXECUTE_CAST: Final = Atom("execute_cast")
_MONITOR: Final = Atom("monitor")
_LINK: Final = Atom("link")


class _Execution:
    """The process of one call; it takes no messages, and any exit signal but ``normal`` ends it."""

    name: str | None = None

    def __init__(self, pid: Pid, end: Callable[[_Execution, Any], None]) -> None:
        self.pid = pid
        self.task: asyncio.Task[None] | None = None
        self._end = end

    def put(self, message: Any) -> None:
        """Nobody would read it."""

    def exit_signal(self, source: Pid, reason: Any, *, kill: bool = False) -> None:
        """End it: the function is cancelled."""
        del source
        if kill or reason is not _NORMAL:
            self.end_by_node(_KILLED if kill else reason)

    def end_by_node(self, reason: Any) -> None:
        """End it, as the node does when it stops."""
        self._end(self, reason)
        if self.task is not None:
            self.task.cancel()


class Incoming:
    """Answers what is sent to ``net_kernel`` and ``rex``, and requests to spawn ``erpc``'s functions.

    Args:
        functions: what may be called.
        processes: of this node.
        maximum: calls that may run at once; one of a plain function is over when it is taken.
        seconds: that one may run.
    """

    def __init__(
        self,
        functions: Functions,
        processes: Processes,
        *,
        maximum: int,
        seconds: float,
    ) -> None:
        self._functions = functions
        self._processes = processes
        self._maximum = maximum
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        processes.service("net_kernel", self._net_kernel)
        processes.service("rex", self._rex)

    def __len__(self) -> int:
        """Calls that run."""
        return len(self._tasks)

    def spawn(self, transport: Peer, message: SpawnRequest, args: Any) -> None:
        """Take a request to spawn a process; all but ``erpc``'s two are answered ``notsup``."""
        options = message.options if type(message.options) is list else []
        match message.mfa, args:
            case (module, function, 4), [tag, *call] if module is _ERPC and function is _EXECUTE_CALL:
                pass
            case (module, function, 3), [*call] if module is _ERPC and function is _EXECUTE_CAST:
                tag = None
            case _:
                self._spawned(transport, message, 0, Atom("notsup"))
                return
        if len(call) != 3:
            self._spawned(transport, message, 0, Atom("badarg"))
            return
        if len(self._tasks) >= self._maximum:
            self._spawned(transport, message, 0, SYSTEM_LIMIT)
            return
        execution = _Execution(self._processes.new_pid(), self._processes.ended)
        self._processes.add(execution)
        linked = _LINK in options
        monitored = any(o is _MONITOR or (type(o) is tuple and o and o[0] is _MONITOR) for o in options)
        self._spawned(transport, message, linked | monitored << 1, execution.pid)
        if linked:
            self._processes.linked_by(transport, message.source, execution.pid)
        if monitored:
            watch = MonitorP(source=message.source, to=execution.pid, reference=message.request)
            self._processes.watched(transport, watch)
        stack = _stack(call)

        def otherwise(error: Exception) -> Any:
            _note(call, error)
            return erpc_failure(tag, error, [])

        def call_done(value: Any, error: Exception | None) -> None:
            reason = erpc_reply(tag, value) if error is None else erpc_failure(tag, error, stack)
            self._processes.ended(execution, reason, otherwise)

        def cast_done(_: Any, error: Exception | None) -> None:
            self._processes.ended(execution, _NORMAL if error is None else exit_reason(error))

        done = cast_done if tag is None else call_done
        execution.task = self._run(call, message.source.node.text, done)

    async def close(self) -> None:
        """Cancel what runs, and wait for it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _reply(self, to: Sender, value: Any) -> None:
        """Answer; where even that is over a limit, by the tag that came, nobody is told."""
        try:
            to.reply(value)
        except BridgeError:
            self._processes.undelivered += 1

    def _sender(self, asker: Any) -> Sender | None:
        return sender(asker, self._processes.caller, self._processes.send_if_connected)

    def _spawned(self, transport: Peer, message: SpawnRequest, flags: int, result: Pid | Atom) -> None:
        reply = SpawnReply(request=message.request, to=message.source, flags=flags, result=result)
        self._processes.send(transport, reply)

    def _run(self, call: list[Any], caller: str, done: _Done) -> asyncio.Task[None] | None:
        """Call a function and hand its outcome on: at once, or from a task where there is to be waited."""
        try:
            result = self._functions.call(*call)
        except Exception as error:
            _note(call, error)
            done(None, error)
            return None
        if not inspect.isawaitable(result) and self._processes.writable(caller):
            done(result, None)
            return None
        task = asyncio.create_task(self._wait(call, result, caller, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if inspect.iscoroutine(result):
            # A task that is cancelled before its first step would leave it unawaited, which Python warns of.
            task.add_done_callback(lambda _: result.close())
        return task

    async def _wait(self, call: list[Any], result: Any, caller: str, done: _Done) -> None:
        try:
            if inspect.isawaitable(result):
                result = await self._bounded(call, result)
        except Exception as error:
            _note(call, error)
            done(None, error)
        else:
            await self._processes.drain(caller, self._seconds)
            done(result, None)

    async def _bounded(self, call: list[Any], result: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._seconds) as scope:
                return await result
        except TimeoutError:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"{call[0]}:{call[1]} ran longer than incoming_call_timeout={self._seconds:g} s"
            ) from None

    def _rex(self, payload: Any) -> None:
        match payload:
            case (kind, asker, (request, *call, _)) if (
                kind is GEN_CALL and request in _CALLS and len(call) == 3
            ):
                to = self._sender(asker)
                if to is None:
                    self._processes.undelivered += 1
                elif len(self._tasks) >= self._maximum:
                    self._reply(to, (BADRPC, (EXIT, SYSTEM_LIMIT)))
                else:
                    self._answer(to, call)
            case (kind, (request, *call, _)) if kind is GEN_CAST and request is _CAST and len(call) == 3:
                if len(self._tasks) < self._maximum:
                    self._run(call, "", lambda *_: None)
            case _:
                self._processes.undelivered += 1

    def _answer(self, to: Sender, call: list[Any]) -> None:
        stack = _stack(call)

        def done(value: Any, error: Exception | None) -> None:
            try:
                to.reply(value if error is None else rpc_failure(error, stack))
            except BridgeError as unsaid:
                # What it gave, threw or exited with is no term.
                _note(call, unsaid)
                self._reply(to, rpc_failure(unsaid, []))

        self._run(call, to.pid.node.text, done)

    def _net_kernel(self, payload: Any) -> None:
        """Answer ``net_adm:ping``, the one question that every node must answer."""
        match payload:
            case (kind, asker, (question, _)) if kind is GEN_CALL and question is _IS_AUTH:
                to = self._sender(asker)
                if to is not None:
                    self._reply(to, _YES)
                    return
        self._processes.undelivered += 1


def _stack(call: list[Any]) -> list[Any]:
    """The one frame that is told: its atoms are the caller's own, so that no call leaves new ones there."""
    module, function, args = call
    return [(module, function, args, [])]


def _note(call: list[Any], error: Exception) -> None:
    # What travels on purpose is no news; a mistake in a function is, and its caller sees no traceback.
    module, function, _ = call
    quiet = isinstance(error, BridgeError)
    _log.log(
        logging.INFO if quiet else logging.WARNING,
        "%s:%s, called by another node, ended by %s",
        shorten(module),
        shorten(function),
        shorten(error),
        exc_info=None if quiet else error,
    )

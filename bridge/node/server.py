"""Python processes that behave as OTP's ``gen_server`` does.

Source: OTP's ``gen_server`` and ``sys`` (``{system, From, {terminate, Reason}}`` is what
``gen_server:stop/3`` sends); Elixir's ``GenServer`` for what happens where a callback is missing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from bridge.dist import Send
from bridge.errors import BridgeError, DeadlineError, InvalidStateError
from bridge.etf import Atom, Pid, shorten
from bridge.node.gen import GEN_CALL, GEN_CAST, Sender, sender
from bridge.node.mailbox import Mailbox
from bridge.node.outcomes import ERROR, error_reason, exit_reason
from bridge.node.processes import Processes

_log = logging.getLogger("bridge.node")

_NORMAL: Final = Atom("normal")
_NOBODY: Final = Atom("undefined")
_SHUTDOWN: Final = Atom("shutdown")
_SYSTEM: Final = Atom("system")
_TERMINATE: Final = Atom("terminate")
_GET_STATE: Final = Atom("get_state")
_OK: Final = Atom("ok")


class _NoReply:
    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = _NoReply()
"""returned by ``handle_call`` of a server that answers later, by ``Sender.reply``"""


@dataclass(frozen=True, slots=True)
class Stop:
    """Returned by a callback: the server ends.

    Attributes:
        reason: told to ``terminate``, to watchers and to linked processes.
        reply: sent before, where a call is answered by it.
    """

    reason: Any = _NORMAL
    reply: Any = NO_REPLY


class GenServer:
    """What a server does; subclass it and keep state in attributes.

    Callbacks are called one at a time and may be coroutines. What one raises ends the server with reason
    ``{{python, ClassName, Message}, []}`` and so reaches whoever waits for a reply, watches it or is linked
    to it; a ``RemoteExitedError`` ends it with the reason that it carries.

    Attributes:
        trap_exit: whether exit signals come to ``handle_info`` instead of ending the server.
    """

    trap_exit: bool = False

    def init(self, process: ServerProcess) -> Any:
        """Called first, with the process that runs this server."""

    def handle_call(self, request: Any, sender: Sender) -> Any:
        """Give the reply to ``gen_server:call``, or ``NO_REPLY``, or ``Stop``."""
        del sender
        return Stop((Atom("bad_call"), request))

    def handle_cast(self, request: Any) -> Any:
        """Take a ``gen_server:cast``; what is returned matters only where it is ``Stop``."""
        return Stop((Atom("bad_cast"), request))

    def handle_info(self, message: Any) -> Any:
        """Take any other message; what is returned matters only where it is ``Stop``."""
        _log.warning("%s got a message that it does not expect: %s", type(self).__name__, shorten(message))

    def terminate(self, reason: Any) -> Any:
        """Called last, with ``call_timeout`` to do it, unless an exit signal or the node's end came first."""

    def get_state(self) -> Any:
        """What ``sys:get_state`` is told: a term."""
        return (Atom("python"), type(self).__qualname__.encode())


class ServerProcess:
    """The process that runs a ``GenServer``; made by ``HiddenNode.serve``, runs while in ``async with``.

    Args:
        server: what it runs.
        mailbox: makes its mailbox, given what to call when that has ended.
        processes: of the node, by which it answers.
        seconds: that ``terminate`` has, and that a caller's node has to take its reply.
    """

    def __init__(
        self,
        server: GenServer,
        mailbox: Callable[[Callable[[Any], None]], Mailbox],
        processes: Processes,
        seconds: float,
    ) -> None:
        self.server = server
        self._make = mailbox
        self._processes = processes
        self._seconds = seconds
        self._mailbox: Mailbox | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self._ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> Pid:
        """Of the process."""
        return self._running().pid

    @property
    def mailbox(self) -> Mailbox:
        """What it reads: the source of its own monitors and links."""
        return self._running()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    async def wait(self, *, timeout: float | None = None) -> Any:  # the contract's name
        """The reason with which it ended.

        Raises:
            DeadlineError: it still runs.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._ended)
        except TimeoutError:
            raise DeadlineError(f"the server did not end within {timeout} s") from None

    async def stop(self, reason: Any = _NORMAL, *, timeout: float = 5.0) -> None:
        """End it after what it has been sent already, and wait for that; harmless where it has ended.

        Raises:
            DeadlineError: it still runs.
            ConfigurationError: ``reason`` is no term.
        """
        pid = self._running().pid
        message = (_SYSTEM, _NOBODY, (_TERMINATE, reason))
        self._processes.send_if_connected(pid.node.text, Send(to=pid), message)
        await self.wait(timeout=timeout)

    async def __aenter__(self) -> Self:
        """Start it; it answers from here on.

        Raises:
            InvalidStateError: it was started before.
            ConfigurationError: its name is taken.
            Exception: what ``init`` raised.
        """
        if self._mailbox is not None:
            raise InvalidStateError("a server process starts once")
        self._mailbox = self._make(self._closed)
        try:
            await _result(self.server.init(self))
        except BaseException as error:
            await self._mailbox.close(exit_reason(error))
            raise
        self._task = asyncio.create_task(self._run(self._mailbox))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with ``shutdown``, if it has not ended."""
        assert self._task is not None
        assert self._mailbox is not None
        try:
            if not self._task.done():
                if not self._ending:
                    self._task.cancel()
                await asyncio.wait([self._task])
            if not self._mailbox.closed:
                await self._end(self._mailbox, _SHUTDOWN)
        finally:  # whoever is cancelled here leaves no process behind
            await self._mailbox.close(_SHUTDOWN)

    def _running(self) -> Mailbox:
        if self._mailbox is None:
            raise InvalidStateError("the server was not started: use it as async with")
        return self._mailbox

    def _sender(self, asker: Any) -> Sender | None:
        return sender(asker, self.pid, self._processes.send_if_connected)

    def _closed(self, reason: Any) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self, mailbox: Mailbox) -> None:
        while True:
            try:
                message = await mailbox.receive()
            except BridgeError:
                return  # an exit signal, an overflow or the node ended it, and has told everybody
            try:
                stop = await self._handle(message)
            except Exception as error:
                _log.exception("the server %s ends by what a callback raised", type(self.server).__name__)
                stop = Stop(exit_reason(error))
            if isinstance(stop, Stop):
                await self._end(mailbox, stop.reason)
                return

    async def _end(self, mailbox: Mailbox, reason: Any) -> None:
        self._ending = True
        try:
            async with asyncio.timeout(self._seconds):
                await _result(self.server.terminate(reason))
        except Exception as error:
            _log.exception("terminate of %s failed", type(self.server).__name__)
            reason = exit_reason(error)
        await mailbox.close(reason)

    async def _handle(self, message: Any) -> Any:
        match message:
            case (kind, asker, request) if kind is GEN_CALL:
                to = self._sender(asker)
                if to is None:
                    return None
                result = await _result(self.server.handle_call(request, to))
                reply = result.reply if isinstance(result, Stop) else result
                if reply is not NO_REPLY:
                    to.reply(reply)
                    # As a process that writes to a busy port waits: callers that do not read hold up the
                    # server, not this node's memory; and the end of the server comes after its last reply.
                    await self._processes.drain(to.pid.node.text, self._seconds)
                return result
            case (kind, request) if kind is GEN_CAST:
                return await _result(self.server.handle_cast(request))
            case (kind, asker, request) if kind is _SYSTEM:
                return self._system(self._sender(asker), request)
            case _:
                return await _result(self.server.handle_info(message))

    def _system(self, to: Sender | None, request: Any) -> Any:
        stop = None
        match request:
            case (what, reason) if what is _TERMINATE:
                reply: Any = _OK
                stop = Stop(reason)
            case what if what is _GET_STATE:
                # As OTP 26 and later answer; a caller of OTP 25 is given the pair.
                reply = (_OK, self.server.get_state())
            case _:
                reply = (ERROR, (Atom("unknown_system_msg"), request))
        if to is not None:
            try:
                to.reply(reply)
            except BridgeError as error:
                # No message ends a server: one that is deep as it comes is too deep with a word about it.
                to.reply((ERROR, error_reason(error)))
        return stop


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value

"""The asyncio side of a port: calls and inboxes over two pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    LimitExceededError,
    OutcomeUnknownError,
    RemoteError,
    RemoteExitedError,
    RemoteRaisedError,
    RemoteThrewError,
)
from bridge.etf import Atom, Pid, shorten
from bridge.node import Mailbox
from bridge.port.connection import Delivered, Hello, PortConfig, PortConnection, PortEvent, Replied

_READ: Final = 3
_WRITE: Final = 4


class PortCaller:
    """Calls functions of the virtual machine at the other end; a ``Caller`` for ``bridge.khepri.Khepri``.

    Nothing starts the other side again: when it ends, waiting calls fail and ``on_change`` is told ``None``.
    Made by ``open_port`` and ``connect_port``; usable as ``async with``.

    Attributes:
        hello: what the other side said of itself.
    """

    def __init__(self, name: str, config: PortConfig) -> None:
        self._name = name
        self._config = config
        self._connection = PortConnection(config)
        self._pipes = _Pipes(self._received, self._ended)
        self._greeting: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._inboxes: dict[Pid, Mailbox] = {}
        self._callbacks: list[Callable[[str | None], None]] = []
        self._over: BridgeError | None = None
        self.hello: Hello

    async def __aenter__(self) -> PortCaller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """Of this side: operation ids begin with it."""
        return self._name

    @property
    def store(self) -> str | None:
        """Id of the store at the other end, if it runs one."""
        return self.hello.store

    @property
    def current(self) -> str | None:
        """Name of the node at the other end, or ``None`` once it has ended."""
        return self.hello.node if self._over is None else None

    async def call(
        self,
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        timeout: float,  # the protocol's name
        idempotent: bool,
    ) -> Any:
        """Call ``module:function`` at the other end.

        Raises:
            RemoteError: the function raised, or may not be called.
            OutcomeUnknownError: not idempotent, sent, and no answer came.
            DeadlineError: idempotent, and no answer came in time; or it was not sent in time.
            LimitExceededError: ``max_pending_calls`` wait already; it was not sent.
            ConnectionLostError: the other side has ended.
            ClosedError: the port was closed by this side.
        """
        self._check()
        if len(self._calls) >= self._config.max_pending_calls:
            raise LimitExceededError("max_pending_calls", self._config.max_pending_calls, "calls")
        number, packet = self._connection.call(module, function, args)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        # An end that comes while the pipe is full is told below, or nobody is left to be told.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        sent = False
        try:
            async with asyncio.timeout(timeout):
                await self._pipes.writable()
                self._check()
                sent = True
                self._pipes.write(packet)
                return await future
        except TimeoutError:
            if not sent:
                raise DeadlineError(f"the other side took nothing for {timeout:g} s") from None
            self._cancel(number)
            text = f"no answer to {module}:{function} within {timeout:g} s"
            if idempotent:
                raise DeadlineError(text) from None
            raise OutcomeUnknownError(f"{text}; it may have run") from None
        except asyncio.CancelledError:
            if sent:
                self._cancel(number)
            raise
        except ConnectionLostError as error:
            if idempotent or not sent:
                raise
            raise OutcomeUnknownError(f"{module}:{function} may have run ({error})") from error
        finally:
            del self._calls[number]

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        """Call without awaiting an answer; ``member`` is the one node there is."""
        del member
        self._check()
        packet = self._connection.cast(module, function, args)
        await self._pipes.writable()
        self._check()
        self._pipes.write(packet)

    def mailbox(self) -> Mailbox:
        """A new inbox; its pid means something to the other side of this port only."""
        self._check()
        pid, packet = self._connection.open()
        self._pipes.write(packet)
        box = Mailbox(pid, None, self._config.mailbox_capacity, self._inbox_closed)
        self._inboxes[pid] = box
        return box

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        """Call ``callback(None)`` when the other side has ended."""
        self._callbacks.append(callback)

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        """Undo ``on_change``; harmless twice."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def suspect(self, member: str) -> None:
        """There is no other member to go to."""
        del member

    async def close(self) -> None:
        """End the port: a virtual machine that this program started ends with it. Harmless twice."""
        self._ended(ClosedError("the port was closed"))
        await self._pipes.close()

    async def greet(self, reading: int, writing: int) -> None:
        """Begin on these descriptors, which are this object's from now on, and wait for the other side.

        Raises:
            HandshakeError: it says nothing in time, or speaks another version.
            ConnectionLostError: it ended.
        """
        await self._pipes.open(reading, writing)
        try:
            async with asyncio.timeout(self._config.hello_timeout):
                self.hello = await self._greeting
        except TimeoutError:
            raise HandshakeError(
                f"the other side of the port said nothing for {self._config.hello_timeout:g} s; see its log"
            ) from None

    def _check(self) -> None:
        if self._over is not None:
            raise self._over.with_traceback(None)  # or each time it is raised it remembers one place more

    def _received(self, data: bytes) -> None:
        try:
            for event in self._connection.receive_data(data):
                self._take(event)
        except BridgeError as error:
            self._ended(error)

    def _take(self, event: PortEvent) -> None:
        match event:
            case Replied():
                future = self._calls.get(event.id)
                if future is not None and not future.done():
                    if event.raised is None:
                        future.set_result(event.value)
                    else:
                        future.set_exception(_raised(*event.raised))
            case Delivered():
                box = self._inboxes.get(event.pid)
                if box is not None:
                    box.put(event.message)
            case Hello() if not self._greeting.done():
                self._greeting.set_result(event)

    def _ended(self, error: BridgeError) -> None:
        if self._over is not None:
            return
        self._over = error
        self._pipes.abort()
        for future in [self._greeting, *self._calls.values()]:
            if not future.done():
                future.set_exception(error)
        # Without a waiter the outcome is of no interest.
        self._greeting.exception() if self._greeting.done() and not self._greeting.cancelled() else None
        for box in list(self._inboxes.values()):
            box.end_by_node(Atom("noconnection"))
        for callback in list(self._callbacks):
            callback(None)

    def _cancel(self, number: int) -> None:
        if self._over is None:
            self._pipes.write(self._connection.cancel(number))

    def _inbox_closed(self, box: Mailbox, reason: Any) -> None:
        del reason
        if self._inboxes.pop(box.pid, None) is not None and self._over is None:
            self._pipes.write(self._connection.close(box.pid))


async def open_port(reading: int, writing: int, *, name: str, config: PortConfig | None = None) -> PortCaller:
    """Talk on two descriptors whose other ends an Erlang virtual machine has.

    Args:
        reading: what the other side writes; closed with the port.
        writing: what it reads; closed with the port.
        name: of this side, stable from start to start.
        config: ceilings.

    Raises:
        HandshakeError, ConnectionLostError: nobody there.
    """
    caller = PortCaller(name, config or PortConfig())
    try:
        await caller.greet(reading, writing)
    except BaseException:
        await caller.close()
        raise
    return caller


async def connect_port(*, name: str = "port", config: PortConfig | None = None) -> PortCaller:
    """In a program that an Erlang or Elixir supervisor started by ``kb_port``: talk to its virtual machine.

    Standard output stays the program's own.

    Raises:
        ConfigurationError: this program was not started so.
        HandshakeError, ConnectionLostError: nobody there.
    """
    for descriptor in (_READ, _WRITE):
        # An event loop may have these numbers where no port took them first; its are no pipes.
        if not _is_pipe(descriptor):
            raise ConfigurationError("this program runs under no port: let a supervisor start it by kb_port")
    return await open_port(_READ, _WRITE, name=name, config=config)


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _raised(kind: Atom, reason: Any) -> RemoteError:
    text = shorten(reason)
    match str(kind):
        case "throw":
            return RemoteThrewError(f"the function threw {text}", reason=reason)
        case "exit":
            return RemoteExitedError(f"the function exited: {text}", reason=reason)
        case _:
            return RemoteRaisedError(f"the function raised {text}", reason=reason)


class _Pipes(asyncio.Protocol):
    """Reads one pipe and writes another."""

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[BridgeError], None]) -> None:
        self._on_data = received
        self._on_end = ended
        self._reader: asyncio.ReadTransport | None = None
        self._writer: _Writer | None = None

    async def open(self, reading: int, writing: int) -> None:
        """Take the descriptors."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as unread:
            source = unread.enter_context(os.fdopen(reading, "rb", buffering=0))
            with contextlib.ExitStack() as unwritten:
                sink = unwritten.enter_context(os.fdopen(writing, "wb", buffering=0))
                _, self._writer = await loop.connect_write_pipe(_Writer, sink)
                unwritten.pop_all()
            self._reader, _ = await loop.connect_read_pipe(lambda: self, source)
            unread.pop_all()

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._writer is not None:
            self._writer.write(data)

    async def writable(self) -> None:
        """Wait until the other side has taken enough of what was written."""
        while self._writer is not None and not self._writer.free.is_set():
            await self._writer.free.wait()  # those who wait wake together, and the first may fill it again

    def abort(self) -> None:
        """Close both; what is queued is lost."""
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None:
            self._writer.abort()

    async def close(self) -> None:
        """Close both and wait for it."""
        self.abort()
        if self._writer is not None:
            await self._writer.closed.wait()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        self._on_data(data)

    def eof_received(self) -> bool:
        """asyncio: the other side has closed its end."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the reading end is closed."""
        del exc
        self._on_end(ConnectionLostError("the other side of the port has ended"))


class _Writer(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do what asyncio's do without being them.
        self._transport = transport  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            # Aborting twice makes asyncio tell the loss twice.
            transport, self._transport = self._transport, None
            transport.abort()

    def pause_writing(self) -> None:
        self.free.clear()

    def resume_writing(self) -> None:
        self.free.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self.free.set()
        self.closed.set()

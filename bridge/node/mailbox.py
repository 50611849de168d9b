"""Where messages for a Python process arrive, and what watches another process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from bridge.errors import BridgeError, ClosedError, DeadlineError, LimitExceededError, RemoteExitedError
from bridge.etf import Atom, Pid, Reference, shorten

_NORMAL: Final = Atom("normal")
_KILLED: Final = Atom("killed")


class Mailbox:
    """The messages sent to one pid (and its name, if it has one), in the order in which they came.

    To Erlang it is a process. While ``trap_exit`` is set, as it is at first, exit signals arrive as
    ``('EXIT', Pid, Reason)``; otherwise each but ``normal`` ends the mailbox. ``exit(Pid, kill)`` ends it in
    any case, with reason ``killed``. A full mailbox loses nothing silently: it ends with reason
    ``message_queue_overflow``. However it ends, what was received stays readable; then the error comes.
    Made by ``HiddenNode.mailbox``; usable as ``async with``.

    Attributes:
        pid: of the process.
        name: registered, or ``None``; changed by ``HiddenNode.register``.
        trap_exit: whether exit signals come as messages.
    """

    def __init__(
        self,
        pid: Pid,
        name: str | None,
        capacity: int,
        on_close: Callable[[Mailbox, Any], None],
        *,
        trap_exit: bool = True,
    ) -> None:
        self.pid = pid
        self.name = name
        self.trap_exit = trap_exit
        self._capacity = capacity
        self._on_close = on_close
        self._messages: deque[Any] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._ended: Exception | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing more will arrive."""
        return self._ended is not None

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Any) -> None:
        """Deliver a message from this process; a closed mailbox drops it, as Erlang does."""
        if self._ended is not None:
            return
        if len(self._messages) >= self._capacity:
            self._end(
                LimitExceededError("mailbox_capacity", self._capacity, "messages"),
                Atom("message_queue_overflow"),
            )
            return
        self._messages.append(message)
        self._wake()

    async def receive(self, *, timeout: float | None = None) -> Any:  # the contract's name
        """The next message.

        Args:
            timeout: seconds to wait; ``None`` waits until a message comes or the mailbox ends.

        Raises:
            DeadlineError: none came in time.
            ClosedError: the mailbox, or its node, was closed.
            LimitExceededError: it overflowed.
            RemoteExitedError: an exit signal ended it.
        """
        if self._messages:
            return self._messages.popleft()
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self._messages:
            if self._ended is not None:
                raise self._ended.with_traceback(None)  # or it remembers one place more each time
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                raise DeadlineError(f"no message within {timeout} s") from None
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._messages:
                    # Woken, but perhaps cancelled before it could take the message: pass the turn on.
                    self._wake()
        return self._messages.popleft()

    def exit_signal(self, source: Pid, reason: Any, *, kill: bool = False) -> None:
        """Take an exit signal, of a link or of ``exit(Pid, Reason)``; ``kill`` cannot be trapped."""
        if not kill and self.trap_exit:
            self.put((Atom("EXIT"), source, reason))
        elif kill or reason is not _NORMAL:
            reason = _KILLED if kill else reason
            self._end(
                RemoteExitedError(f"an exit signal ended the mailbox: {shorten(reason)}", reason=reason),
                reason,
            )

    async def close(self, reason: Any = None) -> None:
        """End the process: whoever watches or is linked to it is told ``reason`` (default ``normal``)."""
        self._end(ClosedError("the mailbox was closed"), _NORMAL if reason is None else reason)

    def end_by_node(self, reason: Any) -> None:
        """The node stops."""
        self._end(ClosedError("the node was closed"), reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _end(self, error: Exception, reason: Any) -> None:
        if self._ended is not None:
            return
        self._ended = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        self._on_close(self, reason)


class Watch:
    """A monitor of, or a link to, a process of another node; ends once.

    Attributes:
        target: the pid or registered name watched.
        node: the node it lives on.
        reference: of the monitor; ``None`` for a link.
    """

    def __init__(
        self, target: Pid | Atom, node: str, source: Pid, reference: Reference | None, box: Mailbox | None
    ) -> None:
        self.target = target
        self.node = node
        self.source = source
        self.reference = reference
        self._box = box
        self._ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> bool:
        """Whether the target has ended, its node is gone, or the watch was given up."""
        return self._ended.done()

    async def wait(self, *, timeout: float | None = None) -> Any:  # the contract's name
        """The reason why the target ended; ``noconnection`` when its node went.

        Raises:
            DeadlineError: it still lives.
            ClosedError: the watch was given up, by ``demonitor`` or ``unlink``.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._ended)
        except TimeoutError:
            raise DeadlineError(f"{self.target} did not end within {timeout} s") from None

    def end(self, reason: Any) -> None:
        """The node reports the end; also told to the mailbox, in Erlang's own form."""
        if self._ended.done():
            return
        self._ended.set_result(reason)
        if self._box is None:
            return
        if self.reference is None:
            assert isinstance(self.target, Pid)
            self._box.exit_signal(self.target, reason)
        else:
            target = self.target if isinstance(self.target, Pid) else (self.target, Atom(self.node))
            self._box.put((Atom("DOWN"), self.reference, Atom("process"), target, reason))

    def give_up(self, error: BridgeError) -> None:
        """Nobody watches any more: those who wait get the error, the mailbox hears nothing."""
        if not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # where nobody waits there is nothing to report

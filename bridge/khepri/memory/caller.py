"""A ``Caller`` whose store is a tree in this process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from bridge.errors import ClosedError
from bridge.etf import Atom, Pid, decode_term, encode_term
from bridge.khepri.memory.store import NODE, MemoryStore
from bridge.node import Mailbox

_OWN: Final = Atom("client@nohost")
_MAILBOX_CAPACITY: Final = 100_000
"""messages; a feed's window is smaller, so only who never reads overflows"""
_runs: Final = itertools.count(1)


class MemoryCaller:
    """A store without Erlang, for tests of applications, notebooks and tools: ``Khepri(MemoryCaller())``.

    Reads, writes, conditions, ``keep_while``, transactions, operation ids, pipelines and the change feed give
    the answers that a homeserver with Khepri 0.16 gives. It is one tree in one process: nothing is written
    anywhere, it is gone with the process, there is no Raft and no second member. Functions that run inside
    the store (``procedures``, ``projections``), export and import, and the authority are refused as
    ``not_allowed``. Regular expressions are Python's, and one that is none there is refused as ``poison``.

    Data are copied on their way in and out, as terms are between processes.

    Args:
        name: of this side; operation ids begin with it.
        store: the store's id.
    """

    def __init__(self, name: str = "memory", *, store: str = "homeserver") -> None:
        self._name = name
        self._store = MemoryStore(Atom(store), self._send, run=next(_runs).to_bytes(8, "big"))
        self._inboxes: dict[Pid, Mailbox] = {}
        self._pids = itertools.count(1)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """Of this side: operation ids begin with it."""
        return self._name

    @property
    def current(self) -> str | None:
        """The only member there is, or ``None`` once this is closed."""
        return None if self._closed else str(NODE)

    async def call(
        self,
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        timeout: float,  # the protocol's name
        idempotent: bool,
    ) -> Any:
        """Call a function of ``docs/protocol.md`` §1; it is answered before anything else runs.

        Raises:
            RemoteRaisedError: there is no such function.
            ConfigurationError: an argument is no term.
            ClosedError: this is closed.
        """
        del timeout, idempotent
        return self._call(module, function, args)

    async def cast(self, member: str, module: str, function: str, args: Sequence[Any]) -> None:
        """Call a function whose answer nobody awaits."""
        del member
        self._call(module, function, args)

    def mailbox(self) -> Mailbox:
        """A new inbox; its owner closes it."""
        self._must_be_open()
        box = Mailbox(Pid(_OWN, next(self._pids), 0, 1), None, _MAILBOX_CAPACITY, self._inbox_closed)
        self._inboxes[box.pid] = box
        return box

    def on_change(self, callback: Callable[[str | None], None]) -> None:
        """There is no other member to change to."""
        del callback

    def off_change(self, callback: Callable[[str | None], None]) -> None:
        """Undo ``on_change``."""
        del callback

    def suspect(self, member: str) -> None:
        """There is no other member to go to."""
        del member

    async def close(self) -> None:
        """End it, and its inboxes; the tree is gone. Harmless twice."""
        self._closed = True
        for box in list(self._inboxes.values()):
            await box.close()

    def _call(self, module: str, function: str, args: Sequence[Any]) -> Any:
        self._must_be_open()
        copied = decode_term(encode_term(list(args)))
        return decode_term(encode_term(self._store.call(module, function, copied)))

    def _must_be_open(self) -> None:
        if self._closed:
            raise ClosedError("the tree in memory was closed")

    def _send(self, pid: Pid, message: Any) -> bool:
        box = self._inboxes.get(pid)
        if box is None:
            return False
        box.put(decode_term(encode_term(message)))
        return True

    def _inbox_closed(self, box: Mailbox, reason: Any) -> None:
        del reason
        self._inboxes.pop(box.pid, None)

"""The change feed: snapshot, then changes in apply order, across the death of members."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Self

from bridge.errors import ClosedError, ConfigurationError, ConnectionLostError, DeadlineError, ProtocolError
from bridge.etf import Atom, Reference
from bridge.khepri.caller import Caller
from bridge.khepri.paths import NativePath, native_path
from bridge.khepri.reply import StoreTimeoutError, is_transient, unwrap

_FIRST_PATIENCE: Final = 2.0
"""seconds for the first try to subscribe: it may have met a member that is about to be given up"""
_LAST_PATIENCE: Final = 32.0
"""seconds that a try gets at the most, after each in vain twice as many: a snapshot of a large tree takes
long, and a homeserver gives up after 30"""
_RETRY_DELAY: Final = 0.05
"""seconds between tries while no member answers"""
_TAKEN_AT_ONCE: Final = 256
"""nodes of a snapshot: about a millisecond"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is watched at one moment; what is absent does not exist.

    Attributes:
        nodes: data by native path; the reader's own, who may take it apart: that a large one ends at once
            would hold the event loop up.
        member: the node that told it.
        gap: whether changes before it may never be told: the history that this watch had seen, or was to go
            on from, is lost. What came between shows only as the difference to this.
    """

    nodes: dict[NativePath, Any]
    member: str
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Updated:
    """A node was created or got other data; ``data`` is ``None`` where it has none."""

    path: NativePath
    data: Any


@dataclass(frozen=True, slots=True)
class Deleted:
    """A node is gone."""

    path: NativePath


Change = Snapshot | Updated | Deleted


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a watch has got, to go on from there; also as text, to be kept.

    It holds for one run of one member, while that still has the changes since (20,000 of them); anywhere else
    a watch begins with a ``Snapshot`` that says ``gap``.

    Attributes:
        run: 8 random bytes of the member's run.
        sequence: number of the last change.
    """

    run: bytes
    sequence: int

    def __str__(self) -> str:
        return f"{self.run.hex()}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor in a text of ``str(cursor)``.

        Raises:
            ConfigurationError: there is none in it.
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"{text!r:.60} is no cursor of a watch")
        return cls(bytes.fromhex(found[1]), int(found[2]))


_CURSOR: Final = re.compile("([0-9a-f]{16})-([0-9]{1,20})")

_RESUMED: Final = Atom("resumed")
_DELETED: Final = Atom("deleted")


class Feed:
    """One subscription; iterate over it once. ``Khepri.watch`` says what it guarantees."""

    def __init__(
        self, caller: Caller, store: Atom, patterns: list[Any], *, since: Cursor | None, window: int
    ) -> None:
        self._caller = caller
        self._store = store
        self._patterns = patterns
        self._window = window
        self._mailbox = caller.mailbox()
        self._member: str | None = None
        self._reference: Reference | None = None
        self._run = b"" if since is None else since.run
        self._received = 0 if since is None else since.sequence
        # Whether there is a history to go on from, whose loss is a gap.
        self._follows = since is not None
        self._position = since
        self._pending: deque[tuple[Change, int]] = deque()
        self._closed = False
        caller.on_change(self._member_changed)

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on from: behind the last change whose handling is done, that is, another was asked for.

        ``None`` before the first one.
        """
        return self._position

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes()

    async def _changes(self) -> AsyncIterator[Change]:
        while not self._closed:
            if self._reference is None:
                await self._subscribe()
            while self._pending:
                change, sequence = self._pending.popleft()
                position = Cursor(self._run, sequence)
                yield change
                self._position = position
            try:
                message = await self._mailbox.receive()
            except ClosedError:
                return
            await self._take(message)

    async def _take(self, message: Any) -> None:
        match message:
            case (Atom() as tag, Reference() as reference, list() as changes) if (
                tag == Atom("kb_feed") and reference == self._reference
            ):
                for change in changes:
                    self._pending.append((_change(change), change[0]))
                self._received = changes[-1][0]
                await self._acknowledge(self._received)
            case (Atom() as tag, Reference() as reference) if (
                tag == Atom("kb_feed_gap") and reference == self._reference
            ):
                self._reference = None
            case (Atom() as tag, Reference() as reference, list()) if (
                tag == Atom("kb_feed") and str(reference.node) == self._member
            ):
                # Of a try to subscribe that was given up and arrived all the same, or on its way still.
                await self._unsubscribe(self._member, reference)
            case _:
                # The wake-up of _member_changed, or what an earlier subscription still had on its way.
                return

    async def _acknowledge(self, sequence: int) -> None:
        if self._member is None:
            return
        try:
            await self._caller.cast(
                self._member, "kb_api", "acknowledge", [self._reference, sequence, self._mailbox.pid]
            )
        except (ConnectionLostError, DeadlineError):
            self._reference = None

    async def _subscribe(self) -> None:
        patience = _FIRST_PATIENCE
        while not self._closed:
            request = {
                Atom("pid"): self._mailbox.pid,
                Atom("patterns"): self._patterns,
                Atom("since"): (self._run, self._received) if self._run else Atom("undefined"),
                Atom("window"): self._window,
            }
            try:
                answer = unwrap(
                    await self._caller.call(
                        "kb_api",
                        "subscribe",
                        [self._store, request],
                        timeout=patience,
                        idempotent=False,
                    )
                )
            except Exception as error:
                # A caller that has ended for good has closed its inboxes.
                if not is_transient(error) or self._mailbox.closed:
                    raise
                if isinstance(error, (DeadlineError, StoreTimeoutError)):
                    patience = min(2 * patience, _LAST_PATIENCE)
                await asyncio.sleep(_RETRY_DELAY)
                continue
            self._member = self._caller.current
            self._reference = answer[Atom("subscription")]
            self._run, self._received = answer[Atom("cursor")]
            if answer[Atom("mode")] != _RESUMED:
                nodes = await _taken(answer[Atom("nodes")])
                self._pending.clear()
                snapshot = Snapshot(nodes, self._member or "", gap=self._follows)
                self._pending.append((snapshot, self._received))
            self._follows = True
            return

    def _member_changed(self, member: str | None) -> None:
        self._reference = None
        self._mailbox.put(Atom("member_changed"))

    async def close(self) -> None:
        """End the subscription; the iteration stops."""
        if self._closed:
            return
        self._closed = True
        self._caller.off_change(self._member_changed)
        if self._reference is not None and self._member is not None:
            await self._unsubscribe(self._member, self._reference)
        await self._mailbox.close()

    async def _unsubscribe(self, member: str, reference: Reference) -> None:
        with contextlib.suppress(ConnectionLostError, DeadlineError, ClosedError):
            await self._caller.cast(member, "kb_api", "unsubscribe", [reference, self._mailbox.pid])


async def _taken(told: list[Any]) -> dict[NativePath, Any]:
    """The nodes of an answer, which is used up; whatever else the loop has to do comes in between."""
    nodes: dict[NativePath, Any] = {}
    told.reverse()
    while told:
        for path, data in reversed(told[-_TAKEN_AT_ONCE:]):
            nodes[native_path(path)] = _data(data)
        del told[-_TAKEN_AT_ONCE:]
        if told:
            await asyncio.sleep(0)
    return nodes


def _data(term: Any) -> Any:
    return None if term == Atom("undefined") else term


def _change(term: Any) -> Updated | Deleted:
    match term:
        case (int(), Atom() as what, list() as path) if what == _DELETED:
            return Deleted(native_path(path))
        case (int(), Atom(), list() as path, data):
            return Updated(native_path(path), _data(data))
        case _:
            raise ProtocolError(f"no change of the feed: {term!r:.200}")

"""The change feed: snapshot, then changes in apply order, across the death of members."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import ClosedError, ConnectionLostError, DeadlineError, ProtocolError
from bridge.etf import Atom, Reference
from bridge.khepri.caller import Caller
from bridge.khepri.paths import NativePath, native_path
from bridge.khepri.reply import is_transient, unwrap

_SUBSCRIBE_TIMEOUT: Final = 2.0
"""seconds for one try; a snapshot of a large tree takes a while, and tries follow one another"""
_RETRY_DELAY: Final = 0.05
"""seconds between tries while no member answers"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything below the prefixes at one moment; what is absent does not exist.

    Attributes:
        nodes: data by native path.
        member: the node that told it.
    """

    nodes: Mapping[NativePath, Any]
    member: str


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

_RESUMED: Final = Atom("resumed")
_DELETED: Final = Atom("deleted")


class Feed:
    """One subscription; iterate over it once.

    The first change is a ``Snapshot``. Another one comes only when history was lost: the member died, or
    this side fell more than 20,000 changes behind.
    """

    def __init__(self, caller: Caller, store: Atom, prefixes: list[Any], *, window: int) -> None:
        self._caller = caller
        self._store = store
        self._prefixes = prefixes
        self._window = window
        self._mailbox = caller.mailbox()
        self._member: str | None = None
        self._reference: Reference | None = None
        self._cursor: Any = Atom("undefined")
        self._pending: deque[Change] = deque()
        self._closed = False
        caller.on_change(self._member_changed)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes()

    async def _changes(self) -> AsyncIterator[Change]:
        while not self._closed:
            if self._reference is None:
                await self._subscribe()
            while self._pending:
                yield self._pending.popleft()
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
                    self._pending.append(_change(change))
                sequence = changes[-1][0]
                self._cursor = (self._cursor[0], sequence)
                await self._acknowledge(sequence)
            case (Atom() as tag, Reference() as reference) if (
                tag == Atom("kb_feed_gap") and reference == self._reference
            ):
                self._reference = None
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
        while not self._closed:
            request = {
                Atom("pid"): self._mailbox.pid,
                Atom("prefixes"): self._prefixes,
                Atom("since"): self._cursor,
                Atom("window"): self._window,
            }
            try:
                answer = unwrap(
                    await self._caller.call(
                        "kb_api",
                        "subscribe",
                        [self._store, request],
                        timeout=_SUBSCRIBE_TIMEOUT,
                        idempotent=False,
                    )
                )
            except Exception as error:
                if not is_transient(error):
                    raise
                await asyncio.sleep(_RETRY_DELAY)
                continue
            self._member = self._caller.current
            self._reference = answer[Atom("subscription")]
            self._cursor = answer[Atom("cursor")]
            if answer[Atom("mode")] != _RESUMED:
                nodes = {native_path(path): _data(data) for path, data in answer[Atom("nodes")]}
                self._pending.clear()
                self._pending.append(Snapshot(nodes, self._member or ""))
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
            with contextlib.suppress(ConnectionLostError, DeadlineError, ClosedError):
                await self._caller.cast(
                    self._member, "kb_api", "unsubscribe", [self._reference, self._mailbox.pid]
                )
        await self._mailbox.close()


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

"""The change feed: numbers changes, keeps the last ones, and sends them within each subscriber's window.

Source: ``docs/protocol.md`` §3; the Erlang modules ``kb_feed`` and ``kb_watch``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.etf import Atom, Pid, Reference
from bridge.khepri.memory.order import names_key
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.memory.tree import Change, Tree
from bridge.khepri.memory.watches import Watch, watches
from bridge.khepri.paths import NativePath

RING: Final = 20_000
"""changes that a subscriber may be behind"""
MAX_WINDOW: Final = 10_000
MAX_SUBSCRIBERS: Final = 1_000
_BATCH: Final = 100

_FEED: Final = Atom("kb_feed")
_GAP: Final = Atom("kb_feed_gap")
_UPDATED: Final = Atom("created_or_updated")
_DELETED: Final = Atom("deleted")
_UNDEFINED: Final = Atom("undefined")

Send = Callable[[Pid, Any], bool]
"""delivers a message, and tells whether there is anybody to deliver it to"""


@dataclass(slots=True)
class _Subscriber:
    pid: Pid
    watches: list[Watch]
    window: int
    next: int
    outstanding: deque[int] = field(default_factory=deque)


class ChangeFeed:
    """One run of a feed.

    Args:
        node: of references.
        run: 8 bytes that name this run in cursors.
        send: delivers messages.
        ring: changes to keep.
    """

    def __init__(self, node: Atom, run: bytes, send: Send, *, ring: int = RING) -> None:
        self._node = node
        self._run = run
        self._send = send
        self._ring: deque[tuple[NativePath, tuple[Any, ...]]] = deque(maxlen=ring)
        self._size = ring
        self._last = 0
        self._references = 0
        self._subscribers: dict[Reference, _Subscriber] = {}

    def record(self, changes: Iterable[Change]) -> None:
        """Take what a write changed, and send it."""
        for change in changes:
            told = _told(change)
            if told is not None:
                self._last += 1
                self._ring.append((change.path, (self._last, *told)))
        for reference in list(self._subscribers):
            self._deliver(reference)

    def subscribe(self, tree: Tree, request: Any) -> dict[Atom, Any]:
        """Begin a subscription, and tell what is there; changes follow.

        Raises:
            RefusedError: ``invalid_options``, ``invalid_path``, ``too_large``.
        """
        pid, wanted, window, since = _checked(request)
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise RefusedError("too_large", "this member has as many subscribers as it takes")
        self._references += 1
        reference = Reference(self._node, 1, (self._references,))
        sequence = self._known(since)
        nodes: list[Any] = []
        if sequence is None:
            nodes = _snapshot(tree, wanted)
        start = self._last if sequence is None else sequence
        self._subscribers[reference] = _Subscriber(pid, wanted, window, start + 1)
        # What it missed lies in its inbox before the answer; whoever subscribes reads that first.
        self._deliver(reference)
        return {
            Atom("subscription"): reference,
            Atom("cursor"): (self._run, start),
            Atom("mode"): Atom("snapshot" if sequence is None else "resumed"),
            Atom("nodes"): nodes,
        }

    def acknowledge(self, reference: Any, sequence: Any, pid: Any) -> None:
        """A subscriber has taken all up to a number.

        Raises:
            RefusedError: ``invalid_options``.
        """
        if not isinstance(reference, Reference) or type(sequence) is not int or not isinstance(pid, Pid):
            raise RefusedError("invalid_options", "acknowledge takes a subscription, a sequence and a pid")
        subscriber = self._subscribers.get(reference)
        if subscriber is not None and subscriber.pid == pid:
            while subscriber.outstanding and subscriber.outstanding[0] <= sequence:
                subscriber.outstanding.popleft()
            self._deliver(reference)

    def unsubscribe(self, reference: Any, pid: Any) -> None:
        """End a subscription.

        Raises:
            RefusedError: ``invalid_options``.
        """
        if not isinstance(reference, Reference) or not isinstance(pid, Pid):
            raise RefusedError("invalid_options", "unsubscribe takes a subscription and a pid")
        subscriber = self._subscribers.get(reference)
        if subscriber is not None and subscriber.pid == pid:
            del self._subscribers[reference]

    def _known(self, since: Any) -> int | None:
        match since:
            case (bytes() as run, int() as sequence) if run == self._run:
                if max(0, self._last - self._size) <= sequence <= self._last:
                    return sequence
        return None

    def _deliver(self, reference: Reference) -> None:
        subscriber = self._subscribers[reference]
        if subscriber.next <= self._last - self._size:
            del self._subscribers[reference]
            self._send(subscriber.pid, (_GAP, reference))
            return
        while batch := self._batch(subscriber):
            if not self._send(subscriber.pid, (_FEED, reference, batch)):
                del self._subscribers[reference]
                return

    def _batch(self, subscriber: _Subscriber) -> list[tuple[Any, ...]]:
        batch: list[tuple[Any, ...]] = []
        while subscriber.next <= self._last and len(batch) < _BATCH:
            path, change = self._ring[subscriber.next - self._last - 1]
            if any(watch.wants(path) for watch in subscriber.watches):
                if len(subscriber.outstanding) >= subscriber.window:
                    break
                subscriber.outstanding.append(subscriber.next)
                batch.append(change)
            subscriber.next += 1
        return batch


def _told(change: Change) -> tuple[Any, ...] | None:
    """What is told of a change: of a node that has data now, or had some and is gone."""
    before, after = change.before, change.after
    old = None if before is None else before.payload
    if after is None:
        return None if old is None else (_DELETED, list(change.path))
    new = after.payload
    if new is None or new is old:
        return None
    return (_UPDATED, list(change.path), new.data)


def _snapshot(tree: Tree, wanted: list[Watch]) -> list[Any]:
    found = {}
    for watch in wanted:
        for query in watch.queries():
            found.update(tree.find(query))
    payloads = [(path, found[path].payload) for path in sorted(found, key=names_key)]
    return [(list(path), _UNDEFINED if payload is None else payload.data) for path, payload in payloads]


def _checked(request: Any) -> tuple[Pid, list[Watch], int, Any]:
    match request:
        case Mapping():
            named = {str(key): value for key, value in request.items()}
            match named:
                case {"pid": Pid() as pid, "patterns": list() as patterns, "window": int() as window} if (
                    1 <= window <= MAX_WINDOW
                ):
                    return pid, watches(patterns), window, named.get("since")
    raise RefusedError(
        "invalid_options", "a subscription is #{pid, patterns, since, window}, with window 1 to 10000"
    )

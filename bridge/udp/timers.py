"""When which session wants to be called: a heap of moments, few of them moved.

A timer that moved back stays where it is and is looked at early: cheaper than one per datagram.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What has a timer."""

    def get_timer(self) -> float | None:
        """When it wants to be called, monotonic seconds; ``None`` for never."""


Owner = TypeVar("Owner", bound=Timed)


class Timers(Generic[Owner]):
    """Timers of many.

    Attributes:
        armed: when each is looked at next, never later than it wants to be.
    """

    __slots__ = ("_heap", "_order", "armed")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner]] = []
        self._order = count()
        self.armed: dict[Owner, float] = {}

    def arm(self, owner: Owner) -> None:
        """See to it that it is called in time; asked for whenever that may have come nearer."""
        when = owner.get_timer()
        if when is None:
            return
        armed = self.armed.get(owner)
        if armed is None or when < armed:
            self.armed[owner] = when
            heapq.heappush(self._heap, (when, next(self._order), owner))

    def forget(self, owner: Owner) -> None:
        """It is not called any more."""
        self.armed.pop(owner, None)

    def first(self) -> float | None:
        """When :meth:`due` may give something; ``None`` for never."""
        heap = self._heap
        while heap and self.armed.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, *, now: float) -> Iterator[Owner]:
        """Those that want to be called by now, each once; their owner arms them again."""
        while self._heap and self._heap[0][0] <= now:
            when, _, owner = heapq.heappop(self._heap)
            if self.armed.get(owner) != when:
                continue
            del self.armed[owner]
            wanted = owner.get_timer()
            if wanted is not None and wanted <= now:
                yield owner
            else:
                self.arm(owner)

"""A seeded model of a bad network, as :class:`NetworkConditions` say it. Sans-IO.

Datagrams go in with the address of their destination and come out, or do not, when their time has come.
The same conditions and the same calls give the same run, which is what a failed test needs to be looked at
again. In the order of a real path: a cut, the queue of the slowest link, loss, delay.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from bridge.udp.conditions import NetworkConditions
from bridge.udp.peers import Address

MAX_PATHS: Final = 4096
"""destinations; strangers who are answered take one each, so that the oldest goes when there are more"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionerStatistics:
    """What became of the datagrams so far; all are numbers of datagrams."""

    sent: int
    cut: int
    """Lost in a partition, or while the path was cut."""
    overflowed: int
    """Dropped at the end of a full queue."""
    lost: int
    duplicated: int
    held_back: int
    """Reordered on purpose; jitter reorders more."""
    on_the_way: int
    """Copies that have not arrived yet."""


class _Path:
    """The way to one destination: its own chance, its own bursts, its own queue."""

    __slots__ = ("_luck", "conditions", "is_cut", "is_losing", "queued", "queued_at", "random")

    def __init__(self, conditions: NetworkConditions, seed: str) -> None:
        # Nothing secret: a reproducible network. Loss has a source of its own, drawn from for every datagram,
        # so that what else happens to datagrams does not change which are lost.
        self.random = Random(seed)  # noqa: S311
        self._luck = Random(f"{seed} loss")  # noqa: S311
        self.queued = self.queued_at = 0.0
        self.is_cut = False
        self.set_conditions(conditions)

    def set_conditions(self, conditions: NetworkConditions) -> None:
        self.conditions = conditions
        self.is_losing = self._luck.random() < conditions.loss

    def loses(self) -> bool:
        """The fate of the next datagram: Gilbert's model, moved by one datagram."""
        conditions = self.conditions
        if not 0 < conditions.loss < 1:
            return conditions.loss > 0
        lost = self.is_losing
        # Left to itself a datagram is lost in runs of 1 / (1 - loss), which is the same model.
        leaving = 1 / conditions.burst if conditions.burst is not None else 1 - conditions.loss
        if lost:
            self.is_losing = self._luck.random() >= leaving
        else:
            self.is_losing = self._luck.random() < leaving * conditions.loss / (1 - conditions.loss)
        return lost

    def departure(self, size: int, now: float) -> float | None:
        """When a datagram of ``size`` bytes has left the queue; ``None`` where it has no room in it."""
        rate = self.conditions.rate
        if rate is None:
            return now
        # Bytes and not the time they take, so that a burst fills the queue exactly.
        self.queued = max(0.0, self.queued - (now - self.queued_at) * rate)
        self.queued_at = now
        if self.queued + size > self.conditions.queue:
            return None
        self.queued += size
        return now + self.queued / rate


class Conditioner:
    """Holds datagrams until they are due.

    What goes to one destination changes nothing for another one: each path has a queue and a chance of its
    own, in the order of the first datagrams to them.
    """

    def __init__(self, conditions: NetworkConditions, *, source: str = "") -> None:
        """Make a network.

        Args:
            conditions: of every path that :meth:`set_conditions` does not say otherwise for.
            source: who sends; several senders under one seed then have different luck.
        """
        self._conditions = conditions
        self._seed = conditions.seed
        self._source = source
        self._paths: dict[Address, _Path] = {}
        self._paths_made = 0
        self._is_cut = False
        self._began: float | None = None
        self._held: list[tuple[float, int, bytes, Address]] = []
        self._order = count()
        self._sent = self._cut = self._overflowed = self._lost = self._duplicated = self._held_back = 0

    def __len__(self) -> int:
        return len(self._held)

    def push(self, datagram: bytes | memoryview, address: Address, *, now: float) -> None:
        """Send a datagram into the network; a view is good again after the call."""
        if self._began is None:
            self._began = now
        self._sent += 1
        path = self._path(address)
        conditions, chance = path.conditions, path.random.random
        # Bursts go on below a cut and a full queue: else one would begin where it was when the cut ends.
        is_lost = path.loses()
        if self._is_cut or path.is_cut or _is_within(conditions, now - self._began):
            self._cut += 1
            return
        departed = path.departure(len(datagram), now)
        if departed is None:
            self._overflowed += 1
            return
        if is_lost:
            self._lost += 1
            return
        kept = bytes(datagram)
        copies = 1
        if chance() < conditions.duplicate:
            copies = 2
            self._duplicated += 1
        for _ in range(copies):
            due = departed + conditions.delay + chance() * conditions.jitter
            if chance() < conditions.reorder:
                due += conditions.reorder_by
                self._held_back += 1
            heapq.heappush(self._held, (due, next(self._order), kept, address))

    def pop_due(self, *, now: float) -> list[tuple[bytes, Address]]:
        """What has arrived by ``now``, in order of arrival."""
        due = []
        while self._held and self._held[0][0] <= now:
            _, _, datagram, address = heapq.heappop(self._held)
            due.append((datagram, address))
        return due

    def get_timer(self) -> float | None:
        """When the next datagram arrives; ``None`` when none is on its way."""
        return self._held[0][0] if self._held else None

    def set_conditions(self, conditions: NetworkConditions, *, address: Address | None = None) -> None:
        """Change the network, to one destination or to all, for what is sent from now on; the seed stays."""
        if address is not None:
            self._path(address).set_conditions(conditions)
            return
        self._conditions = conditions
        for path in self._paths.values():
            path.set_conditions(conditions)

    def cut(self, address: Address | None = None) -> None:
        """Lose everything sent from now on, to one destination or to all, until :meth:`mend`."""
        if address is None:
            self._is_cut = True
        else:
            self._path(address).is_cut = True

    def mend(self, address: Address | None = None) -> None:
        """End what :meth:`cut` with the same argument began."""
        if address is None:
            self._is_cut = False
        else:
            self._path(address).is_cut = False

    def statistics(self) -> ConditionerStatistics:
        """What became of the datagrams so far."""
        return ConditionerStatistics(
            sent=self._sent,
            cut=self._cut,
            overflowed=self._overflowed,
            lost=self._lost,
            duplicated=self._duplicated,
            held_back=self._held_back,
            on_the_way=len(self._held),
        )

    def _path(self, address: Address) -> _Path:
        path = self._paths.get(address)
        if path is None:
            if len(self._paths) >= MAX_PATHS:
                del self._paths[next(iter(self._paths))]
            # Not by the address: ports are the kernel's choice, and the same run must have the same luck.
            seed = f"{self._seed} {self._paths_made} {self._source}"
            path = self._paths[address] = _Path(self._conditions, seed)
            self._paths_made += 1
        return path


def _is_within(conditions: NetworkConditions, elapsed: float) -> bool:
    return any(start <= elapsed < start + length for start, length in conditions.partition)

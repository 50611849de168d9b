"""A seeded model of a bad network: loss, delay, jitter, duplication, reordering. Sans-IO.

Datagrams go in with an address and come out, or do not, when their time has come. The same seed and the
same calls give the same run, which is what a failed test needs to be looked at again.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from random import Random

from bridge.errors import ConfigurationError
from bridge.udp.peers import Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What the network does to each datagram. Times are seconds, the others probabilities."""

    loss: float = 0.0
    delay: float = 0.0
    """One way."""
    jitter: float = 0.0
    """Added to the delay, uniform from zero: above the spacing of datagrams it reorders them."""
    duplication: float = 0.0
    reordering: float = 0.0
    """Of being held back by ``reordering_delay``."""
    reordering_delay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} is a probability")
        for name in ("delay", "jitter", "reordering_delay"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} must not be negative")


class Conditioner:
    """Holds datagrams until they are due."""

    def __init__(self, conditions: Conditions, *, seed: int) -> None:
        self.conditions = conditions
        self._random = Random(seed)  # noqa: S311 - a reproducible network, nothing secret
        self._held: list[tuple[float, int, bytes, Address]] = []
        self._order = count()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._held)

    def push(self, datagram: bytes, address: Address, *, now: float) -> None:
        """Send a datagram into the network."""
        conditions, chance = self.conditions, self._random.random
        if chance() < conditions.loss:
            self.lost += 1
            return
        for _ in range(2 if chance() < conditions.duplication else 1):
            due = now + conditions.delay + chance() * conditions.jitter
            if chance() < conditions.reordering:
                due += conditions.reordering_delay
            heapq.heappush(self._held, (due, next(self._order), datagram, address))

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

"""What lies between two hosts in this benchmark, as a datagram and as a TCP connection meet it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final

from bridge.udp import NetworkConditions

SEGMENT_BYTES: Final = 1_448
"""payload of a TCP segment on Ethernet with time stamps"""
_LEAST_RTO: Final = 0.2
"""seconds that Linux adds to the round trip before it sends again what nothing was heard of"""
_REORDERING: Final = 1.25
"""round trips after which a later segment that arrived shows a loss (RACK, RFC 8985: a quarter in reserve)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """Both directions alike.

    Attributes:
        rtt_ms: mean round trip.
        loss: of datagrams or segments, 0 to 1, each by itself.
        seed: of everything left to chance.
    """

    rtt_ms: float
    loss: float
    seed: int

    @property
    def jitter(self) -> float:
        """Seconds between the shortest and the longest way: 10 % of the round trip."""
        return self.rtt_ms / 1e4

    @property
    def shortest(self) -> float:
        """Seconds of the shortest way: with half the jitter it is half the round trip."""
        return self.rtt_ms / 2e3 - self.jitter / 2

    @property
    def one_way_ms(self) -> float:
        """Mean."""
        return self.rtt_ms / 2

    def datagrams(self) -> NetworkConditions | None:
        """For ``--network``; ``None`` on a perfect road."""
        if not (self.rtt_ms or self.loss):
            return None
        return NetworkConditions(
            loss=self.loss, delay=round(self.shortest, 6), jitter=round(self.jitter, 6), seed=self.seed
        )


@dataclass(slots=True)
class _Chunk:
    data: bytes
    due: float
    sent: float
    lost: bool


class Line:
    """One direction of a TCP connection. Sans-IO.

    Bytes arrive in order, each chunk no sooner than those before it. A lost chunk comes again after Linux's
    retransmission time-out (one round trip and 200 ms, doubled with each further loss), or sooner, when a
    later one that arrived shows the loss: RACK, a round trip and a quarter after that one was sent.
    """

    def __init__(self, road: Road, random: Random) -> None:
        self._road = road
        self._random = random
        self._held: deque[_Chunk] = deque()

    def push(self, data: bytes, *, now: float) -> None:
        """Send bytes."""
        rtt = self._road.rtt_ms / 1e3
        way = self._way()
        waited, timeout = 0.0, rtt + _LEAST_RTO
        while self._loses(len(data)):
            waited += timeout
            timeout *= 2
        self._held.append(_Chunk(data, now + waited + way, now, waited > 0))
        if waited:
            return
        for chunk in self._held:
            if chunk.lost:
                chunk.due = min(chunk.due, now + _REORDERING * rtt + way)

    def pop_due(self, *, now: float) -> list[bytes]:
        """What has arrived by ``now``."""
        due = []
        while self._held and self._held[0].due <= now:
            due.append(self._held.popleft().data)
        return due

    def get_timer(self) -> float | None:
        """When the next bytes arrive; ``None`` when none are on their way."""
        return self._held[0].due if self._held else None

    def _way(self) -> float:
        return self._road.shortest + self._random.random() * self._road.jitter

    def _loses(self, size: int) -> bool:
        arrives = (1 - self._road.loss) ** math.ceil(size / SEGMENT_BYTES)
        return self._random.random() >= arrives

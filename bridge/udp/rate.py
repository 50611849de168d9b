"""How fast a session may send: a rate that yields under loss, and the pacer that spreads datagrams by it.

The loss-based controller of GCC (draft-ietf-rmcat-gcc-02, section 6), with a start that doubles. A window
as of TCP was rejected for state: it halves at a single loss, of which radio links have plenty, while late
state is worthless anyway. Delay-based control (section 5 there) is left out: it guards against deep queues,
which paths between servers seldom have.
"""

from __future__ import annotations

import math
from typing import Final

from bridge.udp.columns import Columns, Row
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
)

MIN_INTERVAL: Final = 0.01
"""Seconds between two changes of the rate, where two round trips are shorter."""
MIN_SAMPLE: Final = 20
"""Datagrams of which the fate is known before a share of loss means anything,"""
LARGE_SAMPLE: Final = 200
"""and with which a share that may be chance is taken for chance."""
LOW_LOSS: Final = 0.02
HIGH_LOSS: Final = 0.10
_GROWTH: Final = 1.08
_START_GROWTH: Final = 2.0
_BURST_SECONDS: Final = 0.005
_BURST_BYTES: Final = 16 * MAX_DATAGRAM_BYTES


class StateRate:
    """The rate of one session, in bytes of UDP payload a second.

    Only datagrams sent since the rate last changed count, so what was lost at the old rate is not held
    against the new one.
    """

    __slots__ = (
        "_arrived",
        "_ceiling",
        "_changed_at",
        "_floor",
        "_lost",
        "_row",
        "_threshold",
        "_usual",
        "_was_limit",
        "bytes_per_second",
        "loss",
        "sent_bytes",
    )

    def __init__(
        self, *, initial: float, floor: float, ceiling: float, now: float, row: Row | None = None
    ) -> None:
        """Begin at ``initial``, never below ``floor`` or above ``ceiling``, all in bytes a second.

        Args:
            row: of its session, which counts there what went alone; ``None`` for one of its own.
        """
        self._row = row or Row(Columns())
        self.bytes_per_second = min(max(initial, floor), ceiling)
        self.loss: float | None = None
        """Share of datagrams lost in the last interval; ``None`` before the first."""
        self.sent_bytes = 0
        """Of datagrams that went out since the rate last changed: the owner adds to it."""
        self._floor = floor
        self._ceiling = ceiling
        self._threshold = math.inf  # below it the rate doubles
        self._usual = 0.0  # bytes a second that were sent when not much was lost, halved when much was
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._changed_at = now
        self._arrived = self._lost = self.sent_bytes = 0
        self._row.columns.lone_rated[self._row.index] = 0
        self._was_limit = False

    def held_back(self) -> None:
        """Something waits because of the rate: only then does it say anything that nothing was lost."""
        self._was_limit = True

    def arrived(self, count: int, sent_at: float) -> None:
        """So many datagrams sent then were acknowledged."""
        if sent_at >= self._changed_at:
            self._arrived += count

    def lost(self, count: int, sent_at: float) -> None:
        """So many datagrams sent then count as lost."""
        if sent_at >= self._changed_at:
            self._lost += count

    def arrived_late(self, count: int, sent_at: float) -> None:
        """So many that counted as lost were acknowledged after all."""
        if sent_at >= self._changed_at:
            self._lost -= count
            self._arrived += count

    def update(self, *, rtt: float, now: float) -> bool:
        """Change the rate if enough is known.

        Args:
            rtt: smoothed round-trip time, seconds.

        Returns:
            Whether an interval ended.
        """
        elapsed = now - self._changed_at
        known = self._arrived + self._lost
        # Two round trips: in the first, nothing is known; and loss is known later than arrival.
        if known < MIN_SAMPLE or elapsed < max(2 * rtt, MIN_INTERVAL):
            return False
        share = self._lost / known
        is_high = self._lost - HIGH_LOSS * known > 2 * math.sqrt(HIGH_LOSS * (1 - HIGH_LOSS) * known)
        if share > HIGH_LOSS and not is_high and known < LARGE_SAMPLE:
            # Of 20 datagrams three are often lost where one of twenty is: a rate that fell at each such
            # chance, and grows by little, would sink on a path with a steady loss that has room for more.
            return False
        self.loss = share
        rate = self.bytes_per_second
        sent = (self.sent_bytes + self._row.columns.lone_rated[self._row.index]) / elapsed
        if is_high:
            # An outage looks as the worst congestion once it is over, and little is sent while it lasts: so
            # it halves what is doubled up to, and only the next loss in a row halves it again.
            self._threshold = self._usual = min(rate, max(sent, self._usual)) / 2
            # From what was sent, not from what might have been: else a rate far above what the application
            # sends takes many intervals to come down to where it makes a difference.
            rate = min(rate, sent) * (1 - share / 2)
        else:
            self._usual = sent
            if share > LOW_LOSS:
                self._threshold = min(self._threshold, rate)
            elif self._was_limit:
                rate = max(rate * _GROWTH, min(rate * _START_GROWTH, self._threshold))
        self.bytes_per_second = min(max(rate, self._floor), self._ceiling)
        self._begin(now)
        return True


class Pacer:
    """Token bucket in bytes: at least 16 datagrams and 5 ms of the rate at once, the rest in time."""

    __slots__ = ("_burst", "_rate", "_row")

    def __init__(self, rate: float, *, now: float, row: Row | None = None) -> None:
        """Begin with a full bucket.

        Args:
            rate: bytes a second.
            row: of its session; ``None`` for one of its own.
        """
        self._row = row = row or Row(Columns())
        row.columns.refilled_at[row.index] = now
        self.set_rate(rate)
        row.columns.tokens[row.index] = self._burst

    def set_rate(self, rate: float) -> None:
        """Go on at another rate."""
        columns, at = self._row.columns, self._row.index
        self._rate = columns.rate[at] = rate
        self._burst = columns.burst[at] = max(_BURST_BYTES, rate * _BURST_SECONDS)
        columns.tokens[at] = min(columns.tokens[at], self._burst)

    def allowance(self, now: float) -> int:
        """Bytes that may go now; at least a datagram, or none."""
        columns, at = self._row.columns, self._row.index
        tokens = min(self._burst, columns.tokens[at] + (now - columns.refilled_at[at]) * self._rate)
        columns.tokens[at] = tokens
        columns.refilled_at[at] = now
        return int(tokens) if tokens >= MAX_DATAGRAM_BYTES else 0

    def take(self, size: int, *, now: float) -> bool:
        """Spend so many bytes if :meth:`allowance` lets a datagram go; whether it did."""
        columns, at = self._row.columns, self._row.index
        tokens = columns.tokens[at] + (now - columns.refilled_at[at]) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        if tokens < MAX_DATAGRAM_BYTES:
            return False
        columns.tokens[at] = tokens - size
        columns.refilled_at[at] = now
        return True

    def spend(self, size: int) -> None:
        """So many bytes went. May overdraw: what must go at once, as acknowledgements, does not ask."""
        self._row.columns.tokens[self._row.index] -= size

    def ready_at(self) -> float:
        """When a quarter of a burst may go: waking for every single datagram would cost too much."""
        columns, at = self._row.columns, self._row.index
        return columns.refilled_at[at] + max(0.0, self._burst / 4 - columns.tokens[at]) / self._rate

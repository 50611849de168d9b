"""Round-trip time and the probe timer (RFC 6298, with the granularity of a float)."""

from __future__ import annotations

from typing import Final

_LATENESS_KEPT: Final = 1 - 1 / 512
"""Of the lateness, with each sample: forgotten within seconds of a stream of states."""


class RttEstimator:
    """Smoothed round-trip time of one session, in seconds, and how far beyond it datagrams come."""

    __slots__ = ("_initial", "_lateness", "latest", "minimum", "smoothed", "variation")

    def __init__(self, initial: float) -> None:
        self._initial = initial
        self._lateness = 0.0
        self.latest: float | None = None
        self.minimum: float | None = None
        self.smoothed = initial
        self.variation = initial / 2

    def sample(self, rtt: float) -> None:
        """Take one measurement, hold time already subtracted (RFC 6298, section 2)."""
        if self.latest is None or self.minimum is None:
            self.minimum = rtt
            self.smoothed = rtt
            self.variation = rtt / 2
        else:
            if rtt < self.minimum:
                self.minimum = rtt
            self.variation += (abs(self.smoothed - rtt) - self.variation) / 4
            self.smoothed += (rtt - self.smoothed) / 8
        self.latest = rtt
        self._lateness *= _LATENESS_KEPT

    def probe_timeout(self, *, ack_delay: float, minimum: float) -> float:
        """How long an unanswered datagram may stay unanswered, without backoff."""
        return max(minimum, self.smoothed + 4 * self.variation) + ack_delay

    def arrived_late(self, elapsed: float) -> None:
        """A datagram was acknowledged so long after it was sent, when it had been given up already."""
        self._lateness = max(self._lateness, elapsed - self.smoothed)

    def reorder_time(self) -> float:
        """How late a datagram may be before it counts as lost.

        9/8 round trips (RFC 9002, 6.1.2), or as late as some came not long ago (as RFC 8985, section 7.2):
        what yields under loss must not yield to jitter, which the smoothed round trip does not show.
        """
        smoothed, latest = self.smoothed, self.latest or self._initial
        late = (smoothed if smoothed > latest else latest) * 1.125
        return late if late > smoothed + self._lateness else smoothed + self._lateness

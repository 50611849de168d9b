"""When silence is worth asking about: the probe timer (RFC 9002, section 6.2), its backoff with a ceiling."""

from __future__ import annotations

from typing import Final

from bridge.udp.rtt import RttEstimator

_MAX_BACKOFF: Final = 6
_MAX_PROBE_SECONDS: Final = 0.5
"""Between two probes, where the round trip is shorter. With all in flight that may be, nothing else goes: the
first probe to arrive ends an outage, so that backing off for seconds would make it last for seconds more."""


class ProbeTimer:
    """The timer of one session.

    Attributes:
        since: when the silence began: something that waits for an answer went, or an answer came.
        backoff: probes in a row that went unanswered.
    """

    __slots__ = ("_ack_delay", "_minimum", "_rtt", "backoff", "since")

    def __init__(self, rtt: RttEstimator, *, ack_delay: float, minimum: float, now: float) -> None:
        """Begin now.

        Args:
            ack_delay: seconds for which the peer may hold back an acknowledgement.
            minimum: seconds below which a scheduler's pause looks like silence.
        """
        self._rtt = rtt
        self._ack_delay = ack_delay
        self._minimum = minimum
        self.since = now
        self.backoff = 0

    def timeout(self) -> float:
        """Seconds after which silence is worth asking about, for the first time."""
        return self._rtt.probe_timeout(ack_delay=self._ack_delay, minimum=self._minimum)

    def due_at(self) -> float:
        """When to ask, or to ask again."""
        timeout = self.timeout()
        longest = max(timeout, _MAX_PROBE_SECONDS)
        return self.since + min(timeout * (1 << self.backoff), longest)

    def fired(self, *, now: float) -> None:
        """It is asked now."""
        self.backoff = min(self.backoff + 1, _MAX_BACKOFF)
        self.since = now

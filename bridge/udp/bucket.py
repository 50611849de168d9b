"""Token bucket: bounds a rate, with a burst after quiet times."""

from __future__ import annotations


class TokenBucket:
    """Holds up to ``burst`` tokens, refilled at ``rate`` a second."""

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refilled_at: float | None = None

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self._refilled_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

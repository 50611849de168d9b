"""Deadlines of a client."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import ConfigurationError
from bridge.khepri.options import MAX_TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class KhepriConfig:
    """Deadlines of a client, in seconds. Khepri's own default is to wait for ever; here nothing does."""

    timeout: float = 5.0
    """seconds a call may take as a whole, repeats included"""
    attempt_timeout: float = 0.4
    """seconds the homeserver may spend on one attempt of a write that can be repeated: a call in flight
    to a leader that is cut off waits out its whole time, and so does one that begins just before another
    is elected; an election takes 0.2 to 0.6 s, and 1.2 s after a cut"""
    retry_delay: float = 0.05
    """seconds between attempts while the store has no leader"""

    def __post_init__(self) -> None:
        times = (self.timeout, self.attempt_timeout, self.retry_delay)
        if not all(0.001 <= seconds <= MAX_TIMEOUT for seconds in times):
            raise ConfigurationError("time-outs and delays are 0.001 to 60 seconds")

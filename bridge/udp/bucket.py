"""Token bucket: bounds a rate, with a burst after quiet times; and one for each host."""

from __future__ import annotations

import ipaddress
from typing import Final

_MAX_HOSTS: Final = 1024
_PREFIX_BITS: Final = 64
"""Of an IPv6 address: whoever has one has all that share so many."""


class TokenBucket:
    """Holds up to ``burst`` tokens, refilled at ``rate`` a second."""

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refilled_at: float | None = None

    def level(self, now: float) -> float:
        """The share of the burst that is there, 0 … 1."""
        if self._refilled_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        return self._tokens / self._burst

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self.level(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class HostBuckets:
    """A token bucket for each of the last 1024 hosts: one of them cannot take what is for all.

    Only hosts that have proven to be where they say belong in here; those unused for longest are forgotten.
    """

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, *, rate: float, burst: int) -> None:
        """Give each host ``rate`` tokens a second, ``burst`` at most."""
        self._rate = rate
        self._burst = burst
        self._buckets: dict[int, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, host: str, now: float) -> bool:
        """Take one token of a host, if it has one.

        Args:
            host: numeric IPv4 or IPv6 address.
        """
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            # A socket for both families shows IPv4 hosts so, all with one prefix.
            address = address.ipv4_mapped or address
        key = int(address) >> _PREFIX_BITS if address.version == 6 else -int(address) - 1
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(rate=self._rate, burst=self._burst)
            if len(self._buckets) >= _MAX_HOSTS:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket.take(now)

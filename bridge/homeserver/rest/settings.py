"""Limits and deadlines of the REST service."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSettings:
    """What one service process allows; a second one behind the balancer allows as much again."""

    store_timeout: float = 5.0
    """seconds a call of the store may take, repeats through other members included: an election takes up to
    2.2 s, and who waits for HTTP gives up sooner than a simulation server"""
    max_body_bytes: int = 65_536
    """of a request; the largest one carries a release of 16 KiB"""
    body_seconds: float = 10.0
    """within which a body has come: a client that sends no more of it holds a connection"""
    address_rate: float = 200.0
    """requests a second of one address, before anybody looks at its token"""
    address_burst: int = 400
    """requests of one address after a quiet time"""
    caller_rate: float = 50.0
    """requests a second of one caller"""
    caller_burst: int = 100
    """requests of one caller after a quiet time"""
    keyed_rate: float = 25.0
    """writes with an ``Idempotency-Key`` a second, of all callers: each is one of the 4,096 clients that the
    store remembers, and 3,500 of them must take longer than the minute in which a server repeats a request"""
    keyed_burst: int = 250
    """the same after a quiet time"""
    max_feeds: int = 500
    """live feeds at once; a homeserver has room for 1,000 subscribers"""
    max_feeds_of_one: int = 8
    """of one caller: a page, a tool and what has not noticed yet that it was cut off"""
    feed_heartbeat: float = 15.0
    """seconds of silence after which a feed says that it lives: balancers cut connections that are silent"""

    def __post_init__(self) -> None:
        if not 0.1 <= self.store_timeout <= 60:
            raise ConfigurationError("store_timeout is 0.1 to 60 seconds")
        rates = (self.body_seconds, self.address_rate, self.caller_rate, self.keyed_rate, self.feed_heartbeat)
        counts = (self.max_body_bytes, self.address_burst, self.caller_burst, self.keyed_burst)
        if not all(rate > 0 for rate in rates) or not all(count >= 1 for count in counts):
            raise ConfigurationError(
                "rates and times of the REST service are above 0, bursts and sizes 1 or more"
            )

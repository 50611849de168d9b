"""Address changes: a new address counts once it has answered a challenge.

An authentic datagram from elsewhere proves nothing about the address it came from: an onlooker can send a
copy on, and win the race, with any source it likes.
"""

from __future__ import annotations

from typing import Final

from bridge.udp.peers import Address
from bridge.udp.wire import (
    MIN_DATA_BYTES,
)

CHALLENGE_DATAGRAM_BYTES: Final = MIN_DATA_BYTES + 9
"""A sealed PATH_CHALLENGE; not sent in answer to anything shorter, for the address may be somebody else's."""


class PathValidation:
    """At most one candidate address, the newest seen."""

    __slots__ = ("_candidate", "_challenged_at", "_token")

    def __init__(self) -> None:
        self._candidate: Address | None = None
        self._challenged_at = 0.0
        self._token = b""

    def should_challenge(self, address: Address, *, size: int, now: float, interval: float) -> bool:
        """Whether a datagram of ``size`` bytes from an unproven address is to be answered by a challenge.

        Args:
            interval: seconds between two challenges to one address.
        """
        if size < CHALLENGE_DATAGRAM_BYTES:
            return False
        return address != self._candidate or now - self._challenged_at >= interval

    def challenge(self, address: Address, token: bytes, *, now: float) -> None:
        """A challenge with this token goes to the address."""
        self._candidate, self._token, self._challenged_at = address, token, now

    def respond(self, address: Address, token: bytes) -> bool:
        """Whether this response, from this address, proves it; then there is no candidate any more."""
        if self._candidate is None or address != self._candidate or token != self._token:
            return False
        self._candidate = None
        return True

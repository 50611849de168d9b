"""Signed mode on the way out: datagrams that wait for their proofs, and how often there are any.

A session gives its state datagrams their sequences and hands them to the endpoint, which signs those of all
sessions at once; then each session seals its own. What a session seals in between has later sequences.
"""

from __future__ import annotations

from typing import NamedTuple

from bridge.udp.evidence import Unsigned
from bridge.udp.loss import Carried
from bridge.udp.peers import Address
from bridge.udp.sealing import Reserved


class Unproven(NamedTuple):
    """Datagrams of one session that wait to be signed, and then sealed.

    Attributes:
        carried: as the ledger of what was sent takes it.
    """

    unsigned: Unsigned
    reserved: Reserved
    carried: Carried
    address: Address


class SigningPace:
    """Spaces ticks that are signed: so many a second, with a burst after quiet times (GCRA).

    Attributes:
        due_at: the next may be signed from this moment on, monotonic seconds. What waits until then goes
            into one tick: under load ticks become fewer and larger, and nothing is refused.
    """

    __slots__ = ("_burst_seconds", "_interval", "_paid_until", "due_at")

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._burst_seconds = (burst - 1) * self._interval
        self._paid_until = self.due_at = float("-inf")

    def signed(self, signatures: int, *, now: float) -> None:
        """So many signatures were made."""
        self._paid_until = max(self._paid_until, now) + signatures * self._interval
        self.due_at = self._paid_until - self._burst_seconds

"""Time stamps of both ends: what to echo, round-trip samples, and how old an echo is.

Stamps are microseconds of a monotonic clock modulo 2^32, so only differences of stamps of the same clock are
ever taken. Zero stands for "none". Source: docs/protocol.md §5, "Sealed datagrams".
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.udp.columns import Columns, Row
from bridge.udp.rtt import RttEstimator
from bridge.udp.wire import (
    HOLD_UNIT_US,
    NO_ECHO,
    PROLOGUE,
)

_MASK: Final = 0xFFFFFFFF


def stamp_of(now: float) -> int:
    """The stamp of a moment, in monotonic seconds; never 0."""
    return int(now * 1e6) & _MASK or 1


def echo_age(echo: int, *, now: float) -> float | None:
    """Seconds since we sealed the stamp that came back as ``echo``; ``None`` for "none"."""
    return None if echo == 0 else (stamp_of(now) - echo & _MASK) / 1e6


def oldest_echo_age(echoes: npt.NDArray[np.uint32], *, now: float) -> float | None:
    """The highest :func:`echo_age` of many, shape (n,); ``None`` where one of them is "none"."""
    if not echoes.all():
        return None
    ages = (stamp_of(now) - echoes.astype(np.int64)) & _MASK
    return float(ages.max()) / 1e6


class StampExchange:
    """The stamps of one session."""

    __slots__ = ("_last_echo", "_longest", "_row", "_rtt")

    def __init__(self, rtt: RttEstimator, *, longest: float, row: Row | None = None) -> None:
        """Begin without a stamp of the peer.

        Args:
            rtt: takes the samples.
            longest: seconds; a longer round trip is the peer's invention.
            row: of its session; ``None`` for one of its own.
        """
        self._rtt = rtt
        self._longest = longest
        self._row = row or Row(Columns())
        self._last_echo = 0

    def echo(self, *, now: float) -> tuple[int, int]:
        """The peer's newest stamp, and how long it was held, in units of 64 microseconds."""
        columns, at = self._row.columns, self._row.index
        stamp = columns.peer_stamp[at]
        if not stamp:
            return 0, NO_ECHO
        held = int((now - columns.peer_stamp_at[at]) * 1e6) // HOLD_UNIT_US
        return stamp, held if held < NO_ECHO else NO_ECHO

    def prologue(self, *, now: float) -> bytes:
        """The first 10 bytes of a plaintext sealed now."""
        return PROLOGUE.pack(stamp_of(now), *self.echo(now=now))

    def receive(self, stamp: int, echo: int, hold: int, *, now: float) -> None:
        """Take the prologue of the newest datagram so far; one sample for each stamp that is echoed."""
        columns, at = self._row.columns, self._row.index
        columns.peer_stamp[at] = stamp
        columns.peer_stamp_at[at] = now
        if echo in (0, self._last_echo) or hold == NO_ECHO:
            return
        self._last_echo = echo
        elapsed = (stamp_of(now) - echo & _MASK) - hold * HOLD_UNIT_US
        # Below zero only by what the unit of the hold time rounds away.
        if -HOLD_UNIT_US <= elapsed <= self._longest * 1e6:
            self._rtt.sample(max(elapsed, 1) / 1e6)

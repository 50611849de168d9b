"""Which sequence numbers of a session were received: the replay window, and the source of acknowledgements.

One Python integer is the window, bit n standing for ``largest - n``: shifting and testing 2048 bits costs
little more than 64 of them would, so reordering far beyond the 256 that a receiver must allow is no loss.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 2048
"""Datagrams below the largest that may still arrive; the protocol asks for at least 256."""

_MASK: Final = (1 << WINDOW) - 1


class ReplayWindow:
    """Sliding window over 64-bit sequence numbers.

    Ask :meth:`is_fresh` before work is spent on a datagram, call :meth:`mark` after it proved authentic:
    a forged sequence must not move the window.
    """

    __slots__ = ("_bits", "largest")

    def __init__(self) -> None:
        self.largest = -1
        """The largest sequence marked; -1 before the first."""
        self._bits = 0

    def is_fresh(self, sequence: int) -> bool:
        """Whether the sequence was neither marked before nor is too old to tell."""
        behind = self.largest - sequence
        return behind < 0 or (behind < WINDOW and not self._bits >> behind & 1)

    def mark(self, sequence: int) -> None:
        """Record a sequence that :meth:`is_fresh` allowed."""
        behind = self.largest - sequence
        if behind >= 0:
            self._bits |= 1 << behind
        elif behind <= -WINDOW:
            self._bits = 1
            self.largest = sequence
        else:
            self._bits = (self._bits << -behind | 1) & _MASK
            self.largest = sequence

    def mark_run(self, last: int, bits: int) -> None:
        """Record sequences that are all above :attr:`largest`.

        Args:
            last: the largest of them.
            bits: bit n set for ``last - n``; at most :data:`WINDOW` bits.
        """
        ahead = last - self.largest
        older = self._bits << ahead if ahead < WINDOW else 0
        self._bits = (older | bits) & _MASK
        self.largest = last

    def acknowledgement(self) -> tuple[int, int]:
        """``(largest, bits)`` as in an ACK frame: bit n of ``bits`` stands for ``largest - 1 - n``."""
        return self.largest, self._bits >> 1

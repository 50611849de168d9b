"""What a data plane and its control plane tell each other without a message: two words of shared memory.

Until when may be sealed: the control plane writes what the lease allows, the data plane reads it before each
sealing. So a control plane that hangs, or lost the homeserver, or is dead, has stopped its data plane by then
without a word. And how many turns the data plane has made: one that stands still is a server that hangs.
"""

from __future__ import annotations

import mmap
import time
from typing import Final

import numpy as np

from bridge.replication import World

_WORD: Final = 8


def boot_ns() -> int:
    """Nanoseconds of ``CLOCK_BOOTTIME``, which counts on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def shared_size(capacity: int) -> int:
    """Bytes of a world of so many slots and the two words behind it."""
    return World.size(capacity) + 2 * _WORD


class Deadline:
    """The word behind the world in a block of ``shared_size(capacity)`` bytes; 0 at first: seal nothing."""

    def __init__(self, memory: bytearray | mmap.mmap, capacity: int) -> None:
        # An aligned word: a reader sees the old one or the new one, nothing between.
        self._word = np.frombuffer(memory, dtype=np.uint64, count=1, offset=World.size(capacity))

    def set(self, until_ns: int) -> None:
        """Let sealing go on until then (``CLOCK_BOOTTIME``); a time that is past stops it."""
        self._word[0] = until_ns

    def is_over(self) -> bool:
        """Whether nothing may be sealed now."""
        return boot_ns() >= int(self._word[0])


class Turns:
    """How many turns the data plane has made, in the word behind the deadline."""

    def __init__(self, memory: bytearray | mmap.mmap, capacity: int) -> None:
        self._word = np.frombuffer(memory, dtype=np.uint64, count=1, offset=World.size(capacity) + _WORD)

    def made(self) -> None:
        """One more; the data plane alone says so."""
        self._word[0] += np.uint64(1)

    def count(self) -> int:
        """So many so far."""
        return int(self._word[0])

"""World state shared by the simulation and the process that sends it.

One block of memory, structure of arrays, a fixed number of slots. Each slot has one writer at a time: the
simulation for what it holds, the data plane for what others hold. A slot is guarded by a sequence lock: odd
while it is written, so a reader that saw an odd or a changed number reads again. A mutex between two
processes was rejected: the simulation loop must never wait (R4-9).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError

_READ_ATTEMPTS: Final = 1_000
"""A write takes well under a microsecond; a slot still odd after this many looks has a dead writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldState:
    """State of one entity.

    Attributes:
        tick: simulation tick, unsigned, 32 bits.
        position: metres, shape (3,), float64.
        velocity: metres per second, shape (3,), float64.
    """

    tick: int
    position: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]


class World:
    """Arrays over a block of memory of ``World.size(capacity)`` bytes.

    Attributes:
        capacity: number of slots.
    """

    def __init__(self, memory: bytearray | mmap.mmap, capacity: int) -> None:
        if memoryview(memory).nbytes < self.size(capacity):
            raise ConfigurationError(f"a world of {capacity} slots needs {self.size(capacity)} bytes")
        self.capacity = capacity
        block = np.frombuffer(memory, dtype=np.uint8)
        offset = 0

        def take(words: int) -> npt.NDArray[np.uint8]:
            nonlocal offset
            offset += capacity * words * 8
            return block[offset - capacity * words * 8 : offset]

        self._lock = take(1).view(np.uint64)
        self._tick = take(1).view(np.uint64)
        self._position = take(3).view(np.float64).reshape(capacity, 3)
        self._velocity = take(3).view(np.float64).reshape(capacity, 3)

    @staticmethod
    def size(capacity: int) -> int:
        """Bytes that ``capacity`` slots take."""
        return capacity * (8 + 8 + 24 + 24)

    def write(
        self, slot: int, *, tick: int, position: npt.ArrayLike, velocity: npt.ArrayLike = (0.0, 0.0, 0.0)
    ) -> None:
        """Set the state of one slot; only its writer may."""
        self._lock[slot] += np.uint64(1)
        self._tick[slot] = np.uint64(tick)
        self._position[slot] = position
        self._velocity[slot] = velocity
        self._lock[slot] += np.uint64(1)

    def scatter(
        self,
        slots: npt.NDArray[np.intp],
        *,
        tick: int,
        positions: npt.NDArray[np.float64],
        velocities: npt.NDArray[np.float64],
    ) -> None:
        """Set the states of many slots, shapes (n,), (n, 3) and (n, 3); only their writer may."""
        self._lock[slots] += np.uint64(1)
        self._tick[slots] = np.uint64(tick)
        self._position[slots] = positions
        self._velocity[slots] = velocities
        self._lock[slots] += np.uint64(1)

    def read(self, slot: int) -> WorldState:
        """Consistent state of one slot.

        Raises:
            ConfigurationError: the writer died inside a write.
        """
        for _ in range(_READ_ATTEMPTS):
            before = int(self._lock[slot])
            state = WorldState(
                tick=int(self._tick[slot]),
                position=np.array(self._position[slot], dtype=np.float64),
                velocity=np.array(self._velocity[slot], dtype=np.float64),
            )
            if before % 2 == 0 and int(self._lock[slot]) == before:
                return state
        raise ConfigurationError(f"slot {slot} was left half-written: its simulation died; start it again")

    def gather(
        self, slots: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Ticks, positions and velocities of many slots, for one state datagram.

        A slot that is being written is gathered again until none is, so that one call costs one pass
        over the arrays in the usual case.

        Returns:
            Arrays of shape (n,), (n, 3) and (n, 3).
        """
        for _ in range(_READ_ATTEMPTS):
            before = self._lock[slots].copy()
            ticks, positions, velocities = self._tick[slots], self._position[slots], self._velocity[slots]
            if not (before % 2).any() and np.array_equal(before, self._lock[slots]):
                return (
                    ticks.astype(np.uint64),
                    positions.astype(np.float64),
                    velocities.astype(np.float64),
                )
        raise ConfigurationError("a slot was left half-written: its simulation died; start it again")

"""World state shared by the simulation and the process that sends it.

One block of memory, structure of arrays, a fixed number of slots. Each slot has one writer at a time: the
simulation for what it holds, the data plane for what others hold. A slot is guarded by a sequence lock: odd
while it is written, so a reader that saw an odd or a changed number reads again. A mutex between two
processes was rejected: the simulation loop must never wait (R4-9).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field, fields
from enum import IntFlag
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError

Floats = npt.NDArray[np.float64]

NO_ROTATION: Final = (0.0, 0.0, 0.0, 1.0)
"""the identity; a rotation of four zeros, as in memory never written, means the same"""
_STILL: Final = (0.0, 0.0, 0.0)

_WORDS: Final = 1 + 1 + 3 + 4 + 3 + 3 + 1
"""of 8 bytes a slot: lock, tick, position, rotation, velocity, angular velocity, flags"""
_READ_ATTEMPTS: Final = 50_000
"""Half a second and more: a writer may stand still inside a write for as long as others have its core. A slot
still odd after this many looks has a dead writer."""


class EntityFlag(IntFlag):
    """What a state says of its entity beside where it is."""

    AT_REST = 1
    """Nothing moves it: it stays as it is until told otherwise."""
    GHOST = 2
    """In hand-off: its sender shows it, and no longer or not yet acts for it."""
    TELEPORT = 4
    """Changes each time the entity is put somewhere: do not interpolate between, or predict by, two states
    that differ in it. One that is set for a single state could be lost with it."""


def _identity() -> Floats:
    return np.array(NO_ROTATION)


def _zero() -> Floats:
    return np.zeros(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldState:
    """State of one entity.

    Attributes:
        tick: simulation tick, unsigned, 32 bits.
        position: metres, shape (3,), float64.
        velocity: metres per second, shape (3,), float64.
        rotation: unit quaternion x, y, z, w, shape (4,), float64.
        angular_velocity: radians per second, shape (3,), float64.
        flags: of ``EntityFlag``.
    """

    tick: int
    position: Floats
    velocity: Floats
    rotation: Floats = field(default_factory=_identity)
    angular_velocity: Floats = field(default_factory=_zero)
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """States of n entities, structure of arrays; units as in ``WorldState``.

    Attributes:
        ticks: shape (n,), uint64.
        positions: shape (n, 3).
        rotations: shape (n, 4).
        velocities: shape (n, 3).
        angular_velocities: shape (n, 3).
        flags: shape (n,), uint8.
    """

    ticks: npt.NDArray[np.uint64]
    positions: Floats
    rotations: Floats
    velocities: Floats
    angular_velocities: Floats
    flags: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ticks)

    def __getitem__(self, index: int) -> WorldState:
        return WorldState(
            tick=int(self.ticks[index]),
            position=self.positions[index],
            rotation=self.rotations[index],
            velocity=self.velocities[index],
            angular_velocity=self.angular_velocities[index],
            flags=int(self.flags[index]),
        )

    def select(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> States:
        """Those at the indices, or where the mask is true."""
        return States(
            ticks=self.ticks[which],
            positions=self.positions[which],
            rotations=self.rotations[which],
            velocities=self.velocities[which],
            angular_velocities=self.angular_velocities[which],
            flags=self.flags[which],
        )

    @classmethod
    def of(cls, state: WorldState) -> States:
        """One state as arrays of length 1."""
        return cls(
            ticks=np.array([state.tick], dtype=np.uint64),
            positions=state.position[None, :],
            rotations=state.rotation[None, :],
            velocities=state.velocity[None, :],
            angular_velocities=state.angular_velocity[None, :],
            flags=np.array([state.flags], dtype=np.uint8),
        )


_COLUMNS: Final = tuple(column.name for column in fields(States))


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
        self._rotation = take(4).view(np.float64).reshape(capacity, 4)
        self._velocity = take(3).view(np.float64).reshape(capacity, 3)
        self._angular_velocity = take(3).view(np.float64).reshape(capacity, 3)
        self._flags = take(1).view(np.uint64)

    @staticmethod
    def size(capacity: int) -> int:
        """Bytes that ``capacity`` slots take."""
        return capacity * _WORDS * 8

    def write(
        self,
        slot: int,
        *,
        tick: int,
        position: npt.ArrayLike,
        rotation: npt.ArrayLike = NO_ROTATION,
        velocity: npt.ArrayLike = _STILL,
        angular_velocity: npt.ArrayLike = _STILL,
        flags: int = 0,
    ) -> None:
        """Set the state of one slot; only its writer may."""
        self._lock[slot] += np.uint64(1)
        self._tick[slot] = np.uint64(tick)
        self._position[slot] = position
        self._rotation[slot] = rotation
        self._velocity[slot] = velocity
        self._angular_velocity[slot] = angular_velocity
        self._flags[slot] = np.uint64(flags)
        self._lock[slot] += np.uint64(1)

    def scatter(
        self,
        slots: npt.NDArray[np.intp],
        *,
        ticks: npt.ArrayLike,
        positions: npt.ArrayLike,
        rotations: npt.ArrayLike = NO_ROTATION,
        velocities: npt.ArrayLike = _STILL,
        angular_velocities: npt.ArrayLike = _STILL,
        flags: npt.ArrayLike = 0,
    ) -> None:
        """Set the states of many slots, shapes as in ``States`` or one for all; only their writer may.

        Of a slot named twice the last state counts.
        """
        where = self._neighbours(slots)
        self._lock[where] += np.uint64(1)
        self._tick[where] = ticks
        self._position[where] = positions
        self._rotation[where] = rotations
        self._velocity[where] = velocities
        self._angular_velocity[where] = angular_velocities
        self._flags[where] = flags
        self._lock[where] += np.uint64(1)

    def _neighbours(self, slots: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
        """The slots as a slice if they follow each other, as those of a simulation may: it costs a tenth."""
        if len(slots):
            first, last = int(slots[0]), int(slots[-1])
            is_run = first >= 0 and last < self.capacity and last - first == len(slots) - 1
            if is_run and (slots[1:] - slots[:-1] == 1).all():
                return slice(first, last + 1)
        return slots

    def store(self, slots: npt.NDArray[np.intp], states: States) -> None:
        """``scatter`` of whole states."""
        self.scatter(
            slots,
            ticks=states.ticks,
            positions=states.positions,
            rotations=states.rotations,
            velocities=states.velocities,
            angular_velocities=states.angular_velocities,
            flags=states.flags,
        )

    def read(self, slot: int) -> WorldState:
        """Consistent state of one slot.

        Raises:
            ConfigurationError: the writer died inside a write.
        """
        return self.gather(np.array([slot]))[0]

    def gather(self, slots: npt.NDArray[np.intp]) -> States:
        """Consistent states of n slots, each by itself.

        What was being written is looked at again until it is whole, so that one call costs one pass over the
        arrays in the usual case.

        Raises:
            ConfigurationError: the writer died inside a write.
        """
        states, torn = self._look(slots)
        for _ in range(_READ_ATTEMPTS):
            if not len(torn):
                return states
            again, still = self._look(slots[torn])
            for name in _COLUMNS:
                getattr(states, name)[torn] = getattr(again, name)
            torn = torn[still]
        raise ConfigurationError("a slot was left half-written: its simulation died; start it again")

    def _look(self, slots: npt.NDArray[np.intp]) -> tuple[States, npt.NDArray[np.intp]]:
        """States as they are, and which of them were being written."""
        before = self._lock.take(slots)
        states = States(
            ticks=self._tick.take(slots),
            positions=self._position.take(slots, axis=0),
            rotations=self._rotation.take(slots, axis=0),
            velocities=self._velocity.take(slots, axis=0),
            angular_velocities=self._angular_velocity.take(slots, axis=0),
            flags=self._flags.take(slots).astype(np.uint8),
        )
        return states, np.flatnonzero((before % 2 == 1) | (before != self._lock.take(slots)))

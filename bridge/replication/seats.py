"""States rounded for players' links, in the seats of groups.

A *group* is a cell of the world, or any set of entities that are sent together; it has a fixed number of
seats, each empty or taken by one bound handle. What is kept of a seat is one row of whole numbers, so that
two snapshots compare, and subtract, as arrays. Coarser than records: a player looks, a server simulates.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication.bits import Ints
from bridge.replication.quantise import (
    COMPACT_ROTATION_BITS,
    pack_rotations,
    split_rotations,
    steps,
    unpack_rotations,
)
from bridge.replication.world import EntityFlag, States

GROUP_SEATS: Final = 128
MAX_GROUPS: Final = 65_536

SEEN_POSITION_STEP: Final = 0.002
"""metres"""
SEEN_VELOCITY_STEP: Final = 1 / 32
"""metres per second"""
SEEN_ANGULAR_VELOCITY_STEP: Final = 1 / 16
"""radians per second"""
SEEN_ROTATION_BITS: Final = COMPACT_ROTATION_BITS

OCCUPANT, FLAGS, LARGEST = 0, 1, 2
ROTATION, POSITION, VELOCITY, SPIN = slice(3, 6), slice(6, 9), slice(9, 12), slice(12, 15)
COLUMNS: Final = 15
"""of a row: handle and low epoch, flags, index of the largest component of the rotation, the other three,
position, velocity and angular velocity in steps"""
NOBODY: Final = -1
"""flags of an empty seat, whose other columns are zero"""

Rows = npt.NDArray[np.int32]


def empty_rows(count: int) -> Rows:
    """Rows of empty seats."""
    rows = np.zeros((count, COLUMNS), dtype=np.int32)
    rows[:, FLAGS] = NOBODY
    return rows


def rows_of(handles: npt.ArrayLike, epochs: npt.ArrayLike, states: States) -> Rows:
    """Round states to rows, shape (n, 15); what is at rest has no velocity.

    Args:
        handles: shape (n,), 0 … 65535.
        epochs: shape (n,), full epochs; a row keeps the low 16 bits.
    """
    rows = np.empty((len(states), COLUMNS), dtype=np.int32)
    low = np.asarray(epochs, dtype=np.uint64) & np.uint64(0xFFFF)
    occupants = np.asarray(handles, dtype=np.uint32) << np.uint32(16) | low.astype(np.uint32)
    rows[:, OCCUPANT] = occupants.view(np.int32)
    rows[:, FLAGS] = states.flags & np.uint8(EntityFlag.AT_REST | EntityFlag.GHOST | EntityFlag.TELEPORT)
    packed = pack_rotations(states.rotations, SEEN_ROTATION_BITS)
    largest, others = split_rotations(packed, SEEN_ROTATION_BITS)
    rows[:, LARGEST], rows[:, ROTATION] = largest, others.T
    rows[:, POSITION] = steps(states.positions, SEEN_POSITION_STEP, 32)
    rows[:, VELOCITY] = steps(states.velocities, SEEN_VELOCITY_STEP, 16)
    rows[:, SPIN] = steps(states.angular_velocities, SEEN_ANGULAR_VELOCITY_STEP, 16)
    rows[states.flags & np.uint8(EntityFlag.AT_REST) != 0, VELOCITY.start :] = 0
    return rows


def handles_of(rows: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint16]]:
    """Handles and low epochs of taken seats."""
    occupants = rows[:, OCCUPANT].view(np.uint32)
    return (occupants >> np.uint32(16)).astype(np.intp), occupants.astype(np.uint16)


def seen_states(rows: Rows, tick: int) -> States:
    """States of taken seats."""
    return States(
        ticks=np.full(len(rows), tick, dtype=np.uint64),
        positions=rows[:, POSITION].astype(np.float64) * SEEN_POSITION_STEP,
        rotations=unpack_rotations(packed_rotations(rows), SEEN_ROTATION_BITS),
        velocities=rows[:, VELOCITY].astype(np.float64) * SEEN_VELOCITY_STEP,
        angular_velocities=rows[:, SPIN].astype(np.float64) * SEEN_ANGULAR_VELOCITY_STEP,
        flags=rows[:, FLAGS].astype(np.uint8),
    )


def packed_rotations(rows: Rows | Ints) -> npt.NDArray[np.uint64]:
    """Rotations of rows, as ``pack_rotations`` packs them."""
    limit = (1 << (SEEN_ROTATION_BITS - 1)) - 1
    whole = rows[:, ROTATION].astype(np.int64) + limit
    word = rows[:, LARGEST].astype(np.int64)
    for column in range(3):
        word = word << SEEN_ROTATION_BITS | whole[:, column]
    return word.astype(np.uint64)

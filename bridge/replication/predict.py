"""Where an entity of an older snapshot is expected now: the same numbers on both sides, to the last bit.

Only additions, multiplications, divisions and square roots of IEEE 754 doubles, element by element in the
order written: no sine, no fused product, no sum whose order a library may choose.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bridge.replication.bits import Ints
from bridge.replication.quantise import unpack_rotations
from bridge.replication.seats import (
    POSITION,
    SEEN_ANGULAR_VELOCITY_STEP,
    SEEN_POSITION_STEP,
    SEEN_ROTATION_BITS,
    SEEN_VELOCITY_STEP,
    SPIN,
    VELOCITY,
    packed_rotations,
)
from bridge.replication.world import Floats

_WAY: Final = round(16 * SEEN_VELOCITY_STEP / SEEN_POSITION_STEP)
"""sixteenths of a step of position that an entity goes in a second at one step of velocity"""
_LIMIT: Final = (1 << (SEEN_ROTATION_BITS - 1)) - 1


def predicted_positions(base: Ints, velocities: Ints, ages: Ints, rate: int) -> Ints:
    """Base rows moved on by the mean of their velocity and the one now, shape (n, 3), in steps.

    Args:
        base: rows, shape (n, 15).
        velocities: now, in steps, shape (n, 3).
        ages: ticks between, shape (n,).
        rate: ticks a second.
    """
    way = (base[:, VELOCITY] + velocities) * (ages * _WAY)[:, None]
    moved: Ints = base[:, POSITION] + (way + 16 * rate) // (32 * rate)
    return moved


def predicted_rotations(base: Ints, spins: Ints, ages: Ints, rate: int) -> Floats:
    """Base rows turned on by the mean of their angular velocity and the one now, quaternions of shape (n, 4).

    The half angle's tangent is taken as ``x + x³/3``: exact to a step of rounding up to about one radian.
    """
    x, y, z, w = unpack_rotations(packed_rotations(base), SEEN_ROTATION_BITS).T
    half = (base[:, SPIN] + spins) * (ages[:, None] * (SEEN_ANGULAR_VELOCITY_STEP / 4.0 / rate))
    a, b, c = half.T
    stretch = 1.0 + (a * a + b * b + c * c) / 3.0
    a, b, c = a * stretch, b * stretch, c * stretch
    turned = np.stack(
        (
            x + (a * w + b * z - c * y),
            y + (b * w + c * x - a * z),
            z + (c * w + a * y - b * x),
            w - (a * x + b * y + c * z),
        ),
        axis=1,
    )
    lengths = np.sqrt(
        turned[:, 0] * turned[:, 0]
        + turned[:, 1] * turned[:, 1]
        + turned[:, 2] * turned[:, 2]
        + turned[:, 3] * turned[:, 3]
    )
    unit: Floats = turned / lengths[:, None]
    return unit


def without(rotations: Floats, left_out: Ints) -> Ints:
    """Three components in steps, shape (n, 3): all but the one at the index, which is made positive."""
    each = np.arange(len(rotations))
    signs = np.where(rotations[each, left_out] < 0, -1.0, 1.0)
    others = np.arange(3) + (np.arange(3) >= left_out[:, None])
    components = rotations[each[:, None], others] * signs[:, None]
    whole: Ints = np.rint(components * (np.sqrt(2.0) * _LIMIT)).astype(np.int64)
    return whole


def largest_of(rotations: Floats) -> Ints:
    """Index of the component of largest magnitude, the first of equals."""
    largest: Ints = np.abs(rotations).argmax(axis=1)
    return largest


def standing(base: Ints) -> Floats:
    """Rotations of rows as they are, quaternions of shape (n, 4)."""
    return unpack_rotations(packed_rotations(base), SEEN_ROTATION_BITS)

"""Rounding of states to steps, and back. Both ends of a hand-over simulate from the rounded state.

A rotation is sent as *smallest three*: a quaternion and its negative are one rotation, so the component of
largest magnitude is made positive and left out; the others lie within ±1/√2.
Source: G. Fiedler, "Snapshot Compression", 2015, section "Optimizing Orientation".
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication.world import Floats

POSITION_STEP: Final = 0.001
"""metres; ± 2,147 km in 32 bits"""
VELOCITY_STEP: Final = 0.01
"""metres per second; ± 327 m/s in 16 bits"""
ANGULAR_VELOCITY_STEP: Final = 1 / 512
"""radians per second; ± 64 rad/s in 16 bits"""
FULL_ROTATION_BITS: Final = 14
"""a component; an error below 0.02 degrees"""
COMPACT_ROTATION_BITS: Final = 9
"""a component; an error below 0.6 degrees"""

_UNIT_TOLERANCE: Final = 1e-6
"""A squared length this close to 1 is taken as 1. What was rounded once is closer, hence never rescaled."""

_OTHERS: Final = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])

Packed = npt.NDArray[np.uint64]


def steps(values: Floats, step: float, bits: int) -> npt.NDArray[np.int64]:
    """Values in whole steps of so many signed bits.

    What is beyond saturates and what is no number is zero: a position that a simulation has driven to
    infinity must not become a wrapped, plausible one.
    """
    limit = float(1 << (bits - 1))
    rounded = np.clip(np.rint(values * (1.0 / step)), -limit, limit - 1.0)
    # The test is one pass over a small array; nan_to_num would be four over the large one.
    if np.isnan(rounded.sum()):
        rounded = np.nan_to_num(rounded, nan=0.0)
    return rounded.astype(np.int64)


def pack_rotations(rotations: Floats, bits: int) -> Packed:
    """Quaternions, shape (n, 4), as ``index of the largest (2 bits) · three components (bits each)``.

    A component is ``round(c * √2 * limit) + limit`` with ``limit = 2**(bits-1) - 1``, so that zero is exact
    and all bits set never occurs. Lengths are normalised; what has none (or no numbers) is the identity.
    """
    count = len(rotations)
    squares = np.einsum("ij,ij->i", rotations, rotations)
    if not (np.abs(squares - 1.0) <= _UNIT_TOLERANCE).all():
        rotations = _normalised(rotations, squares)
    base = np.arange(0, 4 * count, 4)
    flat = np.ascontiguousarray(rotations).reshape(-1)
    largest = np.abs(rotations).argmax(axis=1)
    limit = (1 << (bits - 1)) - 1
    scale = np.copysign(np.sqrt(2.0) * limit, flat.take(base + largest))
    others = flat.take(base[:, None] + _OTHERS.take(largest, axis=0)) * scale[:, None]
    rounded = np.clip(np.rint(others), -limit, limit)
    _leave_room_for_the_largest(rounded, limit)
    whole = (rounded + limit).astype(np.uint64)
    word: Packed = largest.astype(np.uint64)
    for column in range(3):
        word = word << np.uint64(bits) | whole[:, column]
    return word


def _leave_room_for_the_largest(rounded: Floats, limit: int) -> None:
    """Make components smaller, in place, until the one left out is as large as each of them.

    Rounding may have made several of nearly equal size so large that none of that size is left. Then the
    rotation read from them would be another one, and round differently again.
    """
    squares = rounded * rounded
    crowded = np.flatnonzero(2.0 * limit * limit - squares.sum(axis=1) < squares.max(axis=1))
    while len(crowded):
        rows = rounded[crowded]
        most = np.abs(rows).argmax(axis=1)
        rows[np.arange(len(rows)), most] -= np.sign(rows[np.arange(len(rows)), most])
        rounded[crowded] = rows
        squares = rows * rows
        crowded = crowded[2.0 * limit * limit - squares.sum(axis=1) < squares.max(axis=1)]


def _normalised(rotations: Floats, squares: Floats) -> Floats:
    usable = np.isfinite(squares) & (squares > 0)
    close = np.abs(squares - 1.0) <= _UNIT_TOLERANCE
    lengths = np.sqrt(np.where(usable & ~close, squares, 1.0))
    scaled: Floats = np.where(usable[:, None], rotations, (0.0, 0.0, 0.0, 1.0)) / lengths[:, None]
    return scaled


def split_rotations(packed: Packed, bits: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Index of the largest component, shape (n,), and the others in steps, signed, shape (3, n)."""
    mask = np.uint64((1 << bits) - 1)
    shifts = np.array([[2 * bits], [bits], [0]], dtype=np.uint64)
    whole = (packed >> shifts & mask).astype(np.int64)
    return (packed >> np.uint64(3 * bits)).astype(np.intp), whole - ((1 << (bits - 1)) - 1)


def unpack_rotations(packed: Packed, bits: int) -> Floats:
    """Inverse of ``pack_rotations``: shape (n, 4).

    Where others are as large as the one left out, that is made a little larger than they are, so that
    packing the result gives the word of ``pack_rotations`` again. Words that it never makes are read as well.
    """
    largest, whole = split_rotations(packed, bits)
    a, b, c = whole * (1.0 / (np.sqrt(2.0) * ((1 << (bits - 1)) - 1)))
    missing = np.sqrt(np.maximum(0.0, 1.0 - (a * a + b * b + c * c)))
    most = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(c))
    missing = np.maximum(missing, most * (1.0 + 2.0**-40))
    # Each component is one of two others or the one left out; an indexed store takes twice the time.
    rotations = np.empty((len(packed), 4))
    rotations[:, 0] = np.where(largest == 0, missing, a)
    rotations[:, 1] = np.where(largest == 1, missing, np.where(largest == 0, a, b))
    rotations[:, 2] = np.where(largest == 2, missing, np.where(largest == 3, c, b))
    rotations[:, 3] = np.where(largest == 3, missing, c)
    return rotations


def impossible_rotations(packed: Packed, bits: int) -> npt.NDArray[np.bool_]:
    """Where a component has all its bits set, which no sender of this layout makes."""
    mask = (1 << bits) - 1
    found = np.zeros(packed.shape, dtype=bool)
    for shift in (0, bits, 2 * bits):
        field = np.uint64(mask << shift)
        found |= packed & field == field
    return found

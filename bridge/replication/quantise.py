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

_OTHERS: Final = np.array([[1, 0, 0, 0], [2, 2, 1, 1], [3, 3, 3, 2]])
"""Of each index of the largest component, a column: the three others."""
_SOURCES: Final = np.array([[3, 0, 1, 2], [0, 3, 1, 2], [0, 1, 3, 2], [0, 1, 2, 3]])
"""Inverse, a row for each: where the components are among those three and the largest, which comes last."""

Packed = npt.NDArray[np.uint64]


def steps(values: Floats, step: float, bits: int) -> npt.NDArray[np.int64]:
    """Values in whole steps of so many signed bits.

    What is beyond saturates and what is no number is zero: a position that a simulation has driven to
    infinity must not become a wrapped, plausible one.
    """
    limit = float(1 << (bits - 1))
    # What overflows saturates like infinity: no reason for a warning, which some programs turn into an error.
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values * (1.0 / step)
    np.rint(rounded, out=rounded)
    np.clip(rounded, -limit, limit - 1.0, out=rounded)
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
    x, y, z, w = columns = np.ascontiguousarray(rotations.T, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = x * x + y * y + z * z + w * w
    if not (np.abs(squares - 1.0) <= _UNIT_TOLERANCE).all():
        columns = np.ascontiguousarray(_normalised(rotations, squares).T)
    largest = _largest(columns)
    # Picked from one flat array: a choice by conditions takes five times as long.
    flat, base = columns.reshape(-1), np.arange(count)
    limit = (1 << (bits - 1)) - 1
    scale = np.copysign(np.sqrt(2.0) * limit, flat.take(largest * count + base))
    rounded = flat.take((_OTHERS * count).take(largest, axis=1) + base)
    rounded *= scale
    np.rint(rounded, out=rounded)
    np.clip(rounded, -limit, limit, out=rounded)
    _leave_room_for_the_largest(rounded, limit)
    rounded += limit
    whole = rounded.astype(np.int64).view(np.uint64)
    word: Packed = largest.astype(np.uint64)
    for component in whole:
        word <<= np.uint64(bits)
        word |= component
    return word


def _largest(columns: Floats) -> npt.NDArray[np.intp]:
    """Of columns of quaternions, shape (4, n), the component of largest magnitude, the first of several."""
    a, b, c, d = np.abs(columns)
    one, three = b > a, d > c
    two = np.maximum(c, d) > np.maximum(a, b)
    largest: npt.NDArray[np.intp] = (two.view(np.uint8) << 1 | (three & two | one & ~two)).astype(np.intp)
    return largest


def _leave_room_for_the_largest(rounded: Floats, limit: int) -> None:
    """Make components, shape (3, n), smaller in place until the one left out is as large as each of them.

    Rounding may have made several of nearly equal size so large that none of that size is left. Then the
    rotation read from them would be another one, and round differently again.
    """
    crowded = _crowded(rounded, limit)
    while len(crowded):
        columns = rounded[:, crowded]
        at = (np.abs(columns).argmax(axis=0), np.arange(len(crowded)))
        columns[at] -= np.sign(columns[at])
        rounded[:, crowded] = columns
        crowded = crowded[_crowded(columns, limit)]


def _crowded(rounded: Floats, limit: int) -> npt.NDArray[np.intp]:
    a, b, c = rounded * rounded
    return np.flatnonzero(2.0 * limit * limit - (a + b + c) < np.maximum(np.maximum(a, b), c))


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
    count = len(packed)
    known = np.empty((4, count))
    np.multiply(whole, 1.0 / (np.sqrt(2.0) * ((1 << (bits - 1)) - 1)), out=known[:3])
    a, b, c, missing = known
    np.sqrt(np.maximum(0.0, 1.0 - (a * a + b * b + c * c)), out=missing)
    most = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(c))
    np.maximum(missing, most * (1.0 + 2.0**-40), out=missing)
    at = (_SOURCES * count).take(largest, axis=0)
    at += np.arange(count)[:, None]
    return known.reshape(-1).take(at)


def impossible_rotations(packed: Packed, bits: int) -> npt.NDArray[np.bool_]:
    """Where a component has all its bits set, which no sender of this layout makes."""
    mask = (1 << bits) - 1
    found = np.zeros(packed.shape, dtype=bool)
    for shift in (0, bits, 2 * bits):
        field = np.uint64(mask << shift)
        found |= packed & field == field
    return found

"""State payloads of fixed-size records: a header, then so many records of one layout and one tick.

Layouts in ``docs/protocol.md`` §6. Arrays all the way: entities are rounded once a tick into an array of
records, and the payloads for any number of peers are one gather from it, each a row of one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError, DecodeError
from bridge.replication.quantise import (
    ANGULAR_VELOCITY_STEP,
    COMPACT_ROTATION_BITS,
    FULL_ROTATION_BITS,
    POSITION_STEP,
    VELOCITY_STEP,
    Packed,
    impossible_rotations,
    pack_rotations,
    steps,
    unpack_rotations,
)
from bridge.replication.world import EntityFlag, States

LAYOUT_VERSION: Final = 2
MAX_PAYLOAD_BYTES: Final = 1_152
"""bytes of a STATE frame's payload; signed sessions have less"""
DIGEST_BYTES: Final = 16
MAX_AGE: Final = 0xFFFF
"""ticks that a full record may be older than its payload"""


class Layout(IntEnum):
    """Second byte of a payload, without ``DIGEST_FLAG``."""

    COMPACT = 1
    FULL = 2
    DELTA = 3


DIGEST_FLAG: Final = 0x80
"""set where the digest of the bindings follows the header"""

COMPACT: Final = np.dtype([("handle", ">u2"), ("epoch", ">u2"), ("position", ">i4", (3,)), ("word", ">u4")])
"""20 bytes: where an entity is and how it lies. The word holds 3 flags above 29 bits of rotation."""

FULL: Final = np.dtype(
    [
        ("handle", ">u2"),
        ("epoch", ">u2"),
        ("position", ">i4", (3,)),
        ("word", ">u8"),
        ("velocity", ">i2", (3,)),
        ("angular_velocity", ">i2", (3,)),
    ]
)
"""36 bytes: everything a simulation needs to go on. The word holds flags (4 bits, the highest zero), rotation
(44 bits) and age (16 bits: how many ticks before the payload's)."""

_LAYOUTS: Final = {Layout.COMPACT: COMPACT, Layout.FULL: FULL}
_KINDS: Final = {layout.itemsize: kind for kind, layout in _LAYOUTS.items()}
_HEADER: Final = np.dtype([("version", "u1"), ("kind", "u1"), ("count", ">u2"), ("tick", ">u4")])
HEADER_BYTES: Final = _HEADER.itemsize

_FLAGS: Final = np.uint64(EntityFlag.AT_REST | EntityFlag.GHOST | EntityFlag.TELEPORT)
_AGE_BITS: Final = np.uint64(16)
_COMPACT_BITS: Final = np.uint64(2 + 3 * COMPACT_ROTATION_BITS)
_COMPACT_MASK: Final = np.uint64((1 << 29) - 1)
_FULL_BITS: Final = np.uint64(2 + 3 * FULL_ROTATION_BITS)
_FULL_MASK: Final = np.uint64((1 << 44) - 1)

Records = npt.NDArray[np.void]
Payloads = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """Payloads of one layout and one count.

    Attributes:
        layout: ``Layout.COMPACT`` or ``Layout.FULL``.
        rows: shape (k,), which of the payloads given these are.
        ticks: shape (k,), of the payloads, 32 bits.
        records: shape (k, count).
        digests: shape (k, 16), or ``None`` where the payloads carry none.
    """

    layout: Layout
    rows: npt.NDArray[np.intp]
    ticks: npt.NDArray[np.uint64]
    records: Records
    digests: Payloads | None

    def select(self, which: npt.NDArray[np.bool_]) -> Decoded:
        """Those payloads alone, by a mask of shape (k,)."""
        digests = None if self.digests is None else self.digests[which]
        return Decoded(self.layout, self.rows[which], self.ticks[which], self.records[which], digests)

    def states(self) -> States:
        """States of all records, shape (k * count,), payload after payload."""
        ticks = np.repeat(self.ticks, self.records.shape[1])
        return states_of(self.records.reshape(-1), ticks)


def compact_records(handles: npt.ArrayLike, epochs: npt.ArrayLike, states: States) -> Records:
    """Records of 20 bytes, shape (n,); the tick is the payload's, velocities are left out.

    Args:
        handles: shape (n,), 0 … 65535, agreed by ``bind``.
        epochs: shape (n,), full epochs; a record keeps the low 16 bits.
        states: beyond the range of a field they saturate; no numbers become zero.
    """
    records = _begin(COMPACT, handles, epochs, states)
    rotation = pack_rotations(states.rotations, COMPACT_ROTATION_BITS)
    records["word"] = _known(states) << _COMPACT_BITS | rotation
    return records


def full_records(
    handles: npt.ArrayLike, epochs: npt.ArrayLike, states: States, *, tick: int | None = None
) -> Records:
    """Records of 36 bytes, shape (n,), for payloads of ``tick``; arguments as of ``compact_records``.

    Args:
        tick: of the payloads, not older than any state and at most ``MAX_AGE`` newer (``ticks_of`` tells);
            ``None`` where all states have the payload's tick.
    """
    records = _begin(FULL, handles, epochs, states)
    ages = np.uint64(0) if tick is None else (np.uint64(tick) - states.ticks) & np.uint64(0xFFFFFFFF)
    if np.max(ages, initial=0) > MAX_AGE:
        raise ValueError(f"a state is not within {MAX_AGE} ticks before tick {tick}")
    rotation = pack_rotations(states.rotations, FULL_ROTATION_BITS)
    records["word"] = (_known(states) << _FULL_BITS | rotation) << _AGE_BITS | ages
    records["velocity"] = steps(states.velocities, VELOCITY_STEP, 16)
    records["angular_velocity"] = steps(states.angular_velocities, ANGULAR_VELOCITY_STEP, 16)
    return records


def _begin(
    layout: np.dtype[np.void], handles: npt.ArrayLike, epochs: npt.ArrayLike, states: States
) -> Records:
    records = np.empty(len(states), dtype=layout)
    records["handle"] = handles
    records["epoch"] = np.asarray(epochs, dtype=np.uint64) & np.uint64(0xFFFF)
    # In 32 bits first: numpy narrows and turns bytes in two passes over memory, and slowly in one.
    records["position"] = steps(states.positions, POSITION_STEP, 32).astype(np.int32)
    return records


def _known(states: States) -> Packed:
    return states.flags.astype(np.uint64) & _FLAGS


def states_of(records: Records, ticks: npt.NDArray[np.uint64]) -> States:
    """States of records, shape (n,), that came in payloads of ``ticks``; what a layout leaves out is zero."""
    word = records["word"].astype(np.uint64)
    positions = records["position"].astype(np.float64)
    positions *= POSITION_STEP
    if records.dtype == COMPACT:
        return States(
            ticks=ticks,
            positions=positions,
            rotations=unpack_rotations(word & _COMPACT_MASK, COMPACT_ROTATION_BITS),
            velocities=np.zeros((len(records), 3)),
            angular_velocities=np.zeros((len(records), 3)),
            flags=(word >> _COMPACT_BITS).astype(np.uint8),
        )
    return States(
        ticks=ticks - (word & np.uint64(MAX_AGE)) & np.uint64(0xFFFFFFFF),
        positions=positions,
        rotations=unpack_rotations(word >> _AGE_BITS & _FULL_MASK, FULL_ROTATION_BITS),
        velocities=records["velocity"] * VELOCITY_STEP,
        angular_velocities=records["angular_velocity"] * ANGULAR_VELOCITY_STEP,
        flags=(word >> _FULL_BITS + _AGE_BITS).astype(np.uint8),
    )


def ticks_of(states: States) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Groups of states that full payloads of one tick can carry: the tick, and the indices, shape (n,).

    Nearly always one group: the slots of one simulation have one clock. What was taken over and has not
    moved since has its giver's.
    """
    if not len(states):
        return
    newest = int(states.ticks[0])
    ahead = (states.ticks - np.uint64(newest) + np.uint64(1 << 31)) & np.uint64(0xFFFFFFFF)
    newest = newest + int(ahead.max()) - (1 << 31) & 0xFFFFFFFF
    behind = ((np.uint64(newest) - states.ticks) & np.uint64(0xFFFFFFFF)) // np.uint64(MAX_AGE + 1)
    for group in np.unique(behind).tolist():
        yield newest - group * (MAX_AGE + 1) & 0xFFFFFFFF, np.flatnonzero(behind == group)


def records_per_payload(
    layout: np.dtype[np.void], *, room: int = MAX_PAYLOAD_BYTES, digest: bool = False
) -> int:
    """How many records fit ``room`` bytes.

    Raises:
        ConfigurationError: not even one.
    """
    taken = HEADER_BYTES + DIGEST_BYTES * digest
    if room < taken + layout.itemsize:
        raise ConfigurationError(f"{room} bytes of room hold no record: {taken + layout.itemsize} at least")
    return (room - taken) // layout.itemsize


def encode_payloads(records: Records, *, tick: int, digests: Payloads | None = None) -> Payloads:
    """Payloads of equal size as one matrix, each row whole in itself.

    Args:
        records: shape (k, count): what each payload carries, such as ``all_records.take(picks)``.
        tick: of every payload, modulo 2**32.
        digests: shape (k, 16), of the bindings of each payload's records, for signed sessions.

    Returns:
        Shape (k, size).
    """
    count, per = records.shape
    start = HEADER_BYTES + (0 if digests is None else DIGEST_BYTES)
    payloads = np.empty((count, start + per * records.dtype.itemsize), dtype=np.uint8)
    header = np.empty(1, dtype=_HEADER)
    kind = _KINDS[records.dtype.itemsize] | (0 if digests is None else DIGEST_FLAG)
    header["version"], header["kind"], header["count"], header["tick"] = (
        LAYOUT_VERSION,
        kind,
        per,
        tick & 0xFFFFFFFF,
    )
    payloads[:, :HEADER_BYTES] = header.view(np.uint8)
    if digests is not None:
        payloads[:, HEADER_BYTES:start] = digests
    payloads[:, start:] = np.ascontiguousarray(records).view(np.uint8).reshape(count, -1)
    return payloads


def encode_records(
    records: Records,
    *,
    tick: int,
    room: int = MAX_PAYLOAD_BYTES,
    digests: Callable[[Records], Payloads] | None = None,
) -> list[Payloads]:
    """Payloads of records, shape (n,), in their order: a matrix of full ones, and one of the rest.

    Args:
        digests: ``Bindings.digests``, for signed sessions.
    """
    per = records_per_payload(records.dtype, room=room, digest=digests is not None)
    whole = len(records) // per * per
    parts = (records[:whole].reshape(-1, per), records[whole:].reshape(1, -1))
    return [
        encode_payloads(part, tick=tick, digests=None if digests is None else digests(part))
        for part in parts
        if part.size
    ]


def decode_payloads_untrusted(payloads: Payloads) -> tuple[list[Decoded], int]:
    """Records of many payloads of one size.

    Args:
        payloads: shape (n, size), as a receiver got them.

    Returns:
        What decodes, one element for each layout found, and how many payloads do not.
    """
    count, size = payloads.shape
    if size < HEADER_BYTES:
        return [], count
    header = np.ascontiguousarray(payloads[:, :HEADER_BYTES]).view(_HEADER).reshape(-1)
    found: list[Decoded] = []
    for kind in np.unique(header["kind"]).tolist():
        layout = _LAYOUTS.get(kind & ~DIGEST_FLAG)
        if layout is None:
            continue
        start = HEADER_BYTES + (DIGEST_BYTES if kind & DIGEST_FLAG else 0)
        per, rest = divmod(size - start, layout.itemsize)
        if rest or per < 0:
            continue
        good = (header["kind"] == kind) & (header["version"] == LAYOUT_VERSION) & (header["count"] == per)
        rows = np.flatnonzero(good)
        body = np.ascontiguousarray(payloads[rows, start:]).view(layout).reshape(len(rows), per)
        sound = ~_unsound(body).any(axis=1)
        if not sound.all():
            rows, body = rows[sound], body[sound]
        if len(rows):
            ticks = header["tick"][rows].astype(np.uint64)
            digests = payloads[rows, HEADER_BYTES:start] if kind & DIGEST_FLAG else None
            found.append(Decoded(Layout(kind & ~DIGEST_FLAG), rows, ticks, body, digests))
    return found, count - sum(len(decoded.rows) for decoded in found)


def _unsound(records: Records) -> npt.NDArray[np.bool_]:
    word = records["word"].astype(np.uint64)
    if records.dtype == COMPACT:
        return (word >> _COMPACT_BITS > _FLAGS) | impossible_rotations(word, COMPACT_ROTATION_BITS)
    word >>= _AGE_BITS
    return (word >> _FULL_BITS > _FLAGS) | impossible_rotations(word, FULL_ROTATION_BITS)


def decode_records_untrusted(payload: bytes | memoryview | Payloads) -> Decoded:
    """Records of one payload, ``Decoded`` with one row.

    Raises:
        DecodeError: another layout or version, a length that does not fit the count, or a record that no
            sender makes.
    """
    row = np.frombuffer(payload, dtype=np.uint8)
    found, _ = decode_payloads_untrusted(row[None, :])
    if not found:
        raise DecodeError(
            f"{len(row)} bytes beginning {row[:4].tobytes().hex()} are no state records of layout 2"
        )
    return found[0]

"""The state datagram: a header of four bytes and up to 44 quantised records.

Layout in ``docs/protocol.md`` §6. Both ends simulate from the quantised state, so a record that was
encoded, decoded and encoded again is the same bytes, and a hash over it compares two hosts.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import DecodeError
from bridge.replication.world import WorldState

LAYOUT_VERSION: Final = 1

RECORD: Final = np.dtype(
    [
        ("handle", ">u2"),
        ("epoch", ">u2"),
        ("tick", ">u4"),
        ("position", ">i4", (3,)),
        ("velocity", ">i2", (3,)),
    ]
)
"""26 bytes: millimetres in 32 bits (± 2,147 km), centimetres per second in 16 bits (± 327 m/s)."""

MAX_RECORDS: Final = 44
"""records per datagram: 4 + 44 x 26 = 1148 bytes, inside 1200 with every header of the session."""

POSITION_STEP: Final = 0.001
"""metres"""
VELOCITY_STEP: Final = 0.01
"""metres per second"""

_HEADER: Final = struct.Struct(">BBH")

Records = npt.NDArray[np.void]


def quantise(
    handles: npt.ArrayLike,
    epochs: npt.ArrayLike,
    ticks: npt.ArrayLike,
    positions: npt.NDArray[np.float64],
    velocities: npt.NDArray[np.float64],
) -> Records:
    """Round states to records.

    Args:
        handles: shape (n,), 0 … 65535, agreed by ``bind``.
        epochs: shape (n,), full epochs; the record keeps the low 16 bits.
        ticks: shape (n,), kept modulo 2**32.
        positions: shape (n, 3), metres; beyond ± 2,147 km they saturate.
        velocities: shape (n, 3), metres per second; beyond ± 327 m/s they saturate.

    Returns:
        Records of shape (n,). The error is at most half a step in each component.
    """
    records = np.empty(len(positions), dtype=RECORD)
    records["handle"] = handles
    records["epoch"] = np.asarray(epochs, dtype=np.uint64) & np.uint64(0xFFFF)
    records["tick"] = np.asarray(ticks, dtype=np.uint64) & np.uint64(0xFFFFFFFF)
    records["position"] = _steps(positions, POSITION_STEP, 2**31 - 1)
    records["velocity"] = _steps(velocities, VELOCITY_STEP, 2**15 - 1)
    return records


def _steps(values: npt.NDArray[np.float64], step: float, limit: int) -> npt.NDArray[np.float64]:
    # A position that a simulation has driven to infinity must not become a wrapped, plausible one.
    steps: npt.NDArray[np.float64] = np.rint(values / step).clip(-limit - 1, limit)
    return np.nan_to_num(steps, nan=0.0)


def encode_records(records: Records) -> bytes:
    """A state datagram's payload of at most ``MAX_RECORDS`` records."""
    if len(records) > MAX_RECORDS:
        raise ValueError(f"{len(records)} records do not fit one datagram of {MAX_RECORDS}")
    return _HEADER.pack(LAYOUT_VERSION, 0, len(records)) + records.tobytes()


def decode_records_untrusted(payload: bytes) -> Records:
    """Records of a state datagram's payload.

    Raises:
        DecodeError: another layout version, unknown flags, or a length that does not fit the count.
    """
    if len(payload) < _HEADER.size:
        raise DecodeError("a state payload of fewer than 4 bytes")
    version, flags, count = _HEADER.unpack_from(payload)
    if version != LAYOUT_VERSION or flags != 0:
        raise DecodeError(
            f"state layout {version} with flags {flags}; this side reads layout {LAYOUT_VERSION}"
        )
    if count > MAX_RECORDS or len(payload) != _HEADER.size + count * RECORD.itemsize:
        raise DecodeError(f"{len(payload)} bytes do not hold {count} records")
    return np.frombuffer(payload, dtype=RECORD, offset=_HEADER.size)


def dequantise(record: Records) -> WorldState:
    """State of one record (shape ()), for a simulation that takes it over."""
    return WorldState(
        tick=int(record["tick"]),
        position=record["position"].astype(np.float64) * POSITION_STEP,
        velocity=record["velocity"].astype(np.float64) * VELOCITY_STEP,
    )


def encode_state(state: WorldState) -> bytes:
    """The 26 bytes of one state alone, with handle and epoch zero: the last state of a release."""
    return quantise([0], [0], [state.tick], state.position[None, :], state.velocity[None, :]).tobytes()


def decode_state_untrusted(data: bytes) -> WorldState:
    """Inverse of ``encode_state``.

    Raises:
        DecodeError: not 26 bytes, or handle and epoch are not zero.
    """
    if len(data) != RECORD.itemsize:
        raise DecodeError(f"a state takes {RECORD.itemsize} bytes, not {len(data)}")
    record = np.frombuffer(data, dtype=RECORD)[0]
    if record["handle"] != 0 or record["epoch"] != 0:
        raise DecodeError("the last state of a release names no handle and no epoch")
    return dequantise(record)


def state_hash(state: WorldState) -> bytes:
    """SHA-256 of the quantised state: equal on two hosts that hold the same state (R0-27)."""
    return hashlib.sha256(encode_state(state)).digest()

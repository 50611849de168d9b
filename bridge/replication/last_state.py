"""One entity's state alone: what a release carries, and its hash (R0-27)."""

from __future__ import annotations

import hashlib

from bridge.errors import DecodeError
from bridge.replication.records import (
    MAX_AGE,
    Layout,
    Payloads,
    decode_records_untrusted,
    encode_payloads,
    full_records,
)
from bridge.replication.world import States, WorldState


def encode_state(state: WorldState) -> bytes:
    """A payload of 44 bytes: one full record with handle and epoch zero."""
    records = full_records(0, 0, States.of(state))
    return encode_payloads(records[None, :], tick=state.tick).tobytes()


def decode_state_untrusted(data: bytes | memoryview | Payloads) -> WorldState:
    """Inverse of ``encode_state``.

    Raises:
        DecodeError: not one full record without handle, epoch, age and digest, or one that would not
            encode to these bytes again, so that two hosts would not agree on its hash.
    """
    decoded = decode_records_untrusted(data)
    if decoded.layout is not Layout.FULL or decoded.records.shape != (1, 1) or decoded.digests is not None:
        raise DecodeError("the last state of a release is one full record")
    record = decoded.records[0, 0]
    if record["handle"] or record["epoch"] or int(record["word"]) & MAX_AGE:
        raise DecodeError("the last state of a release names no handle, no epoch and no age")
    state = decoded.states()[0]
    if encode_state(state) != bytes(data):
        raise DecodeError("a rotation that is not rounded as the layout says")
    return state


def state_hash(state: WorldState) -> bytes:
    """SHA-256 of the rounded state: equal on two hosts that hold the same state (R0-27)."""
    return hashlib.sha256(encode_state(state)).digest()

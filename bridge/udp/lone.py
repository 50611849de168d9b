"""States that go alone: one full datagram for each of many sessions, with nothing else to send to any.

What a server sends to its players each tick. All that a session has to do by itself is to number, to account
and to write a header (:meth:`bridge.udp.outbound.Outbound.take_lone`); the ciphers of all sessions then run
over one matrix. What goes out is byte for byte what the sessions would have sealed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from bridge.udp.keys import Aead, seal_each
from bridge.udp.peers import Address
from bridge.udp.transmit import Transmit
from bridge.udp.wire import DATA_HEADER, DATA_HEADER_BYTES, PROLOGUE, STATE_HEADER, TAG_BYTES
from bridge.udp.workspace import RUN_ROWS, RunBuffers, Workspace, row_bytes

LONE_HEAD: Final = Struct(
    ">" + "".join(part.format.removeprefix(">") for part in (DATA_HEADER, PROLOGUE, STATE_HEADER))
)
"""Everything of such a datagram before the payload: header, prologue, head of the STATE frame."""
LONE_BYTES: Final = LONE_HEAD.size + TAG_BYTES
"""Bytes of such a datagram beside the payload."""
_FEW: Final = 16
"""Datagrams of one size that are cheaper one by one."""


class Lone(NamedTuple):
    """A datagram whose sequence is used up, to be sealed now.

    Attributes:
        head: :data:`LONE_HEAD`, the first 13 bytes being the header, the rest of the plaintext.
        payload: the rest of the plaintext.
        sequence: as in the header.
    """

    head: bytes
    payload: bytes
    sequence: int
    aead: Aead
    address: Address


def seal_lone(lone: Sequence[Lone], workspace: Workspace) -> list[Transmit]:
    """Seal such datagrams of any sessions, in any order of sizes."""
    if len(lone) < _FEW:
        return [_seal_one(one) for one in lone]
    transmits: list[Transmit] = []
    payload_sizes = {len(one.payload) for one in lone}
    for payload_size in payload_sizes:
        same = lone
        if len(payload_sizes) > 1:
            same = [one for one in lone if len(one.payload) == payload_size]
        size, count = LONE_BYTES + payload_size, len(same)
        buffers = workspace.buffers_if_worth(size, count) if count >= _FEW else None
        if buffers is None:
            transmits += [_seal_one(one) for one in same]
            continue
        for start in range(0, count, RUN_ROWS):
            transmits += _seal_same(same[start : start + RUN_ROWS], size, buffers)
    return transmits


def _seal_one(lone: Lone) -> Transmit:
    head, payload, sequence, aead, address = lone
    header = head[:DATA_HEADER_BYTES]
    datagram = header + aead.seal(sequence, head[DATA_HEADER_BYTES:] + payload, header)
    return Transmit(datagram, len(datagram), address)


def _seal_same(lone: Sequence[Lone], size: int, buffers: RunBuffers) -> list[Transmit]:
    """Seal at most ``RUN_ROWS`` datagrams of ``size`` bytes."""
    heads, payloads, sequences, aeads, addresses = zip(*lone, strict=True)
    count = len(heads)
    datagrams, plaintexts = buffers.datagrams[:count], buffers.plaintexts[:count]
    head = np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(count, -1)
    datagrams[:, :DATA_HEADER_BYTES] = head[:, :DATA_HEADER_BYTES]
    payload_at = LONE_HEAD.size - DATA_HEADER_BYTES
    plaintexts[:, :payload_at] = head[:, DATA_HEADER_BYTES:]
    plaintexts[:, payload_at:] = np.frombuffer(b"".join(payloads), dtype=np.uint8).reshape(count, -1)
    seal_each(aeads, sequences, buffers.plaintext_views, buffers.header_views, buffers.sealed_views)
    fields = zip(row_bytes(datagrams), repeat(size), addresses)
    return list(map(tuple.__new__, repeat(Transmit), fields))

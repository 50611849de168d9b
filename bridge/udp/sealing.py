"""The sending half of a session's cryptography: sequences, headers, nonces. A sequence is burnt when used."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from bridge.udp.keys import SealingPhases
from bridge.udp.latest import Matrix
from bridge.udp.peers import Address
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    DATA_HEADER,
    DATA_HEADER_BYTES,
    PROLOGUE,
    STATE,
    STATE_HEADER,
    TAG_BYTES,
)
from bridge.udp.workspace import Workspace

_STATE_AT: Final = PROLOGUE.size
_PAYLOAD_AT: Final = PROLOGUE.size + STATE_HEADER.size
_STREAM: Final = slice(_STATE_AT + 1, _STATE_AT + 3)
_HEADER_HEAD: Final = struct.Struct(">BI")


class Sealer:
    """Seals the datagrams of one session.

    Attributes:
        phases: the keys; the owner has them prepared before it seals.
        next_sequence: the number of the next datagram; it only rises.
    """

    __slots__ = ("_remote_connection_id", "_workspace", "next_sequence", "phases")

    def __init__(self, phases: SealingPhases, *, remote_connection_id: int, workspace: Workspace) -> None:
        self.phases = phases
        self._remote_connection_id = remote_connection_id
        self._workspace = workspace
        self.next_sequence = 0

    def seal(self, plaintext: bytes) -> bytes:
        """One datagram."""
        sequence = self.next_sequence
        self.next_sequence = sequence + 1
        header = DATA_HEADER.pack(self.phases.first_byte, self._remote_connection_id, sequence)
        return header + self.phases.aead.seal(sequence, plaintext, header)

    def seal_batch(
        self, prologue: bytes, *, stream: int, number: int, rows: Matrix, address: Address
    ) -> Transmit:
        """One datagram for each row of a batch of states.

        Args:
            prologue: the first 10 bytes of each plaintext.
            stream: of the first row's state.
            rows: shape (n, size), n at most :data:`~bridge.udp.workspace.RUN_ROWS`.
        """
        count, size = rows.shape
        first = self.next_sequence
        self.next_sequence = first + count
        datagram_size = DATA_HEADER_BYTES + _PAYLOAD_AT + size + TAG_BYTES
        buffers = self._workspace.buffers(datagram_size)

        plaintexts = buffers.plaintexts[:count]
        head = prologue + STATE_HEADER.pack(STATE, 0, number, size)
        plaintexts[:, :_PAYLOAD_AT] = np.frombuffer(head, dtype=np.uint8)
        streams = np.arange(stream, stream + count, dtype=">u2")
        plaintexts[:, _STREAM] = streams.view(np.uint8).reshape(count, 2)
        plaintexts[:, _PAYLOAD_AT:] = rows

        sequences = np.arange(first, first + count, dtype=np.uint64)
        datagrams = buffers.datagrams[:count]
        header_head = _HEADER_HEAD.pack(self.phases.first_byte, self._remote_connection_id)
        datagrams[:, : _HEADER_HEAD.size] = np.frombuffer(header_head, dtype=np.uint8)
        datagrams[:, _HEADER_HEAD.size : DATA_HEADER_BYTES] = (
            sequences.astype(">u8").view(np.uint8).reshape(count, 8)
        )
        self.phases.aead.seal_run(
            sequences, buffers.plaintext_views, buffers.header_views, buffers.sealed_views
        )
        return Transmit(bytes(buffers.datagram_bytes[: count * datagram_size]), datagram_size, address)

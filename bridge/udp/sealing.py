"""The sending half of a session's cryptography: sequences, headers, nonces. A sequence is burnt when used."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from bridge.udp.columns import Columns, Row
from bridge.udp.frames import (
    STATE,
    STATE_HEADER,
)
from bridge.udp.keys import Aead, SealingPhases
from bridge.udp.latest import Matrix
from bridge.udp.peers import Address
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    DATA_HEADER,
    DATA_HEADER_BYTES,
    PROLOGUE,
    TAG_BYTES,
)
from bridge.udp.workspace import RunBuffers, Workspace

_STATE_AT: Final = PROLOGUE.size
_PAYLOAD_AT: Final = PROLOGUE.size + STATE_HEADER.size
_STREAM: Final = slice(_STATE_AT + 1, _STATE_AT + 3)
_HEADER_HEAD: Final = struct.Struct(">BI")


class Reserved(NamedTuple):
    """Datagrams of one size whose sequences are used up, and which are sealed once they are whole.

    Attributes:
        first: sequence of the first; the others count on from it.
        plaintexts: one, or shape (n, size), as far as they are there.
        aead: the keys of the moment at which the sequences were taken.
        first_byte: of the datagrams, with the bit of those keys' phase.
    """

    first: int
    plaintexts: bytes | Matrix
    aead: Aead
    first_byte: int


class Sealer:
    """Seals the datagrams of one session.

    Attributes:
        phases: the keys; the owner has them prepared before it seals.
        remote_connection_id: what the peer finds the session by.
    """

    __slots__ = ("_row", "_workspace", "phases", "remote_connection_id")

    def __init__(
        self,
        phases: SealingPhases,
        *,
        remote_connection_id: int,
        workspace: Workspace,
        row: Row | None = None,
    ) -> None:
        """Begin with sequence 0.

        Args:
            workspace: memory for runs of datagrams.
            row: of its session; ``None`` for one of its own.
        """
        self.phases = phases
        self.remote_connection_id = remote_connection_id
        self._workspace = workspace
        self._row = row = row or Row(Columns())
        row.columns.connection_id[row.index] = remote_connection_id
        self._show_keys()

    def _show_keys(self) -> None:
        columns, at, phases = self._row.columns, self._row.index, self.phases
        columns.ciphers[at] = phases.aead.cipher
        columns.iv_head[at], columns.iv_tail[at] = phases.aead.iv
        columns.first_byte[at] = phases.first_byte
        columns.rekey_from[at] = phases.due_from
        columns.rekey_at[at] = phases.due_at

    def prepare(self, *, follow: int, now: float) -> None:
        """Have the keys ready for what is sealed now: see :meth:`bridge.udp.keys.SealingPhases.prepare`."""
        if self.phases.prepare(self.next_sequence, follow=follow, now=now):
            self._show_keys()

    @property
    def next_sequence(self) -> int:
        """The number of the next datagram; it only rises."""
        return self._row.columns.sequence[self._row.index]

    def _take(self, count: int) -> int:
        """The first of so many sequences that are used up by this."""
        columns, at = self._row.columns, self._row.index
        first = columns.sequence[at]
        columns.sequence[at] = first + count
        return first

    def seal(self, plaintext: bytes) -> bytes:
        """One datagram."""
        columns, at, phases = self._row.columns, self._row.index, self.phases
        sequence = columns.sequence[at]
        columns.sequence[at] = sequence + 1
        header = DATA_HEADER.pack(phases.first_byte, self.remote_connection_id, sequence)
        return header + phases.aead.seal(sequence, plaintext, header)

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
        first = self._take(count)
        buffers = self._workspace.buffers(DATA_HEADER_BYTES + _PAYLOAD_AT + size + TAG_BYTES)
        _write_states(buffers.plaintexts[:count], prologue, stream, number, rows)
        return self._seal_run(buffers, self.phases.aead, self.phases.first_byte, first, count, address)

    def reserve(self, plaintext: bytes) -> Reserved:
        """Take the sequence of a datagram whose plaintext is not whole yet."""
        first = self._take(1)
        return Reserved(first, plaintext, self.phases.aead, self.phases.first_byte)

    def reserve_batch(self, prologue: bytes, *, stream: int, number: int, rows: Matrix) -> Reserved:
        """Like :meth:`seal_batch`, for datagrams that get something behind their state first."""
        count, size = rows.shape
        if count == 1:
            # The common case of fan-out: a matrix of one row costs ten times what its bytes do.
            head = prologue + STATE_HEADER.pack(STATE, stream, number, size)
            return self.reserve(head + rows.tobytes())
        first = self._take(count)
        plaintexts = np.empty((count, _PAYLOAD_AT + size), dtype=np.uint8)
        _write_states(plaintexts, prologue, stream, number, rows)
        return Reserved(first, plaintexts, self.phases.aead, self.phases.first_byte)

    def seal_reserved(self, reserved: Reserved, ends: Iterable[Matrix], address: Address) -> list[Transmit]:
        """Seal what was reserved.

        Args:
            ends: what follows the plaintexts of the next m datagrams, shape (m, size); m together give all.
        """
        first, plaintexts, aead, first_byte = reserved
        if isinstance(plaintexts, bytes):
            (end,) = ends
            header = DATA_HEADER.pack(first_byte, self.remote_connection_id, first)
            sealed = aead.seal(first, plaintexts + end.tobytes(), header)
            return [Transmit.of_one(header + sealed, address)]
        transmits = []
        done, width = 0, plaintexts.shape[1]
        for end in ends:
            count, size = end.shape
            buffers = self._workspace.buffers(DATA_HEADER_BYTES + width + size + TAG_BYTES)
            buffers.plaintexts[:count, :width] = plaintexts[done : done + count]
            buffers.plaintexts[:count, width:] = end
            transmits.append(self._seal_run(buffers, aead, first_byte, first + done, count, address))
            done += count
        return transmits

    def _seal_run(
        self, buffers: RunBuffers, aead: Aead, first_byte: int, first: int, count: int, address: Address
    ) -> Transmit:
        """Seal the first ``count`` plaintexts of some buffers."""
        sequences = np.arange(first, first + count, dtype=np.uint64)
        datagrams = buffers.datagrams[:count]
        header_head = _HEADER_HEAD.pack(first_byte, self.remote_connection_id)
        datagrams[:, : _HEADER_HEAD.size] = np.frombuffer(header_head, dtype=np.uint8)
        datagrams[:, _HEADER_HEAD.size : DATA_HEADER_BYTES] = (
            sequences.astype(">u8").view(np.uint8).reshape(count, 8)
        )
        aead.seal_run(sequences, buffers.plaintext_views, buffers.header_views, buffers.sealed_views)
        size = buffers.datagrams.shape[1]
        return Transmit(bytes(buffers.datagram_bytes[: count * size]), size, address)


def _write_states(plaintexts: Matrix, prologue: bytes, stream: int, number: int, rows: Matrix) -> None:
    """Write one state for each row, each on the stream after that of the one before."""
    count, size = rows.shape
    head = prologue + STATE_HEADER.pack(STATE, 0, number, size)
    plaintexts[:, :_PAYLOAD_AT] = np.frombuffer(head, dtype=np.uint8)
    streams = np.arange(stream, stream + count, dtype=">u2")
    plaintexts[:, _STREAM] = streams.view(np.uint8).reshape(count, 2)
    plaintexts[:, _PAYLOAD_AT:] = rows

"""States that go alone: one datagram for each of many sessions, with an acknowledgement at most beside it.

What a server sends to its players each tick. Whether a session may send, the header of its datagram, and what
is to be remembered of it are columns (:mod:`bridge.udp.columns`) of which all rows are done at once; then the
ciphers of all run over one matrix. What goes out, and what is noted, is what the sessions would have sealed
and noted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.udp.columns import NOTES, Columns
from bridge.udp.frames import (
    STATE,
    STATE_HEADER,
)
from bridge.udp.keys import nonces_of, seal_each
from bridge.udp.latest import Matrix
from bridge.udp.stamps import stamp_of
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    DATA_HEADER,
    DATA_HEADER_BYTES,
    HOLD_UNIT_US,
    MAX_DATAGRAM_BYTES,
    NO_ECHO,
    PROLOGUE,
    TAG_BYTES,
)
from bridge.udp.workspace import RUN_ROWS, RunBuffers, Sheet

LONE_TEXT: Final = Struct(PROLOGUE.format + STATE_HEADER.format.removeprefix(">"))
"""The plaintext of such a datagram before the payload: prologue, head of the STATE frame."""
LONE_HEAD: Final = Struct(DATA_HEADER.format + LONE_TEXT.format.removeprefix(">"))
"""Everything of it before the payload."""
LONE_BYTES: Final = LONE_HEAD.size + TAG_BYTES
"""Bytes of such a datagram beside the payload."""
FEW: Final = 16
"""Datagrams of one size that are cheaper one by one."""
_HEADS: Final = np.dtype(
    [
        ("first_byte", "u1"),
        ("connection_id", ">u4"),
        ("sequence", ">u8"),
        ("stamp", ">u4"),
        ("echo", ">u4"),
        ("hold", ">u2"),
        ("kind", "u1"),
        ("stream", ">u2"),
        ("number", ">u4"),
        ("length", ">u2"),
    ]
)
""":data:`LONE_HEAD` as an array has it."""

Rows = npt.NDArray[np.intp]


class Lone(NamedTuple):
    """States of one size, each of another session.

    Attributes:
        rows: of the sessions, shape (n,), none of them twice: a sequence must not be used twice.
        streams: one, or shape (n,).
        numbers: of the states, shape (n,).
        payloads: shape (n, size).
        frames: that go before the state, of one length.
    """

    rows: Rows
    streams: int | npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    payloads: Matrix
    frames: Sequence[bytes] = ()

    @property
    def size(self) -> int:
        """Bytes of each datagram."""
        length: int = self.payloads.shape[1]
        return LONE_BYTES + length + (len(self.frames[0]) if self.frames else 0)

    def only(self, chosen: Rows, frames: Sequence[bytes] = ()) -> Lone:
        """Some of them, with such frames."""
        streams = self.streams if isinstance(self.streams, int) else self.streams[chosen]
        return Lone(self.rows[chosen], streams, self.numbers[chosen], self.payloads[chosen], frames)


def has_to_tell(lone: Lone, columns: Columns, *, now: float) -> npt.NDArray[np.bool_]:
    """With which acknowledgements ride."""
    rides: npt.NDArray[np.bool_] = np.asarray(columns.acks_from)[lone.rows] <= now
    return rides


def may_go(lone: Lone, columns: Columns, *, max_flight: int, now: float) -> npt.NDArray[np.bool_]:
    """Which may go now: by pace, keys and what is in flight.

    Args:
        max_flight: datagrams of a session in flight above which none goes.
    """
    rows = lone.rows
    may: npt.NDArray[np.bool_] = np.asarray(columns.in_flight)[rows] < max_flight
    may &= np.asarray(columns.sequence)[rows] < np.asarray(columns.rekey_from)[rows]
    may &= np.asarray(columns.rekey_at)[rows] > now
    may &= _refilled(columns, rows, now=now) >= MAX_DATAGRAM_BYTES
    may &= np.asarray(columns.notes)[rows] < NOTES
    return may


def _refilled(columns: Columns, rows: Rows, *, now: float) -> npt.NDArray[np.float64]:
    """What the pacers have now: as :meth:`bridge.udp.rate.Pacer.allowance`."""
    elapsed = now - np.asarray(columns.refilled_at)[rows]
    tokens = np.asarray(columns.tokens)[rows] + elapsed * np.asarray(columns.rate)[rows]
    refilled: npt.NDArray[np.float64] = np.minimum(np.asarray(columns.burst)[rows], tokens)
    return refilled


def seal_lone(
    lone: Lone, columns: Columns, plaintexts: RunBuffers, sheet: Sheet, *, now: float
) -> list[Transmit]:
    """Number, account for and seal what :meth:`may_go` allowed, in its order.

    Args:
        plaintexts: where they are put together.
        sheet: where the datagrams are from then on.
    """
    rows, payloads, size = lone.rows, lone.payloads, lone.size
    count = len(rows)
    sequences = np.asarray(columns.sequence)[rows]
    heads = _heads(lone, columns, sequences, now=now)
    nonces = nonces_of(np.asarray(columns.iv_head)[rows], np.asarray(columns.iv_tail)[rows], sequences)
    _account(lone, columns, sequences, size, now=now)
    sheet.datagrams[:count, :DATA_HEADER_BYTES] = heads[:, :DATA_HEADER_BYTES]
    indices = rows.tolist()
    ciphers = [columns.ciphers[index] for index in indices]
    frames_at = PROLOGUE.size
    state_at = frames_at + (len(lone.frames[0]) if lone.frames else 0)
    payload_at = state_at + STATE_HEADER.size
    prologues, states = heads[:, DATA_HEADER_BYTES : -STATE_HEADER.size], heads[:, -STATE_HEADER.size :]
    for start in range(0, count, RUN_ROWS):
        run = slice(start, min(start + RUN_ROWS, count))
        texts = plaintexts.plaintexts[: run.stop - start]
        texts[:, :frames_at] = prologues[run]
        if lone.frames:
            frames = np.frombuffer(b"".join(lone.frames[run]), dtype=np.uint8)
            texts[:, frames_at:state_at] = frames.reshape(len(texts), -1)
        texts[:, state_at:payload_at] = states[run]
        texts[:, payload_at:] = payloads[run]
        views = plaintexts.plaintext_views
        seal_each(ciphers[run], nonces[run], views, sheet.header_views[run], sheet.sealed_views[run])
    addresses = [columns.addresses[index] for index in indices]
    return list(map(tuple.__new__, repeat(Transmit), zip(sheet.views, repeat(size), addresses)))


def _heads(lone: Lone, columns: Columns, sequences: npt.NDArray[np.int64], *, now: float) -> Matrix:
    rows, streams, numbers, payloads, _ = lone
    stamps = np.asarray(columns.peer_stamp)[rows]
    held = ((now - np.asarray(columns.peer_stamp_at)[rows]) * 1e6).astype(np.int64) // HOLD_UNIT_US
    heads = np.empty(len(rows), dtype=_HEADS)
    heads["first_byte"] = np.asarray(columns.first_byte)[rows]
    heads["connection_id"] = np.asarray(columns.connection_id)[rows]
    heads["sequence"] = sequences
    heads["stamp"] = stamp_of(now)
    heads["echo"] = stamps
    heads["hold"] = np.where((stamps == 0) | (held >= NO_ECHO), NO_ECHO, held)
    heads["kind"] = STATE
    heads["stream"] = streams
    heads["number"] = numbers
    heads["length"] = payloads.shape[1]
    return heads.view(np.uint8).reshape(-1, LONE_HEAD.size)


def _account(
    lone: Lone, columns: Columns, sequences: npt.NDArray[np.int64], size: int, *, now: float
) -> None:
    """What :meth:`bridge.udp.outbound.Outbound` does for each datagram that it seals."""
    rows = lone.rows
    np.asarray(columns.sequence)[rows] = sequences + 1
    np.asarray(columns.tokens)[rows] = _refilled(columns, rows, now=now) - size
    np.asarray(columns.refilled_at)[rows] = now
    np.asarray(columns.last_sent)[rows] = now
    np.asarray(columns.lone_datagrams)[rows] += 1
    np.asarray(columns.lone_bytes)[rows] += size
    np.asarray(columns.lone_rated)[rows] += size
    np.asarray(columns.in_flight)[rows] += 1
    notes = np.asarray(columns.notes)
    cells = rows * NOTES + notes[rows]
    np.asarray(columns.note_sequences)[cells] = sequences
    np.asarray(columns.note_times)[cells] = now
    np.asarray(columns.note_sizes)[cells] = size
    np.asarray(columns.note_streams)[cells] = lone.streams
    np.asarray(columns.note_numbers)[cells] = lone.numbers
    notes[rows] += 1

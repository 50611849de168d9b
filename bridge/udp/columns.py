"""What each datagram changes of a session, in columns: one array for each number, one row for each session.

A server sends a state to each of a thousand players in each tick. Visiting a thousand sessions of some
twenty objects each takes longer than their ciphers do, because the processor waits for memory. So the numbers
that any datagram changes live here, and :mod:`bridge.udp.lone` does for all rows at once, by a few operations
on arrays, what a session does on its own cells.

Cells are memoryviews: what is read from one is a number of Python's own, and costs half of what reading an
element of an array does. :func:`numpy.asarray` of one is the array, without a copy.
"""

from __future__ import annotations

import math
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.udp.peers import Address

NOTES: Final = 16
"""Datagrams that a row notes before its session has to take them: a quarter of a second at 60 Hz."""
_FEW: Final = 4
"""Rows for which memory is taken at first."""
_FORMATS: Final = {
    "acks_from": "d",
    "burst": "d",
    "connection_id": "I",
    "first_byte": "B",
    "in_flight": "q",
    "is_idle": "B",
    "is_queued": "B",
    "iv_head": "I",
    "iv_tail": "Q",
    "last_sent": "d",
    "lone_bytes": "q",
    "lone_datagrams": "q",
    "lone_rated": "q",
    "max_state_bytes": "q",
    "notes": "q",
    "number": "I",
    "peer_stamp": "I",
    "peer_stamp_at": "d",
    "rate": "d",
    "refilled_at": "d",
    "rekey_at": "d",
    "rekey_from": "q",
    "sequence": "q",
    "tokens": "d",
}
_NOTE_FORMATS: Final = {
    "note_numbers": "I",
    "note_sequences": "q",
    "note_sizes": "q",
    "note_streams": "q",
    "note_times": "d",
}


def _cells(memory: bytearray, code: str) -> Any:
    return memoryview(memory).cast(code)  # type: ignore[call-overload]


class Columns:
    """The rows of all sessions of one endpoint.

    Attributes:
        acks_from: when an acknowledgement rides along with what is sent; never: infinity.
        burst: of the pacer, bytes; ``rate``, ``refilled_at`` and ``tokens`` are its too.
        connection_id: the peer's, on each datagram.
        first_byte: of a datagram sealed now.
        in_flight: datagrams whose fate is not known.
        is_idle: whether nothing but a state that is given to it now would have the session send something.
        is_queued: whether a state was given to it that was not looked at yet.
        iv_head: the first 4 bytes of the static IV, ``iv_tail`` the other 8.
        last_sent: when any datagram went.
        lone_datagrams: that went by :mod:`bridge.udp.lone`, with ``lone_bytes``; since the rate last changed
            they had ``lone_rated``.
        max_state_bytes: the longest payload of a state.
        number: of the newest state.
        peer_stamp: the peer's newest, which came at ``peer_stamp_at``; 0 for none.
        rekey_at: when, and ``rekey_from`` from which sequence on, keys may have to change.
        sequence: of the next datagram.
        notes: datagrams that each held one state and that the ledger has not taken yet; their sequences,
            payload streams and so on are in the ``note_…`` columns, :data:`NOTES` cells for each row.
        ciphers: that seal now.
        addresses: where datagrams go.
    """

    __slots__ = (*_FORMATS, *_NOTE_FORMATS, "_free", "_rows", "addresses", "ciphers")

    acks_from: memoryview[float]
    burst: memoryview[float]
    connection_id: memoryview[int]
    first_byte: memoryview[int]
    in_flight: memoryview[int]
    is_idle: memoryview[int]
    is_queued: memoryview[int]
    iv_head: memoryview[int]
    iv_tail: memoryview[int]
    last_sent: memoryview[float]
    lone_bytes: memoryview[int]
    lone_datagrams: memoryview[int]
    lone_rated: memoryview[int]
    max_state_bytes: memoryview[int]
    note_numbers: memoryview[int]
    note_sequences: memoryview[int]
    note_sizes: memoryview[int]
    note_streams: memoryview[int]
    note_times: memoryview[float]
    notes: memoryview[int]
    number: memoryview[int]
    peer_stamp: memoryview[int]
    peer_stamp_at: memoryview[float]
    rate: memoryview[float]
    refilled_at: memoryview[float]
    rekey_at: memoryview[float]
    rekey_from: memoryview[int]
    sequence: memoryview[int]
    tokens: memoryview[float]

    def __init__(self) -> None:
        self._rows = 0
        self._free: list[int] = []
        self.addresses: list[Address | None] = []
        self.ciphers: list[AESGCM | None] = []
        for name, code in (_FORMATS | _NOTE_FORMATS).items():
            setattr(self, name, _cells(bytearray(), code))

    def _grow(self) -> None:
        more = max(_FEW, self._rows)
        for formats, width in ((_FORMATS, 1), (_NOTE_FORMATS, NOTES)):
            for name, code in formats.items():
                old: memoryview[int] = getattr(self, name)
                memory = bytearray(old.tobytes()) + bytes(old.itemsize * more * width)
                setattr(self, name, _cells(memory, code))
        self.addresses += [None] * more
        self.ciphers += [None] * more
        self._free += range(self._rows + more - 1, self._rows - 1, -1)
        self._rows += more

    def take(self) -> int:
        """A row that nobody has, for :class:`Row`."""
        if not self._free:
            self._grow()
        index = self._free.pop()
        for name in _FORMATS:
            getattr(self, name)[index] = 0
        self.acks_from[index] = math.inf
        return index

    def give_back(self, index: int) -> None:
        """Nobody has that row any more."""
        self.addresses[index] = self.ciphers[index] = None
        self._free.append(index)


class Row:
    """One row, as long as somebody has this: all parts of a session do.

    Attributes:
        columns: where it is; asked for anew each time, for memory moves as rows are added.
        index: which it is.
    """

    __slots__ = ("columns", "index")

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.index = columns.take()

    def __del__(self) -> None:
        self.columns.give_back(self.index)

"""Latest-wins state: the newest supersedes what was not yet sent, and what arrives late is dropped.

Streams are independent slots. State numbers count a session's ``send_state`` calls, 32 bits, compared by
serial arithmetic (RFC 1982), by subtraction of what we hold from what came, never the other way about. A
batch is one number for many neighbouring streams, so that neither side runs a loop over its rows.
"""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.udp.columns import Columns, Row
from bridge.udp.frames import (
    MAX_STATE_BYTES,
)

_NUMBER_MASK: Final = 0xFFFFFFFF
_HALF: Final = 1 << 31
_NONE: Final = -1
_FEW: Final = 16
"""Streams for which memory is taken at first."""

Matrix = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


class StreamNumbers:
    """The newest state number of each stream, memory growing with the highest stream used."""

    __slots__ = ("_cells", "_numbers")

    def __init__(self) -> None:
        self._numbers: Numbers | None = None
        # The same memory: a number of Python's own costs a third of an element of an array.
        self._cells: memoryview[int] | None = None

    def get(self, stream: int) -> int | None:
        """The number of a stream, or ``None``."""
        cells = self._cells
        if cells is None or stream >= len(cells):
            return None
        number = cells[stream]
        return None if number == _NONE else number

    def advance(self, stream: int, number: int) -> bool:
        """Set the number of a stream if it is newer; whether it was."""
        cells = self._cells
        if cells is None or stream >= len(cells):
            cells = self._room(stream + 1).data
        known = cells[stream]
        if known != _NONE and not 0 < (number - known) & _NUMBER_MASK < _HALF:
            return False
        cells[stream] = number
        return True

    def advance_run(self, streams: npt.NDArray[np.intp], given: Numbers) -> npt.NDArray[np.bool_]:
        """Like :meth:`advance` for many: shape (n,), streams ascending without repetition."""
        first, last = int(streams[0]), int(streams[-1])
        numbers = self._room(last + 1)
        # Rows of a batch that all arrived are neighbours: a slice costs half of picking them one by one.
        where = slice(first, last + 1) if last - first == len(streams) - 1 else streams
        known = numbers[where]
        ahead = (given - known) & _NUMBER_MASK
        newer: npt.NDArray[np.bool_] = (known == _NONE) | ((ahead > 0) & (ahead < _HALF))
        if newer.all():
            numbers[where] = given
        else:
            numbers[streams[newer]] = given[newer]
        return newer

    def _room(self, size: int) -> Numbers:
        numbers = self._numbers
        if numbers is None or len(numbers) < size:
            grown = np.full(max(_FEW, 1 << (size - 1).bit_length()), _NONE, dtype=np.int64)
            if numbers is not None:
                grown[: len(numbers)] = numbers
            self._numbers = numbers = grown
            self._cells = numbers.data
        return numbers


def check_batch(payload: object) -> None:
    """Raise :class:`~bridge.errors.ConfigurationError` unless it is an array of states."""
    if not isinstance(payload, np.ndarray):
        raise ConfigurationError(
            f"a state is bytes, or an array of bytes (uint8) for many, not {type(payload).__name__}"
        )
    if payload.ndim != 2 or payload.dtype != np.uint8:
        raise ConfigurationError(
            "a batch of states is an array of bytes (uint8), one row for each stream, "
            f"not {payload.dtype} of shape {payload.shape}"
        )


def plain_number(stream: SupportsIndex) -> int:
    """An index of numpy's as Python's own, which has the methods and the arithmetic that are needed."""
    try:
        return int(operator.index(stream))
    except TypeError as error:
        raise ConfigurationError(f"a stream is a whole number, not {type(stream).__name__}") from error


def check_state(stream: int, rows: int, size: int, *, max_streams: int, max_state_bytes: int) -> None:
    """Raise :class:`~bridge.errors.LimitExceededError` unless these streams may have states of that size."""
    if size > max_state_bytes:
        raise LimitExceededError("max_state_bytes", max_state_bytes, "bytes")
    if stream < 0 or stream + rows > max_streams:
        raise LimitExceededError("max_state_streams", max_streams, "streams, numbered from 0")


class PendingState:
    """The unsent state of one stream, or the unsent rows of a batch.

    Attributes:
        payload: bytes of a single state, a matrix of shape (n, size) of a batch.
        next_row: of a batch, the row to send next; rows follow each other round and round, so that under a
            rate too low for all of them the last are not the ones that never go.
        left: rows of a batch that wait.
    """

    __slots__ = ("left", "next_row", "number", "payload", "stream")

    def __init__(self, stream: int, number: int, payload: bytes | Matrix, next_row: int, left: int) -> None:
        self.stream = stream
        self.number = number
        self.payload = payload
        self.next_row = next_row
        self.left = left

    def take_rows(self, count: int) -> tuple[int, Matrix]:
        """Up to ``count`` neighbouring rows of a batch: index of the first, and the rows."""
        assert not isinstance(self.payload, bytes)
        first = self.next_row
        end = min(first + min(count, self.left), len(self.payload))
        self.left -= end - first
        self.next_row = end % len(self.payload)
        return first, self.payload[first:end]


class LatestSender:
    """Holds at most one unsent state, or batch, for each stream it begins at."""

    __slots__ = (
        "_acknowledged",
        "_max_streams",
        "_row",
        "max_state_bytes",
        "pending",
        "superseded",
        "waiting",
    )

    def __init__(
        self, *, max_streams: int, max_state_bytes: int = MAX_STATE_BYTES, row: Row | None = None
    ) -> None:
        """Begin with nothing to send.

        Args:
            row: of its session; ``None`` for one of its own.
        """
        self._max_streams = max_streams
        self.max_state_bytes = max_state_bytes
        self._row = row = row or Row(Columns())
        row.columns.max_state_bytes[row.index] = max_state_bytes
        row.columns.number[row.index] = _NUMBER_MASK
        self._acknowledged = StreamNumbers()
        self.pending: dict[int, PendingState] = {}
        """(First) stream to what is unsent, in the order the streams first became pending."""
        self.superseded = 0
        self.waiting = 0
        """States that wait to be sent."""

    def put(self, stream: int, payload: bytes | Matrix) -> int:
        """Make this the newest state of a stream, or its rows those of the streams from there on.

        Returns:
            Its number.

        Raises:
            LimitExceededError: a payload above ``max_state_bytes``, or a stream number out of bounds.
        """
        rows, size = (1, len(payload)) if isinstance(payload, bytes) else payload.shape
        if size > self.max_state_bytes or stream < 0 or stream + rows > self._max_streams:
            check_state(
                stream, rows, size, max_streams=self._max_streams, max_state_bytes=self.max_state_bytes
            )
        columns, at = self._row.columns, self._row.index
        number = columns.number[at] = (columns.number[at] + 1) & _NUMBER_MASK
        old = self.pending.get(stream)
        next_row = 0
        if old is not None:
            self.superseded += old.left
            self.waiting -= old.left
            next_row = old.next_row if old.next_row < rows else 0
        if rows == 0:
            self.pending.pop(stream, None)
            return number
        self.pending[stream] = PendingState(stream, number, payload, next_row, rows)
        self.waiting += rows
        return number

    def put_numbered(self, stream: int, payload: bytes, number: int) -> None:
        """Like :meth:`put` for a state that got its number, and passed its checks, some time ago."""
        old = self.pending.get(stream)
        if old is not None and (number - old.number) & _NUMBER_MASK >= _HALF:
            self.superseded += 1
            return
        if old is not None:
            self.superseded += old.left
            self.waiting -= old.left
        self.pending[stream] = PendingState(stream, number, payload, 0, 1)
        self.waiting += 1

    def drop(self, *, queued: int = 0) -> None:
        """Forget what is unsent, as if it had been superseded.

        Args:
            queued: states that the owner forgets besides.
        """
        self.superseded += self.waiting + queued
        self.waiting = 0
        self.pending.clear()

    def sent(self, state: PendingState, count: int) -> None:
        """``count`` of a pending state's rows were sealed; a state without more is forgotten."""
        self.waiting -= count
        del self.pending[state.stream]
        if not isinstance(state.payload, bytes) and state.left:
            # To the end: a batch that the rate never lets out whole would else always go before the rest.
            self.pending[state.stream] = state

    def acknowledge(self, stream: int, number: int) -> None:
        """The datagram with this state arrived."""
        self._acknowledged.advance(stream, number)

    def acknowledge_run(self, stream: int, number: int, bits: int) -> None:
        """Of a batch from ``stream`` on, the rows whose bit is set arrived."""
        if bits == 1:
            self._acknowledged.advance(stream, number)
            return
        count = bits.bit_length()
        present = np.frombuffer(bits.to_bytes((count + 7) >> 3, "little"), dtype=np.uint8)
        streams = np.flatnonzero(np.unpackbits(present, bitorder="little")) + stream
        self._acknowledged.advance_run(streams, np.full(len(streams), number, dtype=np.int64))

    def acknowledged(self, stream: int) -> int | None:
        """Number of the newest state of the stream that is known to have arrived."""
        return self._acknowledged.get(stream)


class LatestReceiver:
    """Knows the newest state number of each stream; which streams are allowed, the owner knows."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest = StreamNumbers()

    def accept(self, stream: int, number: int) -> bool:
        """Whether this state is newer than all before on its stream; then it becomes the newest."""
        return self._newest.advance(stream, number)

    def accept_run(self, streams: npt.NDArray[np.intp], numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Like :meth:`accept` for many states in their order, shapes (n,) with n above zero."""
        # Within a batch streams ascend, so a run is cut only where one batch ends and the next begins.
        cuts = np.flatnonzero(streams[1:] <= streams[:-1]) + 1
        if not len(cuts):
            return self._newest.advance_run(streams, numbers)
        edges = [0, *cuts.tolist(), len(streams)]
        newer = [
            self._newest.advance_run(streams[start:end], numbers[start:end]) for start, end in pairwise(edges)
        ]
        return np.concatenate(newer)

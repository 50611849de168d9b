"""Memory in which runs of datagrams are sealed and opened, used again for each run.

A run is many datagrams of one size. Its headers, nonces and plaintexts are columns of matrices; the cipher
sees each datagram through views that are cut once: cutting four views anew costs half as much as the cipher.
One endpoint has one workspace: two threads must not share it.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.udp.wire import (
    DATA_HEADER_BYTES,
    TAG_BYTES,
)

RUN_ROWS: Final = 216
"""Datagrams of one run: four full reads of merged datagrams. Longer runs are cut."""
_MAX_WIDTHS: Final = 4
"""Datagram sizes with memory of their own at once, half a megabyte each."""

_OWNED_KEPT: Final = 16
"""Runs of opened datagrams, a quarter of a megabyte each, that may be with the application while their memory
is remembered: what one turn of an event loop takes in."""

Matrix = npt.NDArray[np.uint8]


def row_bytes(rows: Matrix) -> list[bytes]:
    """Each row, shape (n, size), as bytes of its own."""
    joined: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
    return joined


def _row_views(matrix: Matrix) -> list[memoryview]:
    width = matrix.shape[1]
    flat = memoryview(matrix.reshape(-1).data)
    return [flat[start : start + width] for start in range(0, len(flat), width)]


class Owned:
    """Plaintexts of a run that the application keeps as long as it likes.

    Attributes:
        matrix: shape (rows, plaintext bytes).
        views: one writable view for each row.
    """

    __slots__ = ("_references", "matrix", "views")

    def __init__(self, width: int) -> None:
        self.matrix: Matrix = np.empty((RUN_ROWS, width), dtype=np.uint8)
        self.views = _row_views(self.matrix)
        self._references = sys.getrefcount(self.matrix)

    def is_free(self) -> bool:
        """Whether nobody has the matrix or an array made of it any more: those refer to it."""
        return sys.getrefcount(self.matrix) == self._references


class RunBuffers:
    """Matrices for runs of datagrams of one size; their contents are only good until the next run.

    Attributes:
        plaintexts: shape (rows, plaintext bytes).
        datagrams: shape (rows, datagram bytes).
        plaintext_views: one writable view for each row of ``plaintexts``.
        header_views: the associated data of each row of ``datagrams``.
        sealed_views: ciphertext and tag of each row of ``datagrams``.
        datagram_bytes: all of ``datagrams``.
    """

    __slots__ = (
        "_next_owned",
        "_owned",
        "_width",
        "datagram_bytes",
        "datagrams",
        "header_views",
        "plaintext_views",
        "plaintexts",
        "sealed_views",
    )

    def __init__(self, size: int) -> None:
        """Memory for datagrams of ``size`` bytes."""
        self._width = size - DATA_HEADER_BYTES - TAG_BYTES
        self.plaintexts: Matrix = np.zeros((RUN_ROWS, self._width), dtype=np.uint8)
        self.datagrams: Matrix = np.zeros((RUN_ROWS, size), dtype=np.uint8)
        self.plaintext_views = _row_views(self.plaintexts)
        rows = _row_views(self.datagrams)
        self.header_views = [row[:DATA_HEADER_BYTES] for row in rows]
        self.sealed_views = [row[DATA_HEADER_BYTES:] for row in rows]
        self.datagram_bytes = memoryview(self.datagrams.reshape(-1).data)
        self._owned: list[Owned] = []
        self._next_owned = 0

    def owned(self) -> Owned:
        """Memory for opened plaintexts that nobody refers to, lately used rather than new."""
        for owned in self._owned:
            if owned.is_free():
                return owned
        fresh = Owned(self._width)
        if len(self._owned) < _OWNED_KEPT:
            self._owned.append(fresh)
        else:
            # The application kept what it got: that memory is its own for good.
            self._owned[self._next_owned] = fresh
            self._next_owned = (self._next_owned + 1) % _OWNED_KEPT
        return fresh


class Sheet:
    """Datagrams of one size that stay where they were sealed until they are sent.

    Attributes:
        datagrams: shape (rows, datagram bytes).
        views: one for each row.
        header_views: the associated data of each.
        sealed_views: ciphertext and tag of each.
    """

    __slots__ = ("datagrams", "header_views", "sealed_views", "views")

    def __init__(self, size: int, rows: int) -> None:
        """Memory for so many datagrams of ``size`` bytes."""
        self.datagrams: Matrix = np.zeros((rows, size), dtype=np.uint8)
        self.views = _row_views(self.datagrams)
        self.header_views = [row[:DATA_HEADER_BYTES] for row in self.views]
        self.sealed_views = [row[DATA_HEADER_BYTES:] for row in self.views]


class Workspace:
    """Buffers by datagram size, the last few sizes kept, and the last sheet."""

    __slots__ = ("_asked", "_by_size", "_sheet")

    def __init__(self) -> None:
        self._sheet: Sheet | None = None
        self._by_size: dict[int, RunBuffers] = {}
        self._asked: dict[int, int] = {}  # rows of sizes without buffers

    def buffers(self, size: int) -> RunBuffers:
        """Buffers for datagrams of ``size`` bytes, header and tag included."""
        buffers = self._by_size.get(size)
        if buffers is None:
            if len(self._by_size) >= _MAX_WIDTHS:
                del self._by_size[next(iter(self._by_size))]
            buffers = self._by_size[size] = RunBuffers(size)
        return buffers

    def sheet(self, size: int, rows: int) -> Sheet:
        """A sheet of at least so many rows, the same as the last time if it has room and that size."""
        sheet = self._sheet
        if sheet is None or sheet.datagrams.shape[1] != size or len(sheet.views) < rows:
            sheet = self._sheet = Sheet(size, rows + (rows >> 2))
        return sheet

    def buffers_if_worth(self, size: int, rows: int) -> RunBuffers | None:
        """Buffers for ``rows`` datagrams of some size, or ``None`` where making them is not worth it yet.

        Making them costs as much as opening a hundred datagrams, and sizes need not stay: what comes may not
        even be authentic. So once all are in use, a new size gets its own only after a full run of it.
        """
        if size not in self._by_size and len(self._by_size) >= _MAX_WIDTHS:
            asked = self._asked.pop(size, 0) + rows
            if asked < RUN_ROWS:
                self._asked[size] = asked
                return None
        return self.buffers(size)

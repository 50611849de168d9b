"""Memory in which runs of datagrams are sealed, used again for each run.

A run is many datagrams of one size. Its headers, nonces and plaintexts are columns of matrices; the cipher
sees each datagram through views that are cut once. One endpoint has one workspace: what is in it is only good
until the next run, and two threads must not share it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.udp.wire import DATA_HEADER_BYTES, TAG_BYTES

RUN_ROWS: Final = 216
"""Datagrams of one run: four full reads of merged datagrams. Longer runs are cut."""
_MAX_WIDTHS: Final = 4
"""Datagram sizes with memory of their own at once, half a megabyte each."""

Matrix = npt.NDArray[np.uint8]


class RunBuffers:
    """Matrices for runs of datagrams of one size.

    Attributes:
        plaintexts: shape (rows, plaintext bytes).
        datagrams: shape (rows, datagram bytes).
        plaintext_views: one writable view for each row of ``plaintexts``.
        header_views: the associated data of each row of ``datagrams``.
        sealed_views: ciphertext and tag of each row of ``datagrams``.
    """

    __slots__ = (
        "datagram_bytes",
        "datagrams",
        "header_views",
        "plaintext_views",
        "plaintexts",
        "sealed_views",
    )

    def __init__(self, size: int) -> None:
        """Memory for datagrams of ``size`` bytes."""
        width = size - DATA_HEADER_BYTES - TAG_BYTES
        self.plaintexts: Matrix = np.zeros((RUN_ROWS, width), dtype=np.uint8)
        self.datagrams: Matrix = np.zeros((RUN_ROWS, size), dtype=np.uint8)
        flat = memoryview(self.plaintexts.reshape(-1).data)
        self.plaintext_views = [flat[row * width : (row + 1) * width] for row in range(RUN_ROWS)]
        self.datagram_bytes = memoryview(self.datagrams.reshape(-1).data)
        starts = range(0, RUN_ROWS * size, size)
        self.header_views = [self.datagram_bytes[start : start + DATA_HEADER_BYTES] for start in starts]
        self.sealed_views = [
            self.datagram_bytes[start + DATA_HEADER_BYTES : start + size] for start in starts
        ]


class Workspace:
    """Buffers by datagram size, the last few sizes kept."""

    __slots__ = ("_by_size",)

    def __init__(self) -> None:
        self._by_size: dict[int, RunBuffers] = {}

    def buffers(self, size: int) -> RunBuffers:
        """Buffers for datagrams of ``size`` bytes, header and tag included."""
        buffers = self._by_size.get(size)
        if buffers is None:
            if len(self._by_size) >= _MAX_WIDTHS:
                del self._by_size[next(iter(self._by_size))]
            buffers = self._by_size[size] = RunBuffers(size)
        return buffers

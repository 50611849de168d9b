"""The receiving half of a session's cryptography: keys, the replay window, one datagram or a run of them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import BoxError
from bridge.udp.keys import Aead, DirectionKeys
from bridge.udp.replay import WINDOW, ReplayWindow
from bridge.udp.statistics import DropReason
from bridge.udp.wire import DATA, DATA_HEADER, DATA_HEADER_BYTES
from bridge.udp.workspace import Matrix, Workspace

_SEQUENCE: Final = slice(5, DATA_HEADER_BYTES)


class OpenedRun(NamedTuple):
    """Datagrams of one size, opened together.

    Attributes:
        sequences: shape (n,), ascending, all above everything marked before.
        plaintexts: shape (n, bytes), good until the next run.
    """

    sequences: npt.NDArray[np.uint64]
    plaintexts: Matrix


class Opener:
    """Opens the datagrams of one session.

    Attributes:
        replay: which sequences were taken; the caller marks them once it has accepted what was inside.
    """

    __slots__ = ("_aead", "_workspace", "replay")

    def __init__(self, keys: DirectionKeys, *, workspace: Workspace) -> None:
        self._aead = Aead(keys)
        self._workspace = workspace
        self.replay = ReplayWindow()

    def open(self, data: bytes | memoryview) -> tuple[int, bytes] | DropReason:
        """Sequence and plaintext of a datagram, or why it is none of this session's."""
        first, _, sequence = DATA_HEADER.unpack_from(data)
        if first != DATA:
            return DropReason.KEY_PHASE
        if not self.replay.is_fresh(sequence):
            return DropReason.REPLAYED
        view = memoryview(data)
        try:
            return sequence, self._aead.open(sequence, view[DATA_HEADER_BYTES:], view[:DATA_HEADER_BYTES])
        except BoxError:
            return DropReason.FORGED

    def open_run(self, data: memoryview, datagrams: Matrix) -> OpenedRun | None:
        """Open many datagrams at once, or ``None`` where they have to be looked at one by one.

        Args:
            data: the datagrams back to back.
            datagrams: the same as a matrix of shape (n, size), n at most
                :data:`~bridge.udp.workspace.RUN_ROWS`, with equal connection ids and first bytes.
        """
        if datagrams[0, 0] != DATA:
            return None
        count, size = datagrams.shape
        sequences = np.ascontiguousarray(datagrams[:, _SEQUENCE]).view(">u8").ravel().astype(np.uint64)
        first, last = int(sequences[0]), int(sequences[-1])
        if first <= self.replay.largest or last - first >= WINDOW:
            return None
        if not (sequences[1:] > sequences[:-1]).all():
            return None
        buffers = self._workspace.buffers(size)
        starts = range(0, count * size, size)
        try:
            self._aead.open_run(
                sequences,
                [data[start + DATA_HEADER_BYTES : start + size] for start in starts],
                [data[start : start + DATA_HEADER_BYTES] for start in starts],
                buffers.plaintext_views,
            )
        except BoxError:
            return None
        return OpenedRun(sequences, buffers.plaintexts[:count])

    def mark_run(self, sequences: npt.NDArray[np.uint64]) -> None:
        """Mark what :meth:`open_run` gave."""
        first, last = int(sequences[0]), int(sequences[-1])
        span = last - first + 1
        if span == len(sequences):
            self.replay.mark_run(last, (1 << span) - 1)
            return
        present = np.zeros(span, dtype=np.uint8)
        present[(np.uint64(last) - sequences).astype(np.intp)] = 1
        bits = np.packbits(present, bitorder="little").tobytes()
        self.replay.mark_run(last, int.from_bytes(bits, "little"))

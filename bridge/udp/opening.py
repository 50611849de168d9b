"""The receiving half of a session's cryptography: keys, the replay window, one datagram or a run of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import BoxError
from bridge.udp.columns import Columns, Row
from bridge.udp.keys import OpeningPhases, SealingPhases
from bridge.udp.replay import WINDOW, ReplayWindow
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    DATA_HEADER,
    DATA_HEADER_BYTES,
)
from bridge.udp.workspace import RUN_ROWS, Matrix, Workspace

_SEQUENCE: Final = slice(5, DATA_HEADER_BYTES)
_FEW: Final = RUN_ROWS // 4
"""Datagrams below which a run is given memory of its own size."""


class OpenedRun(NamedTuple):
    """Datagrams of one size, opened together.

    Attributes:
        sequences: shape (n,), ascending, all above everything marked before.
        plaintexts: shape (n, bytes), memory that is used again only when nobody refers to it any more.
    """

    sequences: npt.NDArray[np.uint64]
    plaintexts: Matrix


class Opener:
    """Opens the datagrams of one session.

    Attributes:
        phases: the keys.
        replay: which sequences were taken; the caller marks them once it has accepted what was inside.
    """

    __slots__ = ("_keep", "_row", "_sealing", "_workspace", "phases", "replay")

    def __init__(
        self,
        phases: OpeningPhases,
        *,
        sealing: SealingPhases,
        keep: Callable[[], float],
        workspace: Workspace,
        row: Row | None = None,
    ) -> None:
        """Begin with nothing received.

        Args:
            sealing: the keys of the other direction: the peer is never two phases ahead of them.
            keep: seconds for which keys are kept once the peer has left them.
            row: of its session; ``None`` for one of its own.
        """
        self.phases = phases
        self._row = row or Row(Columns())
        self._sealing = sealing
        self._keep = keep
        self._workspace = workspace
        self.replay = ReplayWindow()

    def open(self, data: bytes | memoryview, *, now: float) -> tuple[int, bytes] | DropReason:
        """Sequence and plaintext of a datagram, or why it is none of this session's."""
        first, _, sequence = DATA_HEADER.unpack_from(data)
        if sequence <= self.replay.largest and not self.replay.is_fresh(sequence):
            return DropReason.REPLAYED
        if type(data) is not memoryview:
            data = memoryview(data)
        header, sealed = data[:DATA_HEADER_BYTES], data[DATA_HEADER_BYTES:]
        phases = self.phases
        if first == phases.first_byte:
            try:
                return sequence, phases.aead.open(sequence, sealed, header)
            except BoxError:
                return DropReason.FORGED
        try:
            plaintext = phases.open_other(
                sequence, sealed, header, sealing_phase=self._sealing.phase, now=now, keep=self._keep()
            )
        except BoxError:
            return DropReason.KEY_PHASE
        if self.phases.phase > self._sealing.phase:
            # This side follows before it seals anything more.
            self._row.columns.rekey_from[self._row.index] = 0
        return sequence, plaintext

    def open_run(self, datagrams: Matrix) -> OpenedRun | None:
        """Open many datagrams at once, or ``None`` where they have to be looked at one by one.

        Args:
            datagrams: shape (n, size), n at most :data:`~bridge.udp.workspace.RUN_ROWS`, with equal
                connection ids and first bytes.
        """
        if datagrams[0, 0] != self.phases.first_byte:
            return None
        count, size = datagrams.shape
        sequences = np.ascontiguousarray(datagrams[:, _SEQUENCE]).view(">u8").ravel().astype(np.uint64)
        first, last = int(sequences[0]), int(sequences[-1])
        if first <= self.replay.largest or last - first >= WINDOW:
            return None
        if not (sequences[1:] > sequences[:-1]).all():
            return None
        buffers = self._workspace.buffers_if_worth(size, count)
        if buffers is None:
            return None
        # Copying the run to where views are cut already costs a sixth of cutting new ones.
        buffers.datagrams[:count] = datagrams
        owned = buffers.owned()
        try:
            self.phases.aead.open_run(sequences, buffers.sealed_views, buffers.header_views, owned.views)
        except BoxError:
            return None
        plaintexts = owned.matrix[:count]
        # What waits for the application is bounded in states: a few must not hold the memory of many.
        return OpenedRun(sequences, plaintexts.copy() if count < _FEW else plaintexts)

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

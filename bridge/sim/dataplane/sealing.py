"""What a server seals state for, a row of arrays for each grant: a tick touches no entity by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication import WorldState

_FIRST: Final = 64
"""grants that the arrays have room for at first; they double"""
_NONE: Final = -1

Rows = slice | npt.NDArray[np.intp]
"""all of them, or some"""


@dataclass(slots=True)
class Sealing:
    """One grant, while its entity is acted for and until it is acted for again.

    Attributes:
        entity: name.
        epoch: of the grant.
        slot: where its state lies in the world.
        handle: what records of it say.
        row: in the arrays; -1 once it is stopped.
        until_ns: set while it lingers on purpose after its release.
        first_ns: when a state was sealed first; ``None`` before that.
        last_ns: when one was sealed last, once it is stopped.
        has_slot: whether the last state that was sealed still lies in the slot, to be gone on from.
        last_state: set when it is stopped: what its release carries, however often it is signed.
    """

    entity: str
    epoch: int
    slot: int
    handle: int
    row: int = _NONE
    until_ns: int | None = None
    first_ns: int | None = None
    last_ns: int = 0
    has_slot: bool = True
    last_state: WorldState | None = None


class Sealings:
    """What is acted for, by entity; rows lie side by side, in no order."""

    def __init__(self) -> None:
        self._by_entity: dict[str, Sealing] = {}
        self._rows: list[Sealing] = []
        self._begun: dict[str, Sealing] = {}
        """those of which no state was sealed yet"""
        self._slots = np.zeros(_FIRST, dtype=np.intp)
        self._handles = np.zeros(_FIRST, dtype=np.uint16)
        self._epochs = np.zeros(_FIRST, dtype=np.uint64)
        self._last_ns = np.zeros(_FIRST, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sealing]:
        return iter(self._rows)

    def __contains__(self, entity: str) -> bool:
        return entity in self._by_entity

    def get(self, entity: str) -> Sealing | None:
        """What is sealed for an entity; ``None`` where it is not acted for."""
        return self._by_entity.get(entity)

    def add(self, sealing: Sealing) -> None:
        """Seal for a grant from now on; of its entity nothing is sealed yet."""
        row = sealing.row = len(self._rows)
        if row == len(self._slots):
            for name in ("_slots", "_handles", "_epochs", "_last_ns"):
                values = getattr(self, name)
                setattr(self, name, np.concatenate((values, np.zeros_like(values))))
        self._slots[row], self._handles[row], self._epochs[row] = sealing.slot, sealing.handle, sealing.epoch
        self._last_ns[row] = 0
        self._rows.append(sealing)
        self._by_entity[sealing.entity] = self._begun[sealing.entity] = sealing

    def pop(self, entity: str) -> Sealing | None:
        """Seal no more for an entity; what was sealed for it, if it was."""
        sealing = self._by_entity.pop(entity, None)
        if sealing is None:
            return None
        sealing.last_ns = self.last_ns(sealing)
        row, last = sealing.row, self._rows.pop()
        if last is not sealing:
            for values in (self._slots, self._handles, self._epochs, self._last_ns):
                values[row] = values[last.row]
            self._rows[row], last.row = last, row
        sealing.row = _NONE
        self._begun.pop(entity, None)
        return sealing

    def clear(self) -> list[Sealing]:
        """Seal nothing more; what was sealed for."""
        for sealing in self._rows:
            sealing.last_ns = self.last_ns(sealing)
            sealing.row = _NONE
        ended, self._rows = self._rows, []
        self._by_entity.clear()
        self._begun.clear()
        return ended

    def last_ns(self, sealing: Sealing) -> int:
        """When a state was sealed last for a grant that was ever sealed for."""
        return sealing.last_ns if sealing.row == _NONE else int(self._last_ns[sealing.row])

    def begun(self, at_most: int | None = None) -> list[Sealing]:
        """Those of which nothing was sealed yet, the first ones that came."""
        return list(islice(self._begun.values(), at_most))

    def seal(self, rows: Rows, begun: Iterable[Sealing], *, now_ns: int) -> None:
        """A state of each of these rows is sealed now, of ``begun`` among them the first one."""
        self._last_ns[rows] = now_ns
        for sealing in begun:
            sealing.first_ns = now_ns
            del self._begun[sealing.entity]

    def everything(self) -> slice:
        """All rows."""
        return slice(0, len(self._rows))

    def columns(
        self, rows: Rows
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint16], npt.NDArray[np.uint64]]:
        """Slots, handles and epochs of rows, shapes (n,)."""
        return self._slots[rows], self._handles[rows], self._epochs[rows]

"""The two worlds of an entity stream: one that is packed tick by tick, one that what comes is applied to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bridge.replication import (
    COMPACT,
    FULL,
    States,
    World,
    compact_records,
    decode_payloads_untrusted,
    encode_payloads,
    full_records,
    records_per_payload,
)

_EPOCH = 7


def _states(count: int, random: np.random.Generator) -> States:
    rotations = random.normal(size=(count, 4))
    return States(
        ticks=np.zeros(count, dtype=np.uint64),
        positions=random.normal(0, 500, (count, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=random.normal(0, 10, (count, 3)),
        angular_velocities=random.normal(0, 2, (count, 3)),
        flags=np.zeros(count, dtype=np.uint8),
    )


class SentWorld:
    """A world whose entities fill so many payloads.

    Args:
        payloads: of a tick.
        full: records of 36 bytes, with velocities; else of 20.

    Attributes:
        count: its entities.
    """

    def __init__(self, payloads: int, *, full: bool) -> None:
        layout, self._make = (FULL, full_records) if full else (COMPACT, compact_records)
        self._shape = payloads, records_per_payload(layout)
        self.count = self._shape[0] * self._shape[1]
        self._world = World(bytearray(World.size(self.count)), self.count)
        self._slots = np.arange(self.count)
        self._world.store(self._slots, _states(self.count, np.random.default_rng(1)))
        self._epochs = np.full(self.count, _EPOCH, dtype=np.uint64)
        self._tick = 0

    def payloads(self) -> npt.NDArray[np.uint8]:
        """The next tick, quantised and packed; a payload in each row."""
        self._tick += 1
        records = self._make(self._slots, self._epochs, self._world.gather(self._slots))
        return encode_payloads(records.reshape(self._shape), tick=self._tick)


class AppliedWorld:
    """A world of so many entities that records of the known grant are written to."""

    def __init__(self, count: int) -> None:
        self._world = World(bytearray(World.size(count)), count)
        self._epochs = np.full(count, _EPOCH, dtype=np.uint16)

    def apply(self, payloads: npt.NDArray[np.uint8]) -> int:
        """Check and store what payloads bring; how many entities."""
        applied = 0
        for decoded in decode_payloads_untrusted(payloads)[0]:
            slots = decoded.records["handle"].reshape(-1).astype(np.intp)
            known = self._epochs[slots] == decoded.records["epoch"].reshape(-1)
            states = decoded.states()
            if not known.all():
                slots, states = slots[known], states.select(known)
            self._world.store(slots, states)
            applied += len(slots)
        return applied

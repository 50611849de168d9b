"""Entities from one world to another: quantised, sealed, sent, opened, checked and applied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.udp.pair import Delivered, Take, measure_pair
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
from bridge.udp import Session, StateReceived, StatesReceived, UdpEvent

_PAYLOADS = 216
"""Of one tick: as many datagrams as are opened together."""
_OUT = 2 * _PAYLOADS
"""Datagrams whose arrival may be unknown when the next tick is sent."""
_EPOCH = 7


def _states(count: int, random: np.random.Generator, tick: int) -> States:
    rotations = random.normal(size=(count, 4))
    return States(
        ticks=np.full(count, tick, dtype=np.uint64),
        positions=random.normal(0, 500, (count, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=random.normal(0, 10, (count, 3)),
        angular_velocities=random.normal(0, 2, (count, 3)),
        flags=np.zeros(count, dtype=np.uint8),
    )


class _World:
    """A world that what comes is applied to."""

    def __init__(self, count: int) -> None:
        self._world = World(bytearray(World.size(count)), count)
        self._epochs = np.full(count, _EPOCH, dtype=np.uint16)

    def take(self, event: UdpEvent) -> int:
        """Apply what an event brought; how many entities."""
        match event:
            case StatesReceived(payloads=payloads):
                return self._apply(payloads)
            case StateReceived(payload=payload):
                return self._apply(np.frombuffer(payload, dtype=np.uint8).reshape(1, -1))
            case _:
                return 0

    def _apply(self, payloads: npt.NDArray[np.uint8]) -> int:
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


def measure_entities(seconds: float, *, full: bool) -> Delivered:
    """Entities a second from world to world.

    Args:
        full: records of 36 bytes, with velocities; else of 20.
    """
    layout, make = (FULL, full_records) if full else (COMPACT, compact_records)
    per = records_per_payload(layout)
    count = per * _PAYLOADS

    def make_send(session: Session) -> Callable[[], int]:
        world = World(bytearray(World.size(count)), count)
        slots = np.arange(count)
        world.store(slots, _states(count, np.random.default_rng(1), 0))
        epochs = np.full(count, _EPOCH, dtype=np.uint64)
        tick = 0

        def send() -> int:
            nonlocal tick
            tick += 1
            records = make(slots, epochs, world.gather(slots))
            session.send_state(encode_payloads(records.reshape(_PAYLOADS, per), tick=tick))
            return count

        return send

    def make_take() -> Take:
        return _World(count).take

    return measure_pair(make_send, make_take, seconds=seconds, out=_OUT)

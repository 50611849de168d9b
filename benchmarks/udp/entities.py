"""Entities from one world to another: quantised, sealed, sent, opened, checked and applied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.udp.pair import Delivered, Take, measure_pair
from benchmarks.udp.worlds import AppliedWorld, SentWorld
from bridge.udp import Session, StateReceived, StatesReceived, UdpEvent

PAYLOADS = 216
"""Of one tick: as many datagrams as are opened together."""
_OUT = 2 * PAYLOADS
"""Datagrams whose arrival may be unknown when the next tick is sent."""


def measure_entities(seconds: float, *, full: bool) -> Delivered:
    """Entities a second from world to world.

    Args:
        full: records of 36 bytes, with velocities; else of 20.
    """
    world = SentWorld(PAYLOADS, full=full)

    def make_send(session: Session) -> Callable[[], int]:
        def send() -> int:
            session.send_state(world.payloads())
            return world.count

        return send

    def make_take() -> Take:
        applied = AppliedWorld(world.count)

        def take(event: UdpEvent) -> int:
            match event:
                case StatesReceived(payloads=payloads):
                    return applied.apply(payloads)
                case StateReceived(payload=payload):
                    return applied.apply(np.frombuffer(payload, dtype=np.uint8).reshape(1, -1))
                case _:
                    return 0

        return take

    return measure_pair(make_send, make_take, seconds=seconds, out=_OUT)

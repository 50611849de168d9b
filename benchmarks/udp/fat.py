"""A fat link: batches of full datagrams from one engine to another, delivered and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.udp.pair import Delivered, Take, measure_pair
from bridge.udp import Session, StateReceived, StatesReceived, UdpEvent

BATCH = 216
"""States of one batch, each on a stream of its own and filling a datagram."""
SIGNED_BATCH = 512
"""In signed mode: a batch is signed before any of it is sent, time enough for its receiver to run dry."""
SIGNED_OUT = 1024
OUT = 1728
"""Datagrams whose arrival may be unknown when the next batch is given."""


def _count() -> Take:
    def take(event: UdpEvent) -> int:
        match event:
            case StatesReceived():
                return len(event)
            case StateReceived():
                return 1
            case _:
                return 0

    return take


def measure_rate(seconds: float, *, batch: int = BATCH, out: int = OUT, **options: Any) -> Delivered:
    """States a second from engine to engine, each a full datagram; in signed mode with its proof.

    Args:
        batch: states given at once.
        out: how many may be on their way when a batch is given.
        options: of both engines' configuration.
    """

    def make_send(session: Session) -> Callable[[], int]:
        rows = np.random.default_rng(1).integers(0, 256, (batch, session.max_state_bytes), dtype=np.uint8)

        def send() -> int:
            session.send_state(rows)
            return batch

        return send

    return measure_pair(make_send, _count, seconds=seconds, out=out, **options)

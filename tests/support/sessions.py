"""Sessions without an endpoint: what they send each other, and what a peer without manners would."""

from __future__ import annotations

from random import Random

import numpy as np

from bridge.udp.events import (
    UdpEvent,
)
from bridge.udp.frames import (
    Frame,
    encode_frame,
)
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
    NO_ECHO,
    PROLOGUE,
)
from bridge.udp.workspace import Matrix
from tests.support.datagrams import single_datagrams


def exchange(source: Session, target: Session, *, now: float) -> list[bytes]:
    datagrams = sent(source, now=now)
    for datagram in datagrams:
        assert target.inbound.receive_datagram(datagram, target.address, now=now) in (None, DropReason.CLOSED)
    return datagrams


def sent(session: Session, *, now: float) -> list[bytes]:
    return [datagram for datagram, _ in single_datagrams(session.datagrams_to_send(now=now))]


def drain(session: Session) -> list[UdpEvent]:
    events: list[UdpEvent] = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def forge(
    sequence: int, *frames: Frame, raw: bytes = b"", phase: int = 0, echo: tuple[int, int] = (0, NO_ECHO)
) -> bytes:
    """A datagram from the peer of ``bare_sessions()[1]``, holding its keys but not its manners.

    Args:
        echo: the stamp that comes back, and how long it was held.
    """
    header = DATA_HEADER.pack(DATA | phase, 2, sequence)
    plaintext = PROLOGUE.pack(1, *echo) + b"".join(map(encode_frame, frames)) + raw
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32))
    return header + Aead(keys.initiator).seal(sequence, plaintext, header)


def rows_of(count: int, size: int) -> Matrix:
    return np.frombuffer(Random(count).randbytes(count * size), dtype=np.uint8).reshape(count, size)

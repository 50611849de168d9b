"""Two distribution connections joined in memory."""

from __future__ import annotations

from bridge.dist import (
    OFFERED,
    Disconnected,
    DistConfig,
    DistConnection,
    DistEvent,
    DistFlag,
    Identity,
    NameReceived,
    Role,
    Status,
)
from bridge.etf import Pid
from tests.support.headers import framed

WITHOUT_HEADERS = OFFERED & ~(DistFlag.DIST_HDR_ATOM_CACHE | DistFlag.FRAGMENTS)
"""flags of a node that speaks pass-through packets"""

_MAX_ROUNDS = 20
"""rounds until two connections must have nothing more to say"""


def transfer(source: DistConnection, target: DistConnection, *, now: float, piece: int | None = None) -> bool:
    """Bring what one wants to send to the other, in pieces of ``piece`` bytes; whether there was any."""
    data = b"".join(source.data_to_send(portion=None))
    for start in range(0, len(data), piece or max(1, len(data))):
        target.receive_data(data[start : start + (piece or len(data))], now=now)
    return bool(data)


def drain_events(connection: DistConnection) -> list[DistEvent]:
    """All events that are pending, and of what is decoded in steps."""
    while connection.unfinished:
        connection.decode_on(now=connection.last_received)
    events: list[DistEvent] = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    return events


def roundtrip_until_quiet(
    a: DistConnection, b: DistConnection, *, now: float, piece: int | None = None, status: Status = Status.OK
) -> tuple[list[DistEvent], list[DistEvent]]:
    """Let both talk, answering names with ``status``; gives the events of each."""
    seen: tuple[list[DistEvent], list[DistEvent]] = ([], [])
    for _ in range(_MAX_ROUNDS):
        moved = transfer(a, b, now=now, piece=piece)
        for side, connection in enumerate((a, b)):
            for event in drain_events(connection):
                seen[side].append(event)
                if isinstance(event, NameReceived):
                    connection.answer_name(status, now=now)
        moved |= transfer(b, a, now=now, piece=piece)
        if not moved:
            seen[0].extend(drain_events(a))
            seen[1].extend(drain_events(b))
            return seen
    raise AssertionError("two connections never stopped talking")


def pair(
    *,
    cookie_a: str = "c",
    cookie_b: str = "c",
    now: float = 0.0,
    config_a: DistConfig | None = None,
    config_b: DistConfig | None = None,
    flags_a: DistFlag = OFFERED,
    flags_b: DistFlag = OFFERED,
    answers_to: Pid | None = None,
    answers_to_b: Pid | None = None,
) -> tuple[DistConnection, DistConnection]:
    """An initiator a@h and an acceptor b@h that have not spoken yet."""
    a = DistConnection(
        Role.INITIATOR,
        Identity(name="a@h", cookie=cookie_a, creation=5, flags=flags_a),
        challenge=7,
        now=now,
        config=config_a,
        peer="b@h",
        answers_to=answers_to,
    )
    b = DistConnection(
        Role.ACCEPTOR,
        Identity(name="b@h", cookie=cookie_b, creation=6, flags=flags_b),
        challenge=8,
        now=now,
        config=config_b,
        answers_to=answers_to_b,
    )
    return a, b


def connected_pair(
    *,
    config_b: DistConfig | None = None,
    flags_a: DistFlag = OFFERED,
    flags_b: DistFlag = OFFERED,
    answers_to: Pid | None = None,
) -> tuple[DistConnection, DistConnection]:
    """Both after their handshake, with no event pending."""
    a, b = pair(config_b=config_b, flags_a=flags_a, flags_b=flags_b, answers_to=answers_to)
    roundtrip_until_quiet(a, b, now=0.0)
    assert a.connected
    assert b.connected
    return a, b


def receive(connection: DistConnection, *packets: bytes) -> None:
    """Give packets to a connection, each behind its length."""
    connection.receive_data(b"".join(map(framed, packets)), now=1.0)


def error_of(connection: DistConnection) -> Exception | None:
    """Why a connection ended, which its only or last event says."""
    *_, last = drain_events(connection)
    assert isinstance(last, Disconnected)
    assert not connection.connected
    assert connection.get_timer() is None
    return last.error

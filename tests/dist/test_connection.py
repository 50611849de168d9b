"""Two distribution connections in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    AliasSend,
    Connected,
    ControlMessage,
    DemonitorP,
    Disconnected,
    DistConfig,
    Exit,
    Exit2,
    Failure,
    GroupLeader,
    HandshakeFailed,
    Link,
    MonitorP,
    MonitorPExit,
    NameReceived,
    Received,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    Status,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.errors import ConfigurationError, DecodeError, InvalidStateError, LimitExceededError
from bridge.etf import Atom, Pid, Reference, encode_term
from tests.support.pair import drain_events, pair, roundtrip_until_quiet, transfer

P = Pid(Atom("a@h"), 1, 0, 5)
Q = Pid(Atom("b@h"), 2, 0, 6)
R = Reference(Atom("a@h"), 5, (1, 2, 3))
MESSAGES: list[tuple[ControlMessage, object]] = [
    (Send(to=Q), b"x"),
    (RegSend(source=P, to=Atom("rex")), (1, 2)),
    (AliasSend(source=P, alias=R), [1]),
    (Link(source=P, to=Q), None),
    (UnlinkId(id=1, source=P, to=Q), None),
    (UnlinkIdAck(id=1, source=P, to=Q), None),
    (GroupLeader(source=P, to=Q), None),
    (MonitorP(source=P, to=Atom("name"), reference=R), None),
    (DemonitorP(source=P, to=Q, reference=R), None),
    (SpawnRequest(request=R, source=P, group_leader=P, mfa=(Atom("m"), Atom("f"), 0), options=[]), []),
    (SpawnReply(request=R, to=P, flags=0, result=Atom("notsup")), None),
]
ENDINGS: list[ControlMessage] = [
    Exit(source=P, to=Q, reason=(1, b"r")),
    Exit2(source=P, to=Q, reason=Atom("kill")),
    MonitorPExit(source=P, to=Q, reference=R, reason=False),
]


@given(piece=st.integers(min_value=1, max_value=40))
def test_two_sides_connect_however_the_bytes_are_cut(piece: int) -> None:
    a, b = pair()
    seen_a, seen_b = roundtrip_until_quiet(a, b, now=0.0, piece=piece)
    assert [type(event) for event in seen_a] == [Connected]
    assert [type(event) for event in seen_b] == [NameReceived, Connected]
    for message, payload in MESSAGES:
        a.send(message, payload, now=1.0)
    transfer(a, b, now=1.0, piece=piece)
    assert drain_events(b) == [Received(control=m, payload=p) for m, p in MESSAGES]


def test_sends_to_one_process_and_to_others_are_kept_apart() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    other = Pid(Q.node, Q.id + 1, Q.serial, Q.creation)
    payloads: list[object] = [[], b"x", Q]
    sent = [(Send(to=to), payload) for to in (Q, Q, other, Q) for payload in payloads]
    for message, payload in sent:
        a.send(message, payload, now=1.0)
    transfer(a, b, now=1.0)
    assert drain_events(b) == [Received(control=m, payload=p) for m, p in sent]


@pytest.mark.parametrize("rest", [b"", b"\x83jj", b"\x83", b"j"])
def test_a_second_send_to_one_process_is_checked_like_the_first(rest: bytes) -> None:
    for packets in (1, 2):
        a, b = pair()
        roundtrip_until_quiet(a, b, now=0.0)
        control = encode_term((2, Atom(""), Q))
        good = b"p" + control + encode_term(b"payload")
        for packet in [good] * (packets - 1) + [b"p" + control + rest]:
            b.receive_data(len(packet).to_bytes(4, "big") + packet, now=1.0)
        *_, last = drain_events(b)
        assert isinstance(last, Disconnected)
        assert isinstance(last.error, DecodeError)


def test_reasons_travel_as_payload() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    for message in ENDINGS:
        a.send(message, now=1.0)
    transfer(a, b, now=1.0)
    assert [event.control for event in drain_events(b) if isinstance(event, Received)] == ENDINGS


def test_an_alive_acceptor_is_answered_true() -> None:
    a, b = pair()
    seen, _ = roundtrip_until_quiet(a, b, now=0.0, status=Status.ALIVE)
    assert isinstance(seen[-1], Connected)


@pytest.mark.parametrize(
    ("status", "failure"), [(Status.NOK, Failure.SIMULTANEOUS), (Status.NOT_ALLOWED, Failure.NOT_ALLOWED)]
)
def test_a_refused_name_fails_both_sides(status: Status, failure: Failure) -> None:
    a, b = pair()
    for seen in roundtrip_until_quiet(a, b, now=0.0, status=status):
        assert isinstance(seen[-1], HandshakeFailed)
        assert seen[-1].failure is failure
    assert a.get_timer() is None


def test_a_wrong_cookie_fails_the_acceptor_and_its_close_tells_the_initiator() -> None:
    a, b = pair(cookie_b="other")
    _, seen = roundtrip_until_quiet(a, b, now=0.0)
    assert isinstance(seen[-1], HandshakeFailed)
    assert seen[-1].failure is Failure.BAD_DIGEST
    a.receive_eof(now=0.0)
    (event,) = drain_events(a)
    assert isinstance(event, HandshakeFailed)
    assert event.failure is Failure.CLOSED_AFTER_CHALLENGE
    assert "cookie" in event.detail


def test_a_silent_peer_times_out() -> None:
    a, _ = pair()
    due = a.get_timer()
    assert due == 7.0
    a.handle_timer(now=6.9)
    assert drain_events(a) == []
    a.handle_timer(now=due)
    (event,) = drain_events(a)
    assert isinstance(event, HandshakeFailed)
    assert event.failure is Failure.TIMEOUT


def test_ticks_go_out_each_quarter_and_silence_ends_the_connection() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    assert a.get_timer() == 15.0
    a.handle_timer(now=15.0)
    assert a.data_to_send() == [bytes(4)]
    b.receive_data(bytes(4), now=15.0)
    assert drain_events(b) == []
    a.handle_timer(now=75.0)
    (event,) = drain_events(a)
    assert isinstance(event, Disconnected)
    with pytest.raises(InvalidStateError):
        a.send(Send(to=Q), 1, now=76.0)


def test_a_packet_of_the_largest_size_passes_and_one_byte_more_ends_the_connection() -> None:
    size = len(b"p" + encode_term((2, Atom(""), Q)) + encode_term(bytes(100)))
    for maximum, passes in ((size - 1, False), (size, True), (size + 1, True)):
        a, b = pair(config_b=DistConfig(max_packet_bytes=maximum))
        roundtrip_until_quiet(a, b, now=0.0)
        a.send(Send(to=Q), bytes(100), now=1.0)
        transfer(a, b, now=1.0)
        (event,) = drain_events(b)
        if passes:
            assert event == Received(control=Send(to=Q), payload=bytes(100))
            b.send(Send(to=Q), bytes(100), now=1.0)
        else:
            assert isinstance(event, Disconnected)
            assert isinstance(event.error, LimitExceededError)


def test_a_message_over_the_own_limit_is_refused_before_it_is_sent() -> None:
    a, b = pair(config_b=DistConfig(max_packet_bytes=100))
    roundtrip_until_quiet(a, b, now=0.0)
    with pytest.raises(LimitExceededError, match="max_packet_bytes=100 bytes"):
        b.send(Send(to=Q), bytes(100), now=1.0)
    assert b.data_to_send() == []
    assert b.bytes_to_send == 0


def test_lengths_of_handshake_frames_have_four_bytes_where_tls_is_used() -> None:
    config = DistConfig(handshake_length_bytes=4)
    a, b = pair(config_a=config, config_b=config)
    assert a.bytes_to_send > 4
    seen, _ = roundtrip_until_quiet(a, b, now=0.0)
    assert isinstance(seen[-1], Connected)


@pytest.mark.parametrize(
    "options", [{"net_ticktime": 0}, {"handshake_timeout": 0}, {"handshake_length_bytes": 3}]
)
def test_settings_that_cannot_work_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        DistConfig(**options)  # type: ignore[arg-type]  # numbers, whatever their names


def test_nothing_is_taken_after_the_end() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    a.send(Send(to=Q), 1, now=1.0)
    b.receive_eof(now=1.0)
    drain_events(b)
    transfer(a, b, now=1.0)
    b.receive_eof(now=2.0)
    b.handle_timer(now=1000.0)
    assert drain_events(b) == []
    assert b.get_timer() is None


def test_an_unlink_without_an_id_asks_nothing() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    packet = b"p" + encode_term((4, P, Q))
    b.receive_data(len(packet).to_bytes(4, "big") + packet, now=1.0)
    assert drain_events(b) == []
    assert b.connected


@given(st.binary(max_size=60))
def test_garbage_ends_a_connection_and_raises_nothing(data: bytes) -> None:
    a, b = pair()
    b.receive_data(data, now=0.0)
    drain_events(b)
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    b.receive_data(len(data).to_bytes(4, "big") + data, now=1.0)
    for event in drain_events(b):
        assert isinstance(event, Disconnected)

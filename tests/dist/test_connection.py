"""Two distribution connections in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    LARGE,
    OFFERED,
    PORTION,
    AliasSend,
    Connected,
    ControlMessage,
    DemonitorP,
    Disconnected,
    DistConfig,
    DistConnection,
    DistEvent,
    DistFlag,
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
from bridge.errors import InvalidStateError, LimitExceededError
from bridge.etf import Atom, Pid, Reference, encode_bare
from tests.support.pair import (
    WITHOUT_HEADERS,
    connected_pair,
    drain_events,
    error_of,
    pair,
    roundtrip_until_quiet,
    transfer,
)

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
    (Send(to=P), bytes(300_000)),
    (RegSend(source=P, to=Atom("rex")), [bytes(200_000), Atom("end")]),
]
WITHOUT_FRAGMENTS = OFFERED & ~DistFlag.FRAGMENTS
MODES = [
    pytest.param(OFFERED, OFFERED, id="headers and fragments"),
    pytest.param(OFFERED, WITHOUT_FRAGMENTS, id="headers"),
    pytest.param(WITHOUT_HEADERS, OFFERED, id="pass-through, asked by the initiator"),
    pytest.param(OFFERED, WITHOUT_HEADERS, id="pass-through, asked by the acceptor"),
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
    assert (a.peer, b.peer) == ("b@h", "a@h")
    b.receive_data(bytes(4), now=3.0)
    assert (a.last_received, b.last_received) == (0.0, 3.0)


@pytest.mark.parametrize(("flags_a", "flags_b"), MODES)
@pytest.mark.parametrize("piece", [None, 1_000, 70_001])
def test_every_message_arrives_both_ways_whatever_was_agreed(
    flags_a: DistFlag, flags_b: DistFlag, piece: int | None
) -> None:
    for source, target in (pair := connected_pair(flags_a=flags_a, flags_b=flags_b), pair[::-1]):
        for message, payload in MESSAGES:
            source.send(message, payload, now=1.0)
            transfer(source, target, now=1.0, piece=piece)
        assert drain_events(target) == [Received(control=m, payload=p) for m, p in MESSAGES]


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


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({}, 2.0),
        ({"net_ticktime": 8.0}, 2.0),
        ({"net_ticktime": 4.0}, 1.0),
        ({"max_tick_interval": 0.5}, 0.5),
        ({"max_tick_interval": 100.0}, 15.0),
    ],
)
def test_ticks_go_out_each_quarter_and_no_more_seldom_than_homeservers_need(
    options: dict[str, float], interval: float
) -> None:
    a, b = pair(config_a=DistConfig(**options))  # type: ignore[arg-type]  # seconds, whatever their names
    roundtrip_until_quiet(a, b, now=0.0)
    for now in (interval, 2 * interval):
        assert a.get_timer() == now
        a.handle_timer(now=now)
        assert a.data_to_send() == [bytes(4)]


def test_silence_ends_the_connection() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
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
    size = len(b"\x83D\0" + encode_bare((2, Atom(""), Q)) + encode_bare(bytes(100)))
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


@pytest.mark.parametrize("record", [b"\x15\x03\x03\x00\x02\x02\x0a", b"\x16\x03\x01\x02\x00\x01"])
def test_a_peer_that_speaks_tls_to_a_plain_node_is_told_what_it_is(record: bytes) -> None:
    for side in pair():
        side.receive_data(record, now=0.0)
        (event,) = drain_events(side)
        assert isinstance(event, HandshakeFailed)
        assert "inet_tls" in event.detail


def test_lengths_of_handshake_frames_have_four_bytes_where_tls_is_used() -> None:
    config = DistConfig(handshake_length_bytes=4)
    a, b = pair(config_a=config, config_b=config)
    assert a.bytes_to_send > 4
    seen, _ = roundtrip_until_quiet(a, b, now=0.0)
    assert isinstance(seen[-1], Connected)


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


SEND = encode_bare((2, Atom(""), Q))
LIST = encode_bare([b"some", [Atom("payload"), 1]])


def test_small_messages_overtake_a_large_one_to_another_process() -> None:
    a, b = connected_pair()
    other = Pid(Q.node, Q.id + 1, Q.serial, Q.creation)
    a.send(Send(to=Q), bytes(4 * PORTION), now=1.0)
    a.send(Send(to=other), b"small", now=1.0)
    assert a.bytes_to_send >= PORTION
    assert a.wants_to_send
    for chunk in a.data_to_send():
        b.receive_data(chunk, now=1.0)
    assert drain_events(b) == [Received(control=Send(to=other), payload=b"small")]
    transfer(a, b, now=1.0)
    assert drain_events(b) == [Received(control=Send(to=Q), payload=bytes(4 * PORTION))]


@pytest.mark.parametrize(
    "later",
    [
        Send(to=Q),
        RegSend(source=P, to=Atom("name")),
        AliasSend(source=P, alias=R),
        Exit(source=P, to=Q, reason=b"payload"),
        Link(source=P, to=Q),
        DemonitorP(source=P, to=Q, reference=R),
    ],
)
def test_signals_that_may_be_for_the_same_process_keep_their_order(later: ControlMessage) -> None:
    a, b = connected_pair()
    a.send(Send(to=Q), bytes(2 * PORTION), now=1.0)
    a.send(later, b"payload", now=1.0)
    assert a.data_to_send(portion=0) == []
    transfer(a, b, now=1.0)
    large, small = drain_events(b)
    assert large == Received(control=Send(to=Q), payload=bytes(2 * PORTION))
    assert isinstance(small, Received)
    assert small.control == later


def test_a_spawn_request_and_what_stands_for_itself_wait_for_nothing() -> None:
    a, b = connected_pair()
    a.send(Send(to=Q), bytes(2 * LARGE), now=1.0)
    request, arguments = next((m, p) for m, p in MESSAGES if isinstance(m, SpawnRequest))
    a.send(request, arguments, now=1.0)
    a.send_encoded(SEND, b"j", now=1.0)
    for chunk in a.data_to_send(portion=0):
        b.receive_data(chunk, now=1.0)
    received = [e.control for e in drain_events(b) if isinstance(e, Received)]
    assert received == [request, Send(to=Q)]


def test_a_packet_that_nothing_waits_before_goes_past_the_outbox() -> None:
    a, b = connected_pair()
    a.send(Send(to=Q), bytes(2 * LARGE), now=1.0)
    packet = a.packet_alone(SEND, b"j", now=9.0)
    assert packet is not None
    b.receive_data(packet, now=1.0)
    assert drain_events(b) == [Received(control=Send(to=Q), payload=[])]
    # What was sent puts the next tick off.
    assert a.get_timer() == 9.0 + DistConfig().tick_interval


def test_a_packet_is_not_alone_behind_another_one_or_where_it_would_be_refused() -> None:
    config = DistConfig(max_packet_bytes=1_000)
    a, _ = pair(config_a=config)
    assert a.packet_alone(SEND, b"j", now=1.0) is None  # not connected
    for size, alone in ((997 - len(SEND), True), (998 - len(SEND), False)):
        a, b = pair(config_a=config)
        roundtrip_until_quiet(a, b, now=0.0)
        assert (a.packet_alone(SEND, bytes(size), now=1.0) is not None) is alone
    a, _ = connected_pair()
    assert a.packet_alone(SEND, bytes(LARGE), now=1.0) is None
    a.send_encoded(SEND, b"j", now=1.0)
    assert a.packet_alone(SEND, b"j", now=1.0) is None
    a.data_to_send()
    assert a.packet_alone(SEND, b"j", now=1.0) is not None
    a.receive_eof(now=2.0)
    assert a.packet_alone(SEND, b"j", now=2.0) is None
    a, _ = connected_pair(flags_b=WITHOUT_HEADERS)
    assert a.packet_alone(SEND, b"j", now=1.0) is None


def test_ticks_go_out_before_what_is_large() -> None:
    a, _ = connected_pair()
    a.send(Send(to=Q), bytes(2 * LARGE), now=1.0)
    a.handle_timer(now=16.0)
    assert a.data_to_send(portion=0) == [bytes(4)]


def test_the_end_drops_what_waits_in_both_directions() -> None:
    a, b = connected_pair()
    a.send(Send(to=Q), bytes(10 * PORTION), now=1.0)
    for chunk in a.data_to_send():
        b.receive_data(chunk, now=1.0)
    assert b._packets._assembler.held_bytes > 0
    for side in (a, b):
        side.receive_eof(now=2.0)
        assert error_of(side) is None
    assert not a.wants_to_send
    assert a.data_to_send() == []
    assert b._packets._assembler.held_bytes == 0


# What each input does in each state of a connection; "-" is nothing at all, LATE is CLOSED_AFTER_CHALLENGE.
STATES = ["dialled", "challenged", "named", "decided", "asked", "connected", "ended"]
INPUTS: dict[str, list[str]] = {
    #             dialled    challenged named      decided    asked      connected  ended
    "garbage":    ["MALFORMED", "MALFORMED", "MALFORMED", "MALFORMED", "MALFORMED", "DecodeError", "-"],
    "eof":        ["CLOSED", "LATE", "CLOSED", "LATE", "CLOSED", "end", "-"],
    "early":      ["-", "-", "-", "-", "-", "-", "-"],
    "late":       ["TIMEOUT", "TIMEOUT", "TIMEOUT", "TIMEOUT", "TIMEOUT", "end", "-"],
    "send":       ["refused", "refused", "refused", "refused", "refused", "sent", "refused"],
    "quarter":    ["-", "-", "-", "-", "-", "tick", "-"],
    "tick":       ["-", "-", "-", "-", "-", "-", "-"],
}  # fmt: skip


def in_state(state: str) -> DistConnection:
    """A connection that has come so far."""
    config = DistConfig(handshake_timeout=100.0)
    a, b = pair(config_a=config, config_b=config)
    if state == "dialled":
        a.data_to_send()
        return a
    transfer(a, b, now=0.0)
    if state == "named":
        drain_events(b)
        return b
    b.answer_name(Status.ALIVE if state == "asked" else Status.OK, now=0.0)
    drain_events(b)
    if state in ("decided", "asked"):
        b.data_to_send()
        return b
    transfer(b, a, now=0.0)
    if state == "challenged":
        a.data_to_send()
        return a
    roundtrip_until_quiet(a, b, now=0.0)
    if state == "ended":
        b.receive_eof(now=0.0)
    drain_events(b)
    return b


def outcome(connection: DistConnection, event: DistEvent | None) -> str:
    """What an input did, in a word of the table."""
    match event:
        case HandshakeFailed():
            return event.failure.name.replace("CLOSED_AFTER_CHALLENGE", "LATE")
        case Disconnected():
            return "end" if event.error is None else type(event.error).__name__
    assert event is None
    sent = connection.data_to_send()
    return {b"": "-", bytes(4): "tick"}.get(b"".join(sent), "sent")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", INPUTS)
def test_every_input_in_every_state_does_what_the_table_says(state: str, name: str) -> None:
    connection = in_state(state)
    refused = False
    match name:
        case "garbage":
            connection.receive_data(b"\x00\x03\x00\x00\x00\x00\x00" + bytes(200_000)[: 196_611 - 3], now=1.0)
        case "eof":
            connection.receive_eof(now=1.0)
        case "early":
            connection.handle_timer(now=1.0)
        case "quarter":
            connection.handle_timer(now=15.0)
        case "late":
            connection.handle_timer(now=100.0)
        case "tick":
            # As a frame of a handshake four zero bytes are two empty ones, so only half a one is given there.
            connection.receive_data(bytes(4) if connection.connected else bytes(1), now=1.0)
        case "send":
            try:
                connection.send(Send(to=Q), 1, now=1.0)
            except InvalidStateError:
                refused = True
    events = drain_events(connection)
    assert len(events) <= 1
    seen = "refused" if refused else outcome(connection, events[0] if events else None)
    assert seen == INPUTS[name][STATES.index(state)]
    if events or state == "ended":
        assert connection.get_timer() is None


@pytest.mark.parametrize(
    ("status", "seen_a", "seen_b"),
    [
        (Status.OK, "Connected", "Connected"),
        (Status.OK_SIMULTANEOUS, "Connected", "Connected"),
        (Status.ALIVE, "Connected", "Connected"),
        (Status.NOK, "SIMULTANEOUS", "SIMULTANEOUS"),
        (Status.NOT_ALLOWED, "NOT_ALLOWED", "NOT_ALLOWED"),
    ],
)
def test_every_answer_to_a_name_ends_the_same_on_both_sides(status: Status, seen_a: str, seen_b: str) -> None:
    a, b = pair()
    for connection, events, expected in zip(
        (a, b), roundtrip_until_quiet(a, b, now=0.0, status=status), (seen_a, seen_b), strict=True
    ):
        last = events[-1]
        name = last.failure.name if isinstance(last, HandshakeFailed) else type(last).__name__
        assert name == expected
        assert connection.connected == (expected == "Connected")


@pytest.mark.parametrize("status", list(Status))
def test_a_peer_that_goes_on_before_its_name_is_answered_fails_and_the_answer_does_nothing(
    status: Status,
) -> None:
    a, b = pair()
    transfer(a, b, now=0.0)
    b.receive_data(b"\x00\x01s", now=0.0)
    name, failed = drain_events(b)
    assert isinstance(name, NameReceived)
    assert isinstance(failed, HandshakeFailed)
    assert failed.failure is Failure.MALFORMED
    b.answer_name(status, now=0.0)
    assert drain_events(b) == []
    assert b.data_to_send() == []


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

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
    Answered,
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
from bridge.errors import ConfigurationError, DecodeError, InvalidStateError, LimitExceededError
from bridge.etf import Atom, Pid, Reference, TermLimits, encode_bare, encode_term
from tests.support.headers import first_fragment, framed, next_fragment, normal
from tests.support.pair import (
    WITHOUT_HEADERS,
    connected_pair,
    drain_events,
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


@pytest.mark.parametrize(
    ("flags", "header", "version", "rest"),
    [
        *((WITHOUT_HEADERS, b"p", b"\x83", rest) for rest in (b"", b"\x83jj", b"\x83", b"j")),
        *((OFFERED, b"\x83D\0", b"", rest) for rest in (b"", b"jj", b"\x83j", b"m")),
    ],
)
def test_a_second_send_to_one_process_is_checked_like_the_first(
    flags: DistFlag, header: bytes, version: bytes, rest: bytes
) -> None:
    for packets in (1, 2):
        _, b = connected_pair(flags_a=flags)
        control = header + version + encode_bare((2, Atom(""), Q))
        good = control + version + encode_bare(b"payload")
        for packet in [good] * (packets - 1) + [control + rest]:
            receive(b, packet)
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


@pytest.mark.parametrize(
    "options",
    [
        {"net_ticktime": 0},
        {"max_tick_interval": 0},
        {"handshake_timeout": 0},
        {"handshake_length_bytes": 3},
        {"max_packet_bytes": 0},
        {"max_sequences": 0},
        {"max_held_bytes": 0},
    ],
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
    receive(b, b"\x83D\0" + encode_bare((4, P, Q)))
    assert drain_events(b) == []
    assert b.connected


SEND = encode_bare((2, Atom(""), Q))
LIST = encode_bare([b"some", [Atom("payload"), 1]])


def test_atoms_of_the_cache_are_read_in_control_and_payload() -> None:
    _, b = connected_pair()
    node = (
        b"\x58R\x00" + Q.id.to_bytes(4, "big") + Q.serial.to_bytes(4, "big") + Q.creation.to_bytes(4, "big")
    )
    control = b"\x68\x03\x61\x02" + encode_bare(Atom("")) + node
    for text in (b"b@h", None):
        for payload, value in ((b"R\x01", True), (b"\x68\x02R\x01R\x00", (True, Atom("b@h")))):
            receive(b, normal([(2047, text), (3, b"true")], control + payload))
            assert drain_events(b) == [Received(control=Send(to=Q), payload=value)]
    receive(b, normal([(2047, None)], control + b"R\x01"))
    assert isinstance(error_of(b), DecodeError)


def test_a_place_that_got_another_atom_means_it_from_then_on() -> None:
    _, b = connected_pair()
    packet = normal([(7, None)], SEND + b"R\x00")
    for text in (b"one", b"two"):
        receive(b, normal([(7, text)], SEND + b"R\x00"), packet, packet, packet)
        assert [e.payload for e in drain_events(b) if isinstance(e, Received)] == [Atom(text.decode())] * 4


def test_a_reader_of_many_headers_forgets_some_and_reads_on() -> None:
    _, b = connected_pair()
    for place in range(600):
        receive(b, normal([(place, b"a%d" % place)], SEND + b"R\x00"))
    for _ in range(2):
        for place in range(600):
            receive(b, normal([(place, None)], SEND + b"R\x00"))
    names = [e.payload for e in drain_events(b) if isinstance(e, Received)]
    assert names == [Atom(f"a{place}") for place in range(600)] * 3


def test_a_beginning_that_is_long_is_not_remembered() -> None:
    for size, remembered in ((3_900, 1), (4_200, 0)):
        _, b = connected_pair()
        # What stands before the process is not looked at.
        control = b"h\x03\x61\x02" + encode_bare(bytes(size)) + SEND[-len(encode_bare(Q)) :]
        for _ in range(2):
            receive(b, normal([], control + b"j"))
        assert drain_events(b) == [Received(control=Send(to=Q), payload=[])] * 2
        assert len(b._usual) == remembered


def test_sequences_of_several_senders_are_put_together_among_whole_messages() -> None:
    _, b = connected_pair()
    receive(b, first_fragment(1, 3, SEND + LIST[:4]), first_fragment(2, 2, SEND + LIST[:9]))
    receive(b, normal([(1, b"atom")], SEND + b"R\x00"))
    receive(
        b, next_fragment(1, 2, LIST[4:7]), next_fragment(2, 1, LIST[9:]), first_fragment(3, 1, SEND + b"j")
    )
    receive(b, next_fragment(1, 1, LIST[7:]))
    payloads = [e.payload for e in drain_events(b) if isinstance(e, Received)]
    term = [b"some", [Atom("payload"), 1]]
    assert payloads == [Atom("atom"), term, [], term]


def test_a_fragmented_message_keeps_the_atoms_that_its_first_fragment_brought() -> None:
    _, b = connected_pair()
    data = b"\x68\x02R\x00" + encode_bare(bytes(40))
    receive(b, first_fragment(1, 2, SEND + data[:12], [(5, b"old")]), normal([(5, b"new")], SEND + b"R\x00"))
    receive(b, next_fragment(1, 1, data[12:]))
    payloads = [e.payload for e in drain_events(b) if isinstance(e, Received)]
    assert payloads == [Atom("new"), (Atom("old"), bytes(40))]


def test_a_reason_and_a_message_without_payload_may_come_as_fragments() -> None:
    _, b = connected_pair()
    receive(b, first_fragment(1, 2, encode_bare((24, P, Q)) + b"\x6d\0\0\0"), next_fragment(1, 1, b"\1x"))
    receive(b, first_fragment(1, 1, encode_bare((1, P, Q))), first_fragment(1, 1, encode_bare((4, P, Q))))
    assert drain_events(b) == [
        Received(control=Exit(source=P, to=Q, reason=b"x"), payload=b"x"),
        Received(control=Link(source=P, to=Q)),
    ]


@pytest.mark.parametrize(
    "packets",
    [
        [b"p" + encode_term((1, P, Q))],
        [b"\x83"],
        [b"\x83D"],
        [b"\x83G\0" + SEND + b"j"],
        [b"\x83D\0"],
        [b"\x83D\0" + SEND],
        [b"\x83D\0\x83" + SEND + b"j"],
        [normal([(1, None)], SEND + b"j")],
        [b"\x83E" + bytes(8)],
        [b"\x83E" + bytes(15) + b"\1"],
        [first_fragment(1, 0, SEND + b"j")],
        [first_fragment(1, 2, b"")],
        [first_fragment(1, 2, encode_bare((2, Atom(""), Atom("no pid"))) + b"j")],
        [first_fragment(1, 1, SEND)],
        [first_fragment(1, 1, SEND + b"jj")],
        [first_fragment(1, 2, SEND + b"j"), first_fragment(1, 2, SEND + b"j")],
        [next_fragment(1, 1, b"j")],
        [b"\x83F" + bytes(15)],
        [b"pF" + bytes(16)],
        [first_fragment(1, 3, SEND + b"l"), next_fragment(1, 3, b"j")],
        [first_fragment(1, 3, SEND + b"l"), next_fragment(1, 1, b"j")],
    ],
)
def test_packets_that_break_the_protocol_end_the_connection(packets: list[bytes]) -> None:
    for piece in (None, 1, 7):
        _, b = connected_pair()
        data = b"".join(map(framed, packets))
        for start in range(0, len(data), piece or len(data)):
            b.receive_data(data[start : start + (piece or len(data))], now=1.0)
        assert isinstance(error_of(b), DecodeError)


@pytest.mark.parametrize("packet", [normal([], SEND + b"j"), next_fragment(1, 1, b"j")])
def test_headers_that_were_not_agreed_end_the_connection(packet: bytes) -> None:
    _, b = connected_pair(flags_a=WITHOUT_HEADERS)
    receive(b, packet)
    assert isinstance(error_of(b), DecodeError)


def test_fragments_that_were_not_agreed_end_the_connection() -> None:
    _, b = connected_pair(flags_a=WITHOUT_FRAGMENTS)
    receive(b, first_fragment(1, 1, SEND + b"j"))
    assert isinstance(error_of(b), DecodeError)


@pytest.mark.parametrize(
    ("config", "limit", "fragments"),
    [
        (DistConfig(max_packet_bytes=120), "max_packet_bytes", [(1, 3, 61), (1, 2, 61)]),
        (DistConfig(max_sequences=2), "max_sequences", [(1, 3, 1), (2, 3, 1), (3, 3, 1)]),
        (DistConfig(max_held_bytes=100), "max_held_bytes", [(1, 3, 60), (2, 3, 60)]),
    ],
)
def test_fragments_over_a_limit_end_the_connection(
    config: DistConfig, limit: str, fragments: list[tuple[int, int, int]]
) -> None:
    for count in (len(fragments) - 1, len(fragments)):
        _, b = connected_pair(config_b=config)
        seen: set[int] = set()
        for sequence, number, size in fragments[:count]:
            rest = bytes(size)
            make = next_fragment(sequence, number, rest)
            receive(b, make if sequence in seen else first_fragment(sequence, number, SEND + rest))
            seen.add(sequence)
        if count < len(fragments):
            assert b.connected
        else:
            error = error_of(b)
            assert isinstance(error, LimitExceededError)
            assert error.limit == limit


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
    assert b._assembler.held_bytes > 0
    for side in (a, b):
        side.receive_eof(now=2.0)
        assert error_of(side) is None
    assert not a.wants_to_send
    assert a.data_to_send() == []
    assert b._assembler.held_bytes == 0


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


def test_what_follows_an_answer_is_told_after_it() -> None:
    a, b = connected_pair(answers_to=P)
    down = MonitorPExit(source=Q, to=P, reference=R, reason=Atom("normal"))
    for number in range(4):
        for _ in range(2):
            b.send(Send(to=P), (Reference(Atom("a@h"), 5, (number, 0, 0)), number), now=1.0)
        b.send(down, now=1.0)
        transfer(b, a, now=1.0)
        *answers, last = drain_events(a)
        assert sum(len(e.answers) if isinstance(e, Answered) else 1 for e in answers) == 2
        assert isinstance(last, Received)
        assert last.control == down


def test_answers_together_may_be_larger_than_one_term() -> None:
    limits = TermLimits(max_bytes=200)
    a, b = pair(config_a=DistConfig(limits=limits), answers_to=P)
    roundtrip_until_quiet(a, b, now=0.0)
    for number in range(20):
        b.send(Send(to=P), (Reference(Atom("a@h"), 5, (number, 0, 0)), bytes(100)), now=1.0)
    transfer(b, a, now=1.0)
    assert a.connected
    assert sum(len(e.answers) if isinstance(e, Answered) else 1 for e in drain_events(a)) == 20


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


def _answers(events: list[DistEvent]) -> list[tuple[bytes, object]]:
    """What came to the process of ``answers_to``, in either form."""
    found: list[tuple[bytes, object]] = []
    for event in events:
        match event:
            case Answered():
                found += event.answers
            case Received(control=Send(to=to), payload=(Reference() as reference, result)) if to == P:
                found.append((b"".join(word.to_bytes(4, "big") for word in reference.ids), result))
    return found


@given(
    results=st.lists(
        st.sampled_from([Atom("ok"), (1, b"x"), [Atom("a"), 2.0], {Atom("k"): ()}, b""]), max_size=12
    ),
    flags=st.sampled_from([OFFERED, WITHOUT_HEADERS]),
    piece=st.sampled_from([None, 1, 7, 50]),
)
def test_answers_to_one_process_come_once_each_and_in_order(
    results: list[object], flags: DistFlag, piece: int | None
) -> None:
    a, b = connected_pair(flags_b=flags, answers_to=P)
    for number, result in enumerate(results):
        b.send(Send(to=P), (Reference(Atom("a@h"), 5, (number, 0, 0)), result), now=0.0)
        b.send(Send(to=Pid(Atom("a@h"), 9, 0, 5)), (R, result), now=0.0)
    transfer(b, a, now=0.0, piece=piece)
    events = drain_events(a)
    assert _answers(events) == [
        (number.to_bytes(4, "big") + bytes(8), result) for number, result in enumerate(results)
    ]
    others = [event for event in events if isinstance(event, Received) and event.control != Send(to=P)]
    assert [event.payload for event in others] == [(R, result) for result in results]


def test_what_resembles_an_answer_and_is_none_is_an_ordinary_message() -> None:
    a, b = connected_pair(answers_to=P)
    wide = Reference(Atom("a@h"), 5, (1, 2, 3, 4, 5))
    messages = [(R, 1), (wide, 1), (R, 1, 2), (R,), R, [R, 1], (R, 2)]
    for message in messages:
        b.send(Send(to=P), message, now=0.0)
    transfer(b, a, now=0.0)
    events = drain_events(a)
    assert [event.payload for event in events if isinstance(event, Received)] == messages[:-1]
    assert _answers(events)[-1] == (b"".join(w.to_bytes(4, "big") for w in R.ids), 2)


def test_an_answer_that_does_not_fill_its_packet_ends_the_connection_after_those_before_it() -> None:
    a, b = connected_pair(answers_to=P)
    for number in range(3):
        b.send(Send(to=P), (Reference(Atom("a@h"), 5, (number, 0, 0)), number), now=0.0)
    sent = b"".join(b.data_to_send())
    last = sent[-(4 + int.from_bytes(sent[:4], "big")) :]
    broken = (len(last) - 4 + 1).to_bytes(4, "big") + last[4:] + b"j"
    a.receive_data(sent + broken, now=0.0)
    events = drain_events(a)
    assert [result for _, result in _answers(events)] == [0, 1, 2]
    assert isinstance(events[-1], Disconnected)
    assert isinstance(events[-1].error, DecodeError)


def test_an_answer_whose_header_means_another_atom_now_is_read_with_that_one() -> None:
    a, _ = connected_pair(answers_to=P)
    control = encode_bare((2, Atom(""), P))

    def answer(number: int) -> bytes:
        reference = encode_bare(Reference(Atom("a@h"), 5, (number, 0, 0)))
        return control + b"h\x02" + reference + b"\x52\x00"

    for atom, numbers in ((b"one", (1, 2, 3)), (b"two", (4, 5, 6))):
        new = b"\x83D\x01\x08\x00" + bytes((len(atom),)) + atom
        known = b"\x83D\x01\x00\x00"
        for place, number in enumerate(numbers):
            packet = (known if place else new) + answer(number)
            a.receive_data(len(packet).to_bytes(4, "big") + packet, now=0.0)
    assert [str(result) for _, result in _answers(drain_events(a))] == ["one"] * 3 + ["two"] * 3


@pytest.mark.parametrize("operation", [[1], {Atom("a"): 1}, Atom("send"), b"2", (2,)])
def test_an_operation_that_is_no_number_ends_the_connection(operation: object) -> None:
    a, _ = connected_pair()
    a.receive_data(framed(normal([], encode_bare((operation, P)))), now=0.0)
    (event,) = drain_events(a)
    assert isinstance(event, Disconnected)
    assert isinstance(event.error, DecodeError)

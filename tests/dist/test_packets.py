"""Packets of two connections in memory, and of one that is given what OTP might send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist import (
    OFFERED,
    Answered,
    Disconnected,
    DistConfig,
    DistEvent,
    DistFlag,
    Exit,
    Link,
    MonitorPExit,
    Received,
    Send,
)
from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import Atom, Pid, Reference, TermLimits, encode_bare, encode_term
from tests.support.headers import first_fragment, framed, next_fragment, normal
from tests.support.pair import (
    WITHOUT_HEADERS,
    connected_pair,
    drain_events,
    error_of,
    pair,
    receive,
    roundtrip_until_quiet,
    transfer,
)

P = Pid(Atom("a@h"), 1, 0, 5)
Q = Pid(Atom("b@h"), 2, 0, 6)
R = Reference(Atom("a@h"), 5, (1, 2, 3))
SEND = encode_bare((2, Atom(""), Q))
LIST = encode_bare([b"some", [Atom("payload"), 1]])


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


def test_an_unlink_without_an_id_asks_nothing() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    receive(b, b"\x83D\0" + encode_bare((4, P, Q)))
    assert drain_events(b) == []
    assert b.connected


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
        assert len(b._packets._usual) == remembered


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
    _, b = connected_pair(flags_a=OFFERED & ~DistFlag.FRAGMENTS)
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

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    SessionClosed,
    StateReceived,
    StatesReceived,
)
from bridge.udp.frames import (
    MAX_STATE_BYTES,
    STATE,
    STATE_HEADER,
    Ack,
    Close,
    Credit,
    Frame,
    Message,
    MessageCredit,
    PathChallenge,
    PathResponse,
    Ping,
    Reliable,
    State,
)
from bridge.udp.session import Session
from bridge.udp.stamps import stamp_of
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
    MAX_DATAGRAM_BYTES,
    MAX_FRAMES_BYTES,
)
from bridge.udp.workspace import Matrix
from tests.support.datagrams import bare_sessions, single_datagrams
from tests.support.sessions import drain, exchange, forge, rows_of, sent

HERE = ("192.0.2.1", 1000)
FAST = UdpConfig(initial_rate=1e9)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(0, 3), st.integers(0, 4), st.binary(max_size=2), st.booleans()
        ),
        max_size=40,
    )
)
def test_a_state_that_comes_alone_is_taken_as_one_that_has_company(
    steps: list[tuple[int, int, int, bytes, bool]],
) -> None:
    """Again, out of order, from elsewhere, on too many streams: the same events, answers and counters."""
    config = UdpConfig(max_state_streams=3, acknowledge_every=8)
    alone, accompanied = (bare_sessions(config=config)[1] for _ in range(2))
    now = 100.0
    for sequence, stream, number, payload, is_elsewhere in steps:
        now += 0.003
        outcomes = []
        for session, company in ((alone, ()), (accompanied, (Credit(0, 0),))):
            datagram = forge(sequence, State(stream, number, payload), *company)
            address = ("192.0.2.9", 9) if is_elsewhere else HERE
            reason = session.inbound.receive_datagram(datagram, address, now=now)
            told, timer = drain(session), session.get_timer()
            if now >= (timer or now):
                session.handle_timer(now=now)
            counters = session.statistics()
            # As many datagrams: which challenge goes into one is a matter of chance.
            answers = len(sent(session, now=now))
            outcomes.append((reason, told, timer, answers, counters.datagrams_received, counters.drops))
        assert outcomes[0] == outcomes[1]


@given(st.data())
def test_an_answer_is_taken_as_one_that_has_company(data: st.DataObject) -> None:
    """Again, out of order, from elsewhere, of what was never sent: as by the way of all other datagrams.

    The company is an answer to a challenge that was never made, of which nothing comes.
    """
    config = UdpConfig(max_state_streams=3, acknowledge_every=8, keepalive_interval=0.5, rekey_after=5.0)
    pair = [bare_sessions(config=config)[1] for _ in range(2)]
    now = 100.0
    while data.draw(st.integers(0, 30)) and not pair[0].is_closed:
        now += data.draw(st.sampled_from([0.001, 0.001, 0.03, 3.0]))
        newest = pair[0].outbound.sealer.next_sequence - 1
        stream = data.draw(st.integers(0, 2))
        sends_messages = data.draw(st.booleans())
        sequence = data.draw(st.integers(0, 40))
        stamp = stamp_of(now - data.draw(st.sampled_from([0.02, 0.007])))
        frames: list[Frame] = []
        if newest >= 0 and data.draw(st.booleans()):
            largest = max(newest - data.draw(st.sampled_from([0, 0, 1, 3, -1])), 0)
            named = data.draw(st.sampled_from([-1, -1, 0b1101, 0]))
            limit = data.draw(st.sampled_from([99, 1 << 30]))
            frames += [
                Ack(largest, named & ((1 << largest) - 1)),
                Credit(data.draw(st.sampled_from([0, 0, 11])), limit),
                *data.draw(st.sampled_from([(), (MessageCredit(0, limit),), (MessageCredit(1, limit),)])),
                *data.draw(st.sampled_from([(), (State(0, sequence, b"mine"),), (State(3, 0, b""),)])),
            ]
        address = data.draw(st.sampled_from([HERE, HERE, ("192.0.2.9", 9)]))
        outcomes = []
        for session, company in zip(pair, ((), (PathResponse(bytes(8)),)), strict=True):
            reason = None
            if frames:
                datagram = forge(sequence, *frames, *company, echo=(stamp, 3))
                reason = session.inbound.receive_datagram(datagram, address, now=now)
            else:
                session.send_state(b"state", stream=stream)
                if sends_messages:
                    session.send_reliable(b"message")
                    session.send_unordered(b"another")
            told, timer = drain(session), session.get_timer()
            if now >= (timer or now):
                session.handle_timer(now=now)
            # As long: what is in a challenge is a matter of chance.
            lengths = [len(datagram) for datagram in sent(session, now=now)]
            counters = replace(session.statistics(), bytes_received=0)
            unknown = session.states_unacknowledged, session.states_waiting
            known = [session.acknowledged_state(stream) for stream in range(3)]
            outcomes.append((reason, told, timer, lengths, counters, unknown, known))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("more", [(), (MessageCredit(0, 9),), (MessageCredit(0, 9), State(0, 0, b"mine"))])
def test_an_answer_is_taken_without_a_look_at_each_frame(
    more: tuple[Frame, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(plaintext: bytes, _start: int) -> list[Frame]:
        raise AssertionError(plaintext)

    monkeypatch.setattr("bridge.udp.inbound.parse_frames_untrusted", refuse)
    _, b = bare_sessions()
    number = b.send_state(b"state")
    sent(b, now=100.0)
    b.inbound.receive_datagram(forge(0, Ack(0, 0), Credit(0, 9), *more), HERE, now=100.01)
    assert b.acknowledged_state() == number


@pytest.mark.parametrize("claimed", [2, 4])
def test_a_lone_state_of_another_length_than_it_says_closes_the_session(claimed: int) -> None:
    _, b = bare_sessions()
    raw = STATE_HEADER.pack(STATE, 0, 0, claimed) + b"abc"
    b.inbound.receive_datagram(forge(0, raw=raw), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


def test_a_state_that_arrives_after_a_newer_one_is_dropped() -> None:
    a, b = bare_sessions()
    late = []
    for payload in (b"one", b"two"):
        a.send_state(payload)
        late += sent(a, now=100.0)
    for datagram in reversed(late):
        b.inbound.receive_datagram(datagram, HERE, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"two"]
    assert b.statistics().drops[DropReason.STALE_STATE] == 1


def test_states_nobody_takes_are_bounded_and_the_stalest_go_first() -> None:
    a, b = bare_sessions(config=UdpConfig(max_pending_states=3))
    for n in range(5):
        a.send_state(bytes([n]))
        exchange(a, b, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"\2", b"\3", b"\4"]
    assert b.statistics().drops[DropReason.STATE_OVERFLOW] == 2


def test_a_state_carries_the_age_of_the_echo_so_that_a_frozen_sender_shows() -> None:
    a, b = bare_sessions()
    b.send_state(b"stamp")
    exchange(b, a, now=100.0)
    a.send_state(b"sealed just before it froze")
    (frozen,) = sent(a, now=100.1)
    b.inbound.receive_datagram(frozen, b.address, now=103.0)
    (event,) = [event for event in drain(b) if isinstance(event, StateReceived)]
    assert event.echo_age == pytest.approx(3.0, abs=1e-3)


def test_acknowledgements_wait_for_company_but_not_beyond_their_limit() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    exchange(a, b, now=100.0)
    assert b.datagrams_to_send(now=100.0) == []
    assert b.get_timer() == pytest.approx(100.025)
    b.handle_timer(now=100.025)
    assert len(b.datagrams_to_send(now=100.025)) == 1


def test_a_batch_larger_than_an_acknowledgement_names_is_acknowledged_on_the_way() -> None:
    a, b = bare_sessions(config=FAST)
    numbers = [a.send_state(bytes(1000), stream=n) for n in range(600)]
    exchange(a, b, now=100.0)
    exchange(b, a, now=100.0)
    assert [a.acknowledged_state(n) for n in range(600)] == numbers
    assert a.statistics().datagrams_lost == 0


@pytest.mark.parametrize(
    "datagram",
    [
        forge(0, raw=b"\xff"),
        forge(0, Ack(5, 0)),
        forge(0, Credit(5, 10)),
        forge(0, Reliable((1 << 18) - 1, b"xx")),
    ],
    ids=["unknown frame", "ack of the unsent", "credit for the unsent", "beyond the credit"],
)
def test_authentic_bytes_that_break_the_protocol_close_the_session(datagram: bytes) -> None:
    _, b = bare_sessions()
    assert b.inbound.receive_datagram(datagram, HERE, now=100.0) is None
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR
    assert len(b.datagrams_to_send(now=100.0)) == 3


def test_a_message_longer_than_the_limit_closes_the_session_when_it_is_read() -> None:
    _, b = bare_sessions()
    b.inbound.receive_datagram(forge(0, Reliable(0, b"\xff\xff\xff\xff")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


def test_a_datagram_with_a_phase_bit_that_no_key_opens_is_dropped() -> None:
    _, b = bare_sessions()
    assert b.inbound.receive_datagram(forge(0, phase=1), HERE, now=100.0) is DropReason.KEY_PHASE
    assert b.statistics().drops == {DropReason.KEY_PHASE: 1}


def test_a_forged_sequence_does_not_move_the_replay_window() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    (datagram,) = sent(a, now=100.0)
    high = DATA_HEADER.pack(DATA, 2, 1 << 63) + datagram[DATA_HEADER.size :]
    assert b.inbound.receive_datagram(high, HERE, now=100.0) is DropReason.FORGED
    assert b.inbound.receive_datagram(datagram, HERE, now=100.0) is None


def test_streams_beyond_the_limit_are_dropped_and_counted() -> None:
    _, b = bare_sessions(config=UdpConfig(max_state_streams=2))
    for stream in range(4):
        b.inbound.receive_datagram(forge(stream, State(stream, 0, b"x")), HERE, now=100.0)
    assert len(drain(b)) == 2
    assert b.statistics().drops[DropReason.STATE_STREAMS] == 2


def test_an_unknown_close_reason_is_reported_as_unknown() -> None:
    _, b = bare_sessions()
    b.inbound.receive_datagram(forge(0, Close(60, "new")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert (closed.reason, closed.by_peer, closed.detail) == (CloseReason.UNKNOWN, True, "new")
    assert b.inbound.receive_datagram(forge(1), HERE, now=100.0) is DropReason.CLOSED


def test_a_local_reason_from_the_wire_is_unknown() -> None:
    _, b = bare_sessions()
    b.inbound.receive_datagram(forge(0, Close(CloseReason.DISPLACED.value, "")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.UNKNOWN


def test_bytes_behind_too_many_gaps_stay_unacknowledged_so_that_they_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.udp.reliable.MAX_GAPS", 2)
    _, b = bare_sessions()
    offsets = [100, 200, 300]
    results = [
        b.inbound.receive_datagram(forge(n, Reliable(offset, b"x")), b.address, now=100.0)
        for n, offset in enumerate(offsets)
    ]
    assert results == [None, None, DropReason.REASSEMBLY_FULL]
    assert b.inbound.receive_datagram(forge(2, Reliable(0, b"y")), b.address, now=100.0) is None


def run_of(session: Session, *, now: float) -> tuple[memoryview, Matrix]:
    """The one run a session wants to send, as an endpoint hands it to the other side."""
    (transmit,) = session.datagrams_to_send(now=now)
    datagrams = np.frombuffer(transmit.payload, dtype=np.uint8).reshape(-1, transmit.segment)
    return memoryview(transmit.payload), datagrams


def test_a_batch_arrives_as_one_event_when_its_datagrams_come_together() -> None:
    a, b = bare_sessions(config=FAST)
    rows = rows_of(40, MAX_STATE_BYTES)
    number = a.send_state(rows, stream=7)
    assert b.inbound.receive_run(*run_of(a, now=100.0), b.address, now=100.0) == []
    (event,) = drain(b)
    assert isinstance(event, StatesReceived)
    assert event.streams.tolist() == list(range(7, 47))
    assert set(event.numbers.tolist()) == {number}
    assert np.array_equal(event.payloads, rows)
    exchange(b, a, now=100.0)
    assert [a.acknowledged_state(stream) for stream in (6, 7, 46, 47)] == [None, number, number, None]


@given(lost=st.sets(st.integers(0, 29)), merged=st.booleans())
def test_whatever_of_a_batch_is_lost_the_rest_arrives_and_only_it_is_acknowledged(
    lost: set[int], merged: bool
) -> None:
    a, b = bare_sessions()
    rows = rows_of(30, 100)
    number = a.send_state(rows)
    _, datagrams = run_of(a, now=100.0)
    kept = np.delete(datagrams, sorted(lost), axis=0)
    if merged and len(kept):
        assert b.inbound.receive_run(memoryview(kept.tobytes()), kept, b.address, now=100.0) == []
    else:
        for datagram in kept:
            b.inbound.receive_datagram(datagram.tobytes(), b.address, now=100.0)
    received = {
        state.stream: state.payload
        for event in drain(b)
        if isinstance(event, StateReceived | StatesReceived)
        for state in event.states()
    }
    assert received == {n: rows[n].tobytes() for n in range(30) if n not in lost}
    b.handle_timer(now=100.03)
    exchange(b, a, now=100.03)
    assert [n for n in range(30) if a.acknowledged_state(n) == number] == sorted(received)


def test_one_forged_datagram_in_a_run_is_dropped_alone() -> None:
    a, b = bare_sessions()
    a.send_state(rows_of(10, 200))
    _, datagrams = run_of(a, now=100.0)
    forged = datagrams.copy()
    forged[4, -1] ^= 1
    assert b.inbound.receive_run(memoryview(forged.tobytes()), forged, b.address, now=100.0) == [
        DropReason.FORGED
    ]
    assert [event.stream for event in drain(b) if isinstance(event, StateReceived)] == [
        n for n in range(10) if n != 4
    ]


def test_a_run_that_comes_twice_is_refused_the_second_time() -> None:
    a, b = bare_sessions()
    a.send_state(rows_of(10, 200))
    run = run_of(a, now=100.0)
    b.inbound.receive_run(*run, b.address, now=100.0)
    assert b.inbound.receive_run(*run, b.address, now=100.0) == [DropReason.REPLAYED] * 10


def test_of_two_batches_in_one_run_both_arrive_in_order() -> None:
    a, b = bare_sessions()
    runs = []
    for _ in range(2):
        a.send_state(rows_of(5, 200))
        runs.append(run_of(a, now=100.0)[1])
    joined = np.concatenate(runs)
    b.inbound.receive_run(memoryview(joined.tobytes()), joined, b.address, now=100.0)
    (event,) = drain(b)
    assert isinstance(event, StatesReceived)
    assert event.streams.tolist() == [*range(5), *range(5)]
    assert event.numbers.tolist() == [0] * 5 + [1] * 5


def test_a_batch_that_arrives_after_a_newer_one_is_dropped() -> None:
    a, b = bare_sessions()
    runs = []
    for _ in range(2):
        a.send_state(rows_of(5, 200))
        runs.append(run_of(a, now=100.0))
    for run in reversed(runs):
        b.inbound.receive_run(*run, b.address, now=100.0)
    assert [event.numbers.tolist() for event in drain(b) if isinstance(event, StatesReceived)] == [[1] * 5]
    assert (
        b.statistics().drops == {DropReason.REPLAYED: 0} or b.statistics().drops[DropReason.STALE_STATE] == 5
    )


def test_reliable_messages_that_come_as_a_run_are_whole() -> None:
    a, b = bare_sessions()
    message = bytes(range(256)) * 40
    a.send_reliable(message)
    full = [datagram for datagram in sent(a, now=100.0) if len(datagram) == MAX_DATAGRAM_BYTES]
    rows = np.frombuffer(b"".join(full), dtype=np.uint8).reshape(len(full), -1)
    assert b.inbound.receive_run(memoryview(rows.tobytes()), rows, b.address, now=100.0) == []
    assert b.statistics().reassembly_bytes >= len(full) * 1100


@pytest.mark.parametrize("challenges", [0, 1, 2, 120])
def test_an_address_that_is_not_proven_gets_no_more_bytes_than_came_from_it(challenges: int) -> None:
    _, b = bare_sessions()
    elsewhere = ("198.51.100.9", 9)
    datagram = forge(0, *[PathChallenge(bytes(8))] * challenges)
    b.inbound.receive_datagram(datagram, elsewhere, now=100.0)
    answers = single_datagrams(b.datagrams_to_send(now=100.0))
    assert sum(len(answer) for answer, address in answers if address == elsewhere) <= len(datagram)


def test_answers_that_nobody_takes_are_few_and_the_end_is_told_all_the_same() -> None:
    """While the kernel has no room nothing is taken, and a peer may ask as often as it likes."""
    a, b = bare_sessions()
    for sequence in range(300):
        b.inbound.receive_datagram(forge(sequence, PathChallenge(bytes(8))), HERE, now=100.0)
    b.close()
    answers = sent(b, now=100.0)
    assert len(answers) < 100
    for answer in answers:
        a.inbound.receive_datagram(answer, HERE, now=100.0)
    (end,) = drain(a)
    assert isinstance(end, SessionClosed)


def test_as_many_pings_as_fit_are_acknowledged_once() -> None:
    _, b = bare_sessions()
    b.inbound.receive_datagram(forge(0, *[Ping()] * MAX_FRAMES_BYTES), HERE, now=100.0)
    (answer,) = sent(b, now=100.0)
    assert len(answer) < 100


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_the_last_datagram_acknowledges_is_not_told_as_undelivered(at: int) -> None:
    """Wherever in it CLOSE is, and of several the first counts."""
    _, b = bare_sessions()
    b.send_unordered(b"it arrived")
    b.send_reliable(b"this too")
    sent(b, now=100.0)
    frames: list[Frame] = [Ack(0, 0), Credit(12, 1 << 18)]
    frames.insert(at, Close(1, "the first"))
    b.inbound.receive_datagram(forge(0, *frames, Close(2, "the second")), HERE, now=100.1)
    (end,) = drain(b)
    assert isinstance(end, SessionClosed)
    assert (end.reason, end.detail) == (CloseReason.SHUTDOWN, "the first")
    assert end.undelivered == end.undelivered_unordered == ()


def test_acknowledgements_without_number_in_one_datagram_are_one_acknowledgement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each costs a look at all that is in flight."""
    _, b = bare_sessions()
    b.send_state(b"x")
    sent(b, now=100.0)
    applied: list[int] = []
    monkeypatch.setattr(
        "bridge.udp.outbound.Outbound.on_ack", lambda _self, largest, _bits, *, now: applied.append(largest)
    )
    b.inbound.receive_datagram(forge(0, *[Ack(0, 0)] * 100), HERE, now=100.1)
    assert applied == [0]


def test_nothing_is_taken_of_a_run_behind_the_end_of_the_session() -> None:
    _, b = bare_sessions()
    datagrams = [forge(0, Close(0, "x" * 6)), *[forge(n, PathChallenge(bytes(8))) for n in range(1, 5)]]
    run = b"".join(datagrams)
    matrix = np.frombuffer(run, dtype=np.uint8).reshape(len(datagrams), -1)
    assert b.inbound.receive_run(memoryview(run), matrix, HERE, now=100.0) == [DropReason.CLOSED] * 4


@pytest.mark.parametrize(
    "frame",
    [Message(1024, 1, 0, b"x"), Message(0, 60_000, 0, b"x"), MessageCredit(1, 1 << 20)],
    ids=["number", "credit", "of the unsent"],
)
def test_unordered_messages_beyond_what_was_granted_close_the_session(frame: Frame) -> None:
    _, b = bare_sessions()
    for n in range(5):
        b.inbound.receive_datagram(forge(n, Message(n, 50_000, 0, b"x")), HERE, now=100.0)
    assert not b.is_closed
    b.inbound.receive_datagram(forge(5, frame), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


def test_fragments_between_too_many_gaps_stay_unacknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.unordered.MAX_GAPS", 1)
    _, b = bare_sessions()
    assert b.inbound.receive_datagram(forge(0, Message(0, 90, 10, b"x")), HERE, now=100.0) is None
    full = b.inbound.receive_datagram(forge(1, Message(0, 90, 30, b"x")), HERE, now=100.0)
    assert full is DropReason.REASSEMBLY_FULL
    assert b.inbound.receive_datagram(forge(1, Message(0, 90, 0, b"x")), HERE, now=100.0) is None

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, InvalidStateError, LimitExceededError
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    SessionClosed,
    StateReceived,
    StatesReceived,
    UdpEvent,
)
from bridge.udp.keys import Aead, derive_session_keys
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
    MAX_CLOSE_TEXT_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_STATE_BYTES,
    NO_ECHO,
    PROLOGUE,
    STATE,
    STATE_HEADER,
    Ack,
    Close,
    Credit,
    Frame,
    Message,
    MessageCredit,
    PathChallenge,
    Reliable,
    State,
    encode_frame,
)
from bridge.udp.workspace import Matrix
from tests.support.datagrams import Host, Network, bare_sessions, connected_pair, single_datagrams

HERE = ("192.0.2.1", 1000)
FAST = UdpConfig(initial_rate=1e9)


def exchange(source: Session, target: Session, *, now: float) -> list[bytes]:
    datagrams = sent(source, now=now)
    for datagram in datagrams:
        assert target.receive_datagram(datagram, target.address, now=now) in (None, DropReason.CLOSED)
    return datagrams


def sent(session: Session, *, now: float) -> list[bytes]:
    return [datagram for datagram, _ in single_datagrams(session.datagrams_to_send(now=now))]


def drain(session: Session) -> list[UdpEvent]:
    events: list[UdpEvent] = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def forge(sequence: int, *frames: Frame, raw: bytes = b"", phase: int = 0) -> bytes:
    """A datagram from the peer of ``bare_sessions()[1]``, holding its keys but not its manners."""
    header = DATA_HEADER.pack(DATA | phase, 2, sequence)
    plaintext = PROLOGUE.pack(1, 0, NO_ECHO) + b"".join(map(encode_frame, frames)) + raw
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32))
    return header + Aead(keys.initiator).seal(sequence, plaintext, header)


def test_a_sequence_is_never_used_twice() -> None:
    a, b = bare_sessions()
    sequences = []
    for n in range(50):
        a.send_state(bytes([n]))
        sequences += [
            DATA_HEADER.unpack_from(datagram)[2] for datagram in exchange(a, b, now=100.0 + n / 1000)
        ]
    assert sequences == list(range(50))


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
            reason = session.receive_datagram(datagram, address, now=now)
            told, timer = drain(session), session.get_timer()
            if now >= (timer or now):
                session.handle_timer(now=now)
            counters = session.statistics()
            # As many datagrams: which challenge goes into one is a matter of chance.
            answers = len(sent(session, now=now))
            outcomes.append((reason, told, timer, answers, counters.datagrams_received, counters.drops))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("claimed", [2, 4])
def test_a_lone_state_of_another_length_than_it_says_closes_the_session(claimed: int) -> None:
    _, b = bare_sessions()
    raw = STATE_HEADER.pack(STATE, 0, 0, claimed) + b"abc"
    b.receive_datagram(forge(0, raw=raw), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


@pytest.mark.parametrize("size", [0, 1, MAX_STATE_BYTES - 30, MAX_STATE_BYTES])
def test_no_datagram_exceeds_1200_bytes(size: int) -> None:
    a, b = bare_sessions()
    random = Random(size)
    for turn in range(20):
        now = 100 + turn / 100
        for stream in range(random.randrange(1, 6)):
            a.send_state(bytes(size), stream=stream)
            b.send_state(bytes(random.randrange(MAX_STATE_BYTES)), stream=stream)
        a.send_reliable(bytes(random.randrange(3000)))
        for datagram in exchange(a, b, now=now) + exchange(b, a, now=now):
            assert len(datagram) <= MAX_DATAGRAM_BYTES


def test_a_state_above_its_limit_is_refused() -> None:
    a, _ = bare_sessions()
    with pytest.raises(LimitExceededError):
        a.send_state(bytes(MAX_STATE_BYTES + 1))


def test_only_the_newest_unsent_state_of_a_stream_is_sent() -> None:
    a, b = bare_sessions()
    for payload in (b"old", b"newer", b"newest"):
        a.send_state(payload, stream=1)
    a.send_state(b"other", stream=2)
    exchange(a, b, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"newest", b"other"]
    assert a.statistics().states_superseded == 2


def test_states_that_were_withdrawn_before_they_were_sealed_are_not_sent() -> None:
    a, b = bare_sessions()
    a.send_state(b"old", stream=1)
    a.drop_states()
    assert a.states_waiting == 0
    a.send_state(b"new", stream=1)
    exchange(a, b, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"new"]


def test_a_state_that_arrives_after_a_newer_one_is_dropped() -> None:
    a, b = bare_sessions()
    late = []
    for payload in (b"one", b"two"):
        a.send_state(payload)
        late += sent(a, now=100.0)
    for datagram in reversed(late):
        b.receive_datagram(datagram, HERE, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"two"]
    assert b.statistics().drops[DropReason.STALE_STATE] == 1


def test_the_sender_learns_which_state_arrived() -> None:
    a, b = bare_sessions()
    assert a.acknowledged_state(4) is None
    number = a.send_state(b"baseline", stream=4)
    exchange(a, b, now=100.0)
    b.handle_timer(now=100.03)
    exchange(b, a, now=100.03)
    assert a.acknowledged_state(4) == number


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
    b.receive_datagram(frozen, b.address, now=103.0)
    (event,) = [event for event in drain(b) if isinstance(event, StateReceived)]
    assert event.echo_age == pytest.approx(3.0, abs=1e-3)


def test_the_round_trip_excludes_the_time_the_echo_was_held() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    (question,) = sent(a, now=100.0)
    b.receive_datagram(question, HERE, now=100.02)
    b.handle_timer(now=100.045)
    (answer,) = sent(b, now=100.045)
    a.receive_datagram(answer, a.address, now=100.065)
    assert a.statistics().rtt == pytest.approx(0.04, abs=2e-4)


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
    assert b.receive_datagram(datagram, HERE, now=100.0) is None
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR
    assert len(b.datagrams_to_send(now=100.0)) == 3


def test_a_message_longer_than_the_limit_closes_the_session_when_it_is_read() -> None:
    _, b = bare_sessions()
    b.receive_datagram(forge(0, Reliable(0, b"\xff\xff\xff\xff")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


def test_a_datagram_with_a_phase_bit_that_no_key_opens_is_dropped() -> None:
    _, b = bare_sessions()
    assert b.receive_datagram(forge(0, phase=1), HERE, now=100.0) is DropReason.KEY_PHASE
    assert b.statistics().drops == {DropReason.KEY_PHASE: 1}


def test_a_forged_sequence_does_not_move_the_replay_window() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    (datagram,) = sent(a, now=100.0)
    high = DATA_HEADER.pack(DATA, 2, 1 << 63) + datagram[DATA_HEADER.size :]
    assert b.receive_datagram(high, HERE, now=100.0) is DropReason.FORGED
    assert b.receive_datagram(datagram, HERE, now=100.0) is None


def test_streams_beyond_the_limit_are_dropped_and_counted() -> None:
    _, b = bare_sessions(config=UdpConfig(max_state_streams=2))
    for stream in range(4):
        b.receive_datagram(forge(stream, State(stream, 0, b"x")), HERE, now=100.0)
    assert len(drain(b)) == 2
    assert b.statistics().drops[DropReason.STATE_STREAMS] == 2


def test_an_unknown_close_reason_is_reported_as_unknown() -> None:
    _, b = bare_sessions()
    b.receive_datagram(forge(0, Close(60, "new")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert (closed.reason, closed.by_peer, closed.detail) == (CloseReason.UNKNOWN, True, "new")
    assert b.receive_datagram(forge(1), HERE, now=100.0) is DropReason.CLOSED


def test_a_local_reason_from_the_wire_is_unknown() -> None:
    _, b = bare_sessions()
    b.receive_datagram(forge(0, Close(CloseReason.DISPLACED.value, "")), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.UNKNOWN


def test_a_closed_session_refuses_and_closing_twice_is_closing_once() -> None:
    a, b = bare_sessions()
    a.close(detail="é" * MAX_CLOSE_TEXT_BYTES)
    a.close(CloseReason.SHUTDOWN)
    with pytest.raises(InvalidStateError):
        a.send_state(b"x")
    with pytest.raises(InvalidStateError):
        a.send_reliable(b"x")
    first, *copies = sent(a, now=100.0)
    assert len(set(copies) | {first}) == 3
    b.receive_datagram(first, HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.detail == "é" * (MAX_CLOSE_TEXT_BYTES // 2)
    assert a.get_timer() is None


def test_what_is_not_bytes_is_refused_when_it_is_given_and_not_when_it_is_sealed() -> None:
    a, b = bare_sessions()
    calls: list[Any] = [a.send_state, a.send_reliable, a.send_unordered]
    for call in calls:
        for wrong in ("text", [b"x"], None, 7):
            with pytest.raises(ConfigurationError, match=r"bytes.*not (str|list|NoneType|int)"):
                call(wrong)
    a.send_unordered(b"fine")
    exchange(a, b, now=100.0)
    assert drain(b) == [MessageReceived(peer="a", payload=b"fine", ordered=False)]


@pytest.mark.parametrize("payload", [b"x", np.zeros((2, 5), dtype=np.uint8)])
@pytest.mark.parametrize("stream", [np.int64(3), np.uint8(3), 3])
def test_a_stream_may_be_an_index_of_numpys(payload: bytes | Matrix, stream: Any) -> None:
    a, b = bare_sessions()
    number = a.send_state(payload, stream)
    exchange(a, b, now=100.0)
    assert [state.stream for event in drain(b) for state in event.states()][:1] == [3]  # type: ignore[union-attr]
    b.handle_timer(now=101.0)
    exchange(b, a, now=101.0)
    assert a.acknowledged_state(stream) == number


def test_a_stream_or_a_reason_of_another_type_is_refused() -> None:
    a, _ = bare_sessions()
    wrong: Any
    for wrong in (1.5, "3", None):
        with pytest.raises(ConfigurationError, match="whole number"):
            a.send_state(b"x", wrong)
    for wrong in ("bye", 0, None):
        with pytest.raises(ConfigurationError, match=r"CloseReason\.…"):
            a.close(wrong)
    for wrong in (5, None):
        with pytest.raises(ConfigurationError, match="'text'"):
            a.close(detail=wrong)
    assert not a.is_closed


def test_a_detail_that_has_no_utf_8_is_told_as_far_as_it_has() -> None:
    a, b = bare_sessions()
    a.close(detail="x\ud800y")
    exchange(a, b, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.detail == "x?y"


def test_a_session_says_with_whom_it_is_and_why_it_ended() -> None:
    a, _ = bare_sessions()
    assert repr(a).endswith("open>")
    a.close(CloseReason.SHUTDOWN)
    assert repr(a).endswith("closed>")
    with pytest.raises(InvalidStateError, match="SHUTDOWN"):
        a.send_state(b"x")


def test_a_key_seals_no_more_than_its_limit() -> None:
    a, b = bare_sessions(config=UdpConfig(max_datagrams_per_key=10, rekey_after_datagrams=5))
    for n in range(12):
        if not a.is_closed:
            a.send_state(bytes([n]))
            exchange(a, b, now=100.0)
    (closed,) = drain(a)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.KEY_EXHAUSTED


def test_state_is_not_held_up_behind_the_reliable_stream() -> None:
    network, a, b = connected_pair()
    for _ in range(10):
        a.session("b").send_reliable(bytes(60_000))
    a.session("b").send_state(b"now")
    network.run(until=lambda: bool(b.of_type(StateReceived)))
    assert len(b.of_type(MessageReceived)) < 10


def test_a_probe_reopens_a_window_whose_grant_was_lost() -> None:
    """R0-31: credit lost on the way does not stop the stream for ever."""
    network, a, b = connected_pair()
    b.takes_events = False
    for n in range(6):
        a.session("b").send_reliable(bytes([n]) * 60_000)
    network.run(seconds=5)
    assert a.session("b").statistics().reliable_credit == 0
    b.conditioner.cut()
    b.takes_events = True
    network.settle(b)
    b.conditioner.mend()
    network.run(until=lambda: len(b.of_type(MessageReceived)) == 6)


def test_bytes_behind_too_many_gaps_stay_unacknowledged_so_that_they_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.udp.reliable.MAX_GAPS", 2)
    _, b = bare_sessions()
    offsets = [100, 200, 300]
    results = [
        b.receive_datagram(forge(n, Reliable(offset, b"x")), b.address, now=100.0)
        for n, offset in enumerate(offsets)
    ]
    assert results == [None, None, DropReason.REASSEMBLY_FULL]
    assert b.receive_datagram(forge(2, Reliable(0, b"y")), b.address, now=100.0) is None


def test_states_wait_while_as_many_datagrams_are_unacknowledged_as_may_be() -> None:
    a, b = bare_sessions(config=UdpConfig(max_flight_datagrams=10))
    a.send_state(rows_of(25, 400))
    first = sent(a, now=100.0)
    assert (len(first), a.states_waiting, a.states_unacknowledged) == (10, 15, 10)
    assert sent(a, now=100.0) == []
    for datagram in first:
        b.receive_datagram(datagram, b.address, now=100.0)
    b.handle_timer(now=100.025)
    exchange(b, a, now=100.025)
    assert len(sent(a, now=100.03)) == 10


def test_a_newer_batch_goes_on_where_the_rate_stopped_the_older_one() -> None:
    a, b = bare_sessions(config=UdpConfig(max_flight_datagrams=2))
    streams = []
    for turn in range(4):
        now = 100 + turn / 10
        a.send_state(rows_of(5, 400))
        exchange(a, b, now=now)
        streams += [event.stream for event in drain(b) if isinstance(event, StateReceived)]
        b.handle_timer(now=now + 0.03)
        for datagram in sent(b, now=now + 0.03):
            a.receive_datagram(datagram, a.address, now=now + 0.03)
    assert streams == [0, 1, 2, 3, 4, 0, 1, 2]


def run_of(session: Session, *, now: float) -> tuple[memoryview, Matrix]:
    """The one run a session wants to send, as an endpoint hands it to the other side."""
    (transmit,) = session.datagrams_to_send(now=now)
    datagrams = np.frombuffer(transmit.payload, dtype=np.uint8).reshape(-1, transmit.segment)
    return memoryview(transmit.payload), datagrams


def rows_of(count: int, size: int) -> Matrix:
    return np.frombuffer(Random(count).randbytes(count * size), dtype=np.uint8).reshape(count, size)


def test_a_batch_arrives_as_one_event_when_its_datagrams_come_together() -> None:
    a, b = bare_sessions(config=FAST)
    rows = rows_of(40, MAX_STATE_BYTES)
    number = a.send_state(rows, stream=7)
    assert b.receive_run(*run_of(a, now=100.0), b.address, now=100.0) == []
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
        assert b.receive_run(memoryview(kept.tobytes()), kept, b.address, now=100.0) == []
    else:
        for datagram in kept:
            b.receive_datagram(datagram.tobytes(), b.address, now=100.0)
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
    assert b.receive_run(memoryview(forged.tobytes()), forged, b.address, now=100.0) == [DropReason.FORGED]
    assert [event.stream for event in drain(b) if isinstance(event, StateReceived)] == [
        n for n in range(10) if n != 4
    ]


def test_a_run_that_comes_twice_is_refused_the_second_time() -> None:
    a, b = bare_sessions()
    a.send_state(rows_of(10, 200))
    run = run_of(a, now=100.0)
    b.receive_run(*run, b.address, now=100.0)
    assert b.receive_run(*run, b.address, now=100.0) == [DropReason.REPLAYED] * 10


def test_of_two_batches_in_one_run_both_arrive_in_order() -> None:
    a, b = bare_sessions()
    runs = []
    for _ in range(2):
        a.send_state(rows_of(5, 200))
        runs.append(run_of(a, now=100.0)[1])
    joined = np.concatenate(runs)
    b.receive_run(memoryview(joined.tobytes()), joined, b.address, now=100.0)
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
        b.receive_run(*run, b.address, now=100.0)
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
    assert b.receive_run(memoryview(rows.tobytes()), rows, b.address, now=100.0) == []
    assert b.statistics().reassembly_bytes >= len(full) * 1100


@pytest.mark.parametrize("batch", [np.zeros(5, np.uint8), np.zeros((2, 2), np.int64)])
def test_a_batch_of_another_shape_or_type_is_refused(batch: Matrix) -> None:
    a, _ = bare_sessions()
    with pytest.raises(ConfigurationError, match="one row for each stream"):
        a.send_state(batch)


@pytest.mark.parametrize("challenges", [0, 1, 2, 120])
def test_an_address_that_is_not_proven_gets_no_more_bytes_than_came_from_it(challenges: int) -> None:
    _, b = bare_sessions()
    elsewhere = ("198.51.100.9", 9)
    datagram = forge(0, *[PathChallenge(bytes(8))] * challenges)
    b.receive_datagram(datagram, elsewhere, now=100.0)
    answers = single_datagrams(b.datagrams_to_send(now=100.0))
    assert sum(len(answer) for answer, address in answers if address == elsewhere) <= len(datagram)


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
    b.receive_datagram(forge(0, *[Ack(0, 0)] * 100), HERE, now=100.1)
    assert applied == [0]


def test_nothing_is_taken_of_a_run_behind_the_end_of_the_session() -> None:
    _, b = bare_sessions()
    datagrams = [forge(0, Close(0, "x" * 6)), *[forge(n, PathChallenge(bytes(8))) for n in range(1, 5)]]
    run = b"".join(datagrams)
    matrix = np.frombuffer(run, dtype=np.uint8).reshape(len(datagrams), -1)
    assert b.receive_run(memoryview(run), matrix, HERE, now=100.0) == [DropReason.CLOSED] * 4


def test_timers_of_a_closed_session_do_nothing() -> None:
    a, _ = bare_sessions()
    a.close()
    a.datagrams_to_send(now=100.0)
    a.handle_timer(now=200.0)
    assert a.datagrams_to_send(now=200.0) == []


def test_a_session_asks_for_confirmation_until_the_peer_answers() -> None:
    a, b = bare_sessions()
    a.request_confirmation()
    assert len(a.datagrams_to_send(now=100.0)) == 1
    timer = a.get_timer()
    assert timer is not None
    a.handle_timer(now=timer)
    (again,) = sent(a, now=timer)
    b.receive_datagram(again, b.address, now=timer)
    assert b.is_confirmed
    exchange(b, a, now=timer)
    assert a.is_confirmed


def rekeying_pair(every: int, conditions: NetworkConditions | None = None) -> tuple[Network, Host, Host]:
    return connected_pair(config=UdpConfig(rekey_after_datagrams=every), conditions=conditions, seed=every)


@pytest.mark.parametrize("every", [1, 7, 40])
def test_no_datagram_is_lost_over_many_changes_of_keys(every: int) -> None:
    """Jitter of a whole one-way delay, so that datagrams of two phases come mixed."""
    network, a, b = rekeying_pair(every, NetworkConditions(delay=0.01, jitter=0.01))
    for tick in range(300):
        for host, peer in ((a, "b"), (b, "a")):
            for stream in range(3):
                host.session(peer).send_state(bytes([tick % 256]) * 900, stream=3 * tick + stream)
            host.session(peer).send_reliable(tick.to_bytes(4, "big"))
        network.run(seconds=0.002)
    network.run(seconds=0.2)
    for host, other in ((a, b), (b, a)):
        statistics = host.session(other.name).statistics()
        assert statistics.rekeys >= 5
        assert statistics.drops == {}
        assert statistics.datagrams_received == other.session(host.name).statistics().datagrams_sent
        assert len(host.of_type(StateReceived)) == 900
        assert [event.payload for event in host.of_type(MessageReceived)] == [
            tick.to_bytes(4, "big") for tick in range(300)
        ]
    assert abs(a.session("b").statistics().rekeys - b.session("a").statistics().rekeys) <= 1


def test_keys_change_in_signed_sessions_too() -> None:
    """Their datagrams have sequences of one phase and may be sealed when the next has begun."""
    config = UdpConfig(rekey_after_datagrams=5, signed=True, initial_rate=1e9)
    network, a, b = connected_pair(config=config, conditions=NetworkConditions(delay=0.01, jitter=0.005))
    for tick in range(60):
        for host, peer in ((a, "b"), (b, "a")):
            host.session(peer).send_state(rows_of(7, 300), stream=7 * tick)
            host.session(peer).send_reliable(tick.to_bytes(4, "big"))
        network.run(seconds=0.01)
    network.run(seconds=0.2)
    for host, other in ((a, b), (b, a)):
        statistics = host.session(other.name).statistics()
        assert statistics.rekeys >= 5
        assert statistics.drops == {}
        assert statistics.datagrams_received == other.session(host.name).statistics().datagrams_sent


def test_keys_change_with_time_even_where_little_is_sent() -> None:
    network, a, b = connected_pair(config=UdpConfig(rekey_after=60.0))
    network.run(seconds=605)
    assert a.session("b").statistics().rekeys >= 8
    assert b.session("a").statistics().rekeys >= 8
    a.session("b").send_reliable(b"still here")
    network.run(until=lambda: bool(b.of_type(MessageReceived)))


def test_keys_change_under_loss_and_reliable_messages_arrive_all_the_same() -> None:
    network, a, b = rekeying_pair(5, NetworkConditions(delay=0.01, jitter=0.02, loss=0.2, duplicate=0.1))
    for n in range(200):
        a.session("b").send_reliable(bytes([n]) * 500)
    network.run(until=lambda: len(b.of_type(MessageReceived)) == 200)
    assert a.session("b").statistics().rekeys >= 3


def test_a_peer_that_never_acknowledges_is_never_left_behind_by_a_change_of_keys() -> None:
    a, _ = bare_sessions(config=UdpConfig(rekey_after_datagrams=1, rekey_after=1.0))
    for n in range(20):
        a.send_state(b"x")
        a.datagrams_to_send(now=100.0 + n)
    assert a.statistics().rekeys == 0


def unordered_of(host: Host) -> list[bytes]:
    return [event.payload for event in host.of_type(MessageReceived) if not event.ordered]


@pytest.mark.parametrize("size", [0, 1, 1200, 65_536])
def test_unordered_messages_cross_both_ways_beside_ordered_ones(size: int) -> None:
    network, a, b = connected_pair()
    for host, peer in ((a, "b"), (b, "a")):
        host.session(peer).send_unordered(bytes(size))
        host.session(peer).send_reliable(b"in order")
    network.run(until=lambda: all(len(host.of_type(MessageReceived)) == 2 for host in (a, b)))
    for host in (a, b):
        assert unordered_of(host) == [bytes(size)]


def test_an_unordered_message_does_not_wait_for_a_lost_one() -> None:
    network, a, b = connected_pair()
    lost = network.now
    network.drop = lambda _datagram, source, _target: source == a.address and network.now == lost
    a.session("b").send_unordered(b"lost at first")
    network.settle(a)
    network.run(seconds=0.001)
    a.session("b").send_unordered(b"later")
    network.run(until=lambda: len(unordered_of(b)) == 2)
    assert unordered_of(b) == [b"later", b"lost at first"]


def test_all_unordered_messages_arrive_once_through_a_bad_network() -> None:
    conditions = NetworkConditions(delay=0.01, jitter=0.02, loss=0.15, duplicate=0.1)
    network, a, b = connected_pair(conditions=conditions, seed=5)
    random = Random(5)
    sent = [n.to_bytes(2, "big") + random.randbytes(random.choice([0, 10, 3000, 30_000])) for n in range(150)]
    waiting = list(sent)

    def send_more() -> bool:
        while waiting:
            try:
                a.session("b").send_unordered(waiting[0])
            except LimitExceededError:
                break
            del waiting[0]
        return len(unordered_of(b)) == len(sent)

    network.run(until=send_more, seconds=120)
    assert sorted(unordered_of(b)) == sorted(sent)
    network.run(seconds=1)
    assert a.session("b").statistics().unordered_buffered == 0


def test_a_stalled_reader_stops_the_sender_and_holds_no_more_than_its_window() -> None:
    """R0-31: the sender stops at zero credit, and memory is bounded on both sides."""
    config = UdpConfig(reliable_window_bytes=150_000, reliable_buffer_bytes=400_000)
    network, a, b = connected_pair(config=config)
    b.takes_events = False
    sent = 0
    refused = False
    while not refused:
        try:
            a.session("b").send_unordered(sent.to_bytes(2, "big") * 5000)
            sent += 1
        except LimitExceededError:
            refused = True
            network.run(seconds=0.5)
    network.run(seconds=5)
    sender, receiver = a.session("b").statistics(), b.session("a").statistics()
    assert sender.unordered_credit < 10_000
    assert receiver.reassembly_bytes <= 150_000
    assert sender.unordered_buffered <= 400_000
    network.run(seconds=5)
    probes = a.session("b").statistics().bytes_sent - sender.bytes_sent
    assert probes < 10_000
    b.takes_events = True
    network.settle(b)
    network.run(until=lambda: len(unordered_of(b)) == sent)


def test_a_lost_grant_does_not_stop_unordered_messages_for_ever() -> None:
    config = UdpConfig(reliable_window_bytes=140_000)
    network, a, b = connected_pair(config=config)
    b.takes_events = False
    for n in range(4):
        a.session("b").send_unordered(bytes([n]) * 60_000)
    network.run(seconds=5)
    network.drop = lambda _datagram, source, _target: source == b.address
    b.takes_events = True
    network.settle(b)
    network.run(seconds=0.1)
    network.drop = lambda *_: False
    network.run(until=lambda: len(unordered_of(b)) == 4)


def test_empty_unordered_messages_go_on_as_they_are_taken() -> None:
    network, a, b = connected_pair()
    for _ in range(5000):
        a.session("b").send_unordered(b"")
    network.run(until=lambda: len(unordered_of(b)) == 5000)


def test_unordered_messages_not_acknowledged_are_told_at_the_end() -> None:
    network, a, b = connected_pair()
    network.crash(b)
    a.session("b").send_unordered(b"never there")
    a.session("b").send_reliable(b"nor this")
    network.run(until=lambda: bool(a.of_type(SessionClosed)))
    (closed,) = a.of_type(SessionClosed)
    assert (closed.undelivered, closed.undelivered_unordered) == ((b"nor this",), (b"never there",))


@pytest.mark.parametrize(
    "frame",
    [Message(1024, 1, 0, b"x"), Message(0, 60_000, 0, b"x"), MessageCredit(1, 1 << 20)],
    ids=["number", "credit", "of the unsent"],
)
def test_unordered_messages_beyond_what_was_granted_close_the_session(frame: Frame) -> None:
    _, b = bare_sessions()
    for n in range(5):
        b.receive_datagram(forge(n, Message(n, 50_000, 0, b"x")), HERE, now=100.0)
    assert not b.is_closed
    b.receive_datagram(forge(5, frame), HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.reason is CloseReason.PROTOCOL_ERROR


def test_fragments_between_too_many_gaps_stay_unacknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.unordered.MAX_GAPS", 1)
    _, b = bare_sessions()
    assert b.receive_datagram(forge(0, Message(0, 90, 10, b"x")), HERE, now=100.0) is None
    full = b.receive_datagram(forge(1, Message(0, 90, 30, b"x")), HERE, now=100.0)
    assert full is DropReason.REASSEMBLY_FULL
    assert b.receive_datagram(forge(1, Message(0, 90, 0, b"x")), HERE, now=100.0) is None


def test_a_batch_beyond_the_burst_goes_out_in_time_by_itself() -> None:
    network, a, b = connected_pair(config=UdpConfig(initial_rate=1e6))
    network.log.clear()
    begin = network.now
    a.session("b").send_state(rows_of(100, 1000))
    network.settle(a)
    assert 16 <= len(network.log) <= 19
    assert a.session("b").states_waiting == 100 - len(network.log)
    network.run(until=lambda: len(b.of_type(StateReceived)) == 100)
    assert 0.02 < network.now - begin < 0.12
    assert a.session("b").statistics().paced >= 1


def test_what_waits_for_the_rate_is_superseded_by_what_is_newer() -> None:
    network, a, b = connected_pair(config=UdpConfig(initial_rate=64e3, max_rate=64e3))
    for tick in range(200):
        for stream in range(4):
            a.session("b").send_state(bytes([tick]) * 1100, stream=stream)
        network.run(seconds=0.005)
    statistics = a.session("b").statistics()
    assert statistics.states_superseded > 600
    assert statistics.bytes_sent < 64e3 + 40_000
    received = b.of_type(StateReceived)
    assert {event.stream for event in received[-4:]} == {0, 1, 2, 3}
    assert min(event.payload[0] for event in received[-4:]) > 180


def test_messages_leave_half_of_the_rate_to_states() -> None:
    network, a, b = connected_pair(config=UdpConfig(initial_rate=200e3, max_rate=200e3))
    for _ in range(15):
        a.session("b").send_unordered(bytes(60_000))
    for tick in range(200):
        a.session("b").send_state(bytes([tick]) * 1100)
        network.run(seconds=0.01)
    states = len(b.of_type(StateReceived))
    messages = sum(len(event.payload) for event in b.of_type(MessageReceived))
    assert states > 60
    assert messages > 120_000


def offer(network: Network, host: Host, peer: str, *, seconds: float, rate: float) -> tuple[float, float]:
    """Offer states, bytes a second; ``(bytes a second sent, share lost)``."""
    session = host.session(peer)
    sent, lost = session.statistics().bytes_sent, host.conditioner.statistics().overflowed
    log = len(network.log)
    for _ in range(int(seconds / 0.01)):
        session.send_state(rows_of(int(rate * 0.01 / 1150), 1100), stream=0)
        network.run(seconds=0.01)
    sent = session.statistics().bytes_sent - sent
    lost = host.conditioner.statistics().overflowed - lost
    datagrams = sum(source == host.address for source, _, _ in network.log[log:])
    return sent / seconds, lost / datagrams


def test_the_rate_comes_near_that_of_a_slow_link_and_recovers_when_the_link_does() -> None:
    slow = NetworkConditions(delay=0.01, rate=400e3, queue=20_000)
    network, a, _ = connected_pair(conditions=slow, config=UdpConfig(initial_rate=2.5e6, max_rate=4e6))
    _, at_first = offer(network, a, "b", seconds=0.5, rate=2e6)
    offer(network, a, "b", seconds=6, rate=2e6)
    sent, lost = offer(network, a, "b", seconds=3, rate=2e6)
    assert 320e3 < sent < 500e3
    assert lost < 0.13 < at_first
    a.conditioner.set_conditions(NetworkConditions(delay=0.01))
    offer(network, a, "b", seconds=3, rate=2e6)
    sent, lost = offer(network, a, "b", seconds=1, rate=2e6)
    assert sent > 1.8e6
    assert lost == 0


def test_jitter_and_reordering_alone_do_not_lower_the_rate() -> None:
    jittery = NetworkConditions(delay=0.02, jitter=0.02)
    network, a, _ = connected_pair(conditions=jittery)
    offer(network, a, "b", seconds=2, rate=1e6)
    sent, _ = offer(network, a, "b", seconds=2, rate=1e6)
    assert sent > 0.91e6

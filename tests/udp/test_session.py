from __future__ import annotations

from random import Random

import pytest

from bridge.errors import InvalidStateError, LimitExceededError
from bridge.udp.config import UdpConfig
from bridge.udp.events import CloseReason, MessageReceived, SessionClosed, StateReceived, UdpEvent
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
    Ack,
    Close,
    Credit,
    Frame,
    Reliable,
    State,
    encode_frame,
)
from tests.support.datagrams import bare_sessions, connected_pair

HERE = ("192.0.2.1", 1000)


def exchange(source: Session, target: Session, *, now: float) -> list[bytes]:
    datagrams = [datagram for datagram, _ in source.datagrams_to_send(now=now)]
    for datagram in datagrams:
        assert target.receive_datagram(datagram, target.address, now=now) in (None, DropReason.CLOSED)
    return datagrams


def drain(session: Session) -> list[UdpEvent]:
    events = []
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


def test_a_state_that_arrives_after_a_newer_one_is_dropped() -> None:
    a, b = bare_sessions()
    late = []
    for payload in (b"one", b"two"):
        a.send_state(payload)
        late += a.datagrams_to_send(now=100.0)
    for datagram, _ in reversed(late):
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
    frozen = a.datagrams_to_send(now=100.1)
    b.receive_datagram(frozen[0][0], b.address, now=103.0)
    (event,) = [event for event in drain(b) if isinstance(event, StateReceived)]
    assert event.echo_age == pytest.approx(3.0, abs=1e-3)


def test_the_round_trip_excludes_the_time_the_echo_was_held() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    (sent,) = a.datagrams_to_send(now=100.0)
    b.receive_datagram(sent[0], HERE, now=100.02)
    b.handle_timer(now=100.045)
    (answer,) = b.datagrams_to_send(now=100.045)
    a.receive_datagram(answer[0], a.address, now=100.065)
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
    a, b = bare_sessions()
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


def test_the_reserved_key_phase_is_dropped() -> None:
    _, b = bare_sessions()
    assert b.receive_datagram(forge(0, phase=1), HERE, now=100.0) is DropReason.KEY_PHASE
    assert b.statistics().drops == {DropReason.KEY_PHASE: 1}


def test_a_forged_sequence_does_not_move_the_replay_window() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    ((datagram, _),) = a.datagrams_to_send(now=100.0)
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
    first, *copies = (datagram for datagram, _ in a.datagrams_to_send(now=100.0))
    assert len(set(copies) | {first}) == 3
    b.receive_datagram(first, HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.detail == "é" * (MAX_CLOSE_TEXT_BYTES // 2)
    assert a.get_timer() is None


def test_a_key_seals_no_more_than_its_limit() -> None:
    a, b = bare_sessions(config=UdpConfig(max_datagrams_per_key=10))
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
    network.drop = lambda _datagram, source, _target: source == b.address
    b.takes_events = True
    network.settle(b)
    network.drop = lambda _datagram, _source, _target: False
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


def test_a_session_in_which_nothing_is_acknowledged_gives_up_the_oldest_datagrams() -> None:
    a, _ = bare_sessions()
    for n in range(4200):
        a.send_state(b"", stream=n % 1000)
        a.datagrams_to_send(now=100.0)
    assert a.statistics().datagrams_lost == 4200 - 4096


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
    (again,) = a.datagrams_to_send(now=timer)
    b.receive_datagram(again[0], b.address, now=timer)
    assert b.is_confirmed
    exchange(b, a, now=timer)
    assert a.is_confirmed

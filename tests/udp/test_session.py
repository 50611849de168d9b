from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from bridge.errors import ConfigurationError, InvalidStateError, LimitExceededError
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    SessionClosed,
    StateReceived,
)
from bridge.udp.frames import (
    MAX_CLOSE_TEXT_BYTES,
    MAX_STATE_BYTES,
)
from bridge.udp.session import Session
from bridge.udp.wire import (
    DATA_HEADER,
    MAX_DATAGRAM_BYTES,
)
from bridge.udp.workspace import Matrix
from tests.support.datagrams import Host, Network, bare_sessions, connected_pair
from tests.support.sessions import drain, exchange, rows_of, sent

HERE = ("192.0.2.1", 1000)


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


def test_states_that_were_withdrawn_before_they_were_sealed_are_not_sent() -> None:
    a, b = bare_sessions()
    a.send_state(b"old", stream=1)
    a.drop_states()
    assert a.states_waiting == 0
    a.send_state(b"new", stream=1)
    exchange(a, b, now=100.0)
    assert [event.payload for event in drain(b) if isinstance(event, StateReceived)] == [b"new"]


def test_the_sender_learns_which_state_arrived() -> None:
    a, b = bare_sessions()
    assert a.acknowledged_state(4) is None
    number = a.send_state(b"baseline", stream=4)
    exchange(a, b, now=100.0)
    b.handle_timer(now=100.03)
    exchange(b, a, now=100.03)
    assert a.acknowledged_state(4) == number


def test_the_round_trip_excludes_the_time_the_echo_was_held() -> None:
    a, b = bare_sessions()
    a.send_state(b"x")
    (question,) = sent(a, now=100.0)
    b.inbound.receive_datagram(question, HERE, now=100.02)
    b.handle_timer(now=100.045)
    (answer,) = sent(b, now=100.045)
    a.inbound.receive_datagram(answer, a.address, now=100.065)
    assert a.statistics().rtt == pytest.approx(0.04, abs=2e-4)


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
    b.inbound.receive_datagram(first, HERE, now=100.0)
    (closed,) = drain(b)
    assert isinstance(closed, SessionClosed)
    assert closed.detail == "é" * (MAX_CLOSE_TEXT_BYTES // 2)
    assert a.get_timer() is None


def test_who_reads_what_a_session_left_has_nobody_look_at_it_again() -> None:
    a, b = bare_sessions()
    a.send_reliable(b"one")
    exchange(a, b, now=100.0)
    b.handle_timer(now=101.0)
    assert sent(b, now=101.0)
    b.close()
    assert sent(b, now=101.0)
    pending: list[Session] = []
    b._on_pending = pending.append
    assert [type(event) for event in drain(b)] == [MessageReceived, SessionClosed]
    assert pending == []


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


def test_states_wait_while_as_many_datagrams_are_unacknowledged_as_may_be() -> None:
    a, b = bare_sessions(config=UdpConfig(max_flight_datagrams=10))
    a.send_state(rows_of(25, 400))
    first = sent(a, now=100.0)
    assert (len(first), a.states_waiting, a.states_unacknowledged) == (10, 15, 10)
    assert sent(a, now=100.0) == []
    for datagram in first:
        b.inbound.receive_datagram(datagram, b.address, now=100.0)
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
            a.inbound.receive_datagram(datagram, a.address, now=now + 0.03)
    assert streams == [0, 1, 2, 3, 4, 0, 1, 2]


@pytest.mark.parametrize("batch", [np.zeros(5, np.uint8), np.zeros((2, 2), np.int64)])
def test_a_batch_of_another_shape_or_type_is_refused(batch: Matrix) -> None:
    a, _ = bare_sessions()
    with pytest.raises(ConfigurationError, match="one row for each stream"):
        a.send_state(batch)


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
    b.inbound.receive_datagram(again, b.address, now=timer)
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

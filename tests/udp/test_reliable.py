from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import LimitExceededError, ProtocolError
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.events import MessageReceived, SessionClosed
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
)
from bridge.udp.reliable import MAX_GAPS, ReliableReceiver, ReliableSender
from tests.support.datagrams import connected_pair

WINDOW = 256 << 10


def drain(receiver: ReliableReceiver) -> list[bytes]:
    messages = []
    while (message := receiver.next_message()) is not None:
        messages.append(message)
    return messages


@given(
    messages=st.lists(st.binary(max_size=400), max_size=30),
    chunk=st.integers(1, 90),
    seed=st.integers(0, 1 << 32),
)
def test_messages_arrive_complete_and_in_order_whatever_is_lost_repeated_or_reordered(
    messages: list[bytes], chunk: int, seed: int
) -> None:
    random = Random(seed)
    sender = ReliableSender(credit=WINDOW, buffer_limit=WINDOW)
    receiver = ReliableReceiver(window=WINDOW)
    for message in messages:
        sender.write(message)
    received: list[bytes] = []
    while sender.buffered:
        flight = []
        while (taken := sender.take(chunk)) is not None:
            flight.append(taken)
        random.shuffle(flight)
        for offset, data in flight:
            fate = random.random()
            if fate < 0.3:
                sender.lose(offset, offset + len(data))
                continue
            for _ in range(1 + (fate > 0.8)):
                assert receiver.can_accept(offset, len(data))
                receiver.insert(offset, data)
        received += drain(receiver)
        sender.update(receiver.received, receiver.limit)
    assert received == messages
    assert sender.taken == sender.end
    assert not sender.in_flight
    assert receiver.buffered == 0


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.floats(0, 0.3),
    jitter=st.floats(0, 0.05),
    duplication=st.floats(0, 0.5),
    sizes=st.lists(st.one_of(st.integers(0, 50), st.integers(0, MAX_MESSAGE_BYTES)), max_size=12),
)
def test_sessions_deliver_every_message_in_order_over_a_bad_network(
    seed: int, loss: float, jitter: float, duplication: float, sizes: list[int]
) -> None:
    conditions = NetworkConditions(loss=loss, delay=0.01, jitter=jitter, duplicate=duplication, reorder=0.1)
    network, a, b = connected_pair(seed=seed)
    for host in (a, b):
        host.conditioner.set_conditions(conditions)
    random = Random(seed)
    sent = [random.randbytes(size) for size in sizes]
    for message in sent:
        a.session("b").send_reliable(message)
    network.run(until=lambda: len(b.of_type(MessageReceived)) == len(sent), seconds=600)
    assert [event.payload for event in b.of_type(MessageReceived)] == sent
    assert not a.of_type(SessionClosed)


def test_a_sender_stops_at_zero_credit_and_goes_on_when_some_is_granted() -> None:
    """R0-31: a sender stops at zero credit."""
    sender = ReliableSender(credit=10, buffer_limit=WINDOW)
    sender.write(bytes(50))
    assert sender.take(1000) == (0, b"\0\0\0\x32" + bytes(6))
    assert sender.take(1000) is None
    assert sender.is_blocked
    assert sender.available_credit == 0
    sender.update(10, 12)
    assert sender.take(1000) == (10, bytes(2))


def test_a_receiver_whose_application_takes_nothing_stops_its_peer_with_bounded_memory() -> None:
    """R0-31: receiver memory stays bounded, and everything arrives once the application goes on."""
    config = UdpConfig(reliable_buffer_bytes=1 << 20)
    network, a, b = connected_pair(config=config)
    b.takes_events = False
    sent = [bytes([n]) * 60_000 for n in range(12)]
    for message in sent:
        a.session("b").send_reliable(message)
    network.run(seconds=8)
    statistics = a.session("b").statistics()
    assert statistics.reliable_credit == 0
    assert b.session("a").statistics().reassembly_bytes <= config.reliable_window_bytes
    network.run(seconds=30)
    assert not a.of_type(SessionClosed)
    b.takes_events = True
    network.run(until=lambda: len(b.of_type(MessageReceived)) == len(sent))
    assert [event.payload for event in b.of_type(MessageReceived)] == sent


def test_a_full_buffer_refuses_and_empties_as_the_peer_acknowledges() -> None:
    sender = ReliableSender(credit=WINDOW, buffer_limit=300)
    sender.write(bytes(196))
    with pytest.raises(LimitExceededError, match="reliable_buffer_bytes"):
        sender.write(bytes(97))
    sender.write(bytes(96))
    sender.take(1000)
    sender.update(200, WINDOW)
    sender.write(bytes(196))


@pytest.mark.parametrize(("size", "fits"), [(MAX_MESSAGE_BYTES, True), (MAX_MESSAGE_BYTES + 1, False)])
def test_a_message_has_at_most_64_kib(size: int, fits: bool) -> None:
    sender = ReliableSender(credit=WINDOW, buffer_limit=WINDOW)
    if fits:
        sender.write(bytes(size))
    else:
        with pytest.raises(LimitExceededError, match="MAX_MESSAGE_BYTES"):
            sender.write(bytes(size))


def test_a_received_length_above_the_limit_is_a_broken_protocol() -> None:
    receiver = ReliableReceiver(window=WINDOW)
    receiver.insert(0, (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError):
        receiver.next_message()


def test_bytes_beyond_the_granted_credit_are_a_broken_protocol() -> None:
    receiver = ReliableReceiver(window=WINDOW)
    assert receiver.can_accept(WINDOW - 10, 10)
    with pytest.raises(ProtocolError):
        receiver.can_accept(WINDOW - 10, 11)


def test_runs_behind_gaps_are_bounded_but_what_fills_the_first_gap_is_always_taken() -> None:
    receiver = ReliableReceiver(window=WINDOW)
    for n in range(MAX_GAPS):
        receiver.insert(10 + 2 * n, b"x")
    assert not receiver.can_accept(10 + 2 * MAX_GAPS, 1)
    assert receiver.can_accept(0, 10)


def test_acknowledging_what_was_never_sent_is_a_broken_protocol() -> None:
    sender = ReliableSender(credit=WINDOW, buffer_limit=WINDOW)
    with pytest.raises(ProtocolError):
        sender.update(1, WINDOW)


def test_an_old_credit_takes_nothing_back() -> None:
    sender = ReliableSender(credit=100, buffer_limit=WINDOW)
    sender.write(bytes(50))
    sender.take(54)
    sender.update(54, 200)
    sender.update(10, 100)
    assert (sender.acknowledged, sender.credit) == (54, 200)


def test_undelivered_messages_are_those_not_wholly_acknowledged() -> None:
    sender = ReliableSender(credit=WINDOW, buffer_limit=WINDOW)
    for message in (b"first", b"second", b"third"):
        sender.write(message)
    sender.take(1000)
    sender.update(4 + 5 + 4 + 3, WINDOW)
    assert sender.undelivered() == (b"second", b"third")


def test_a_lost_run_that_another_copy_delivered_is_not_sent_again() -> None:
    sender = ReliableSender(credit=WINDOW, buffer_limit=WINDOW)
    sender.write(bytes(96))
    sender.take(1000)
    sender.update(60, WINDOW)
    sender.lose(0, 50)
    assert not sender.has_pending
    sender.lose(40, 80)
    assert sender.take(1000) == (60, bytes(20))


def test_credit_tells_what_the_application_took_and_not_what_arrived() -> None:
    sender, receiver = ReliableSender(credit=WINDOW, buffer_limit=WINDOW), ReliableReceiver(window=WINDOW)
    sender.write(b"one")
    run = sender.take(1_200)
    assert run is not None
    receiver.insert(*run)
    sender.update(receiver.received, receiver.limit)
    assert (sender.acknowledged, sender.taken) == (sender.end, 0)
    drain(receiver)
    sender.update(receiver.received, receiver.limit)
    assert sender.taken == sender.end

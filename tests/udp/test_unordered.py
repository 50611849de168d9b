from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import LimitExceededError, ProtocolError
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
    Message,
)
from bridge.udp.unordered import MAX_AHEAD, UnorderedReceiver, UnorderedSender

WINDOW = 256 << 10
CHUNK = 1000


def sender(*, credit: int = WINDOW, buffer_limit: int = 1 << 20) -> UnorderedSender:
    return UnorderedSender(credit=credit, buffer_limit=buffer_limit)


def receiver(*, window: int = WINDOW) -> UnorderedReceiver:
    return UnorderedReceiver(window=window)


def drain(source: UnorderedSender, size: int = CHUNK) -> list[Message]:
    fragments = []
    while (fragment := source.take(size)) is not None:
        fragments.append(fragment)
    return fragments


def span(fragment: Message) -> tuple[int, int, int]:
    return fragment.number, fragment.offset, fragment.offset + len(fragment.chunk)


def messages_of(target: UnorderedReceiver) -> list[bytes]:
    messages = []
    while (message := target.next_message()) is not None:
        messages.append(message)
    return messages


@given(st.integers(0, 1 << 32), st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_whatever_is_lost_doubled_or_reordered_each_message_arrives_once(seed: int, sizes: list[int]) -> None:
    random = Random(seed)
    source, target = sender(credit=8000), receiver(window=8000)
    sent = [random.randbytes(size) for size in sizes]
    for message in sent:
        source.write(message)
    arrived: list[bytes] = []
    while source.buffered:
        fragments = []
        while random.random() < 0.95 and (fragment := source.take(random.randrange(1, 1500))) is not None:
            fragments.append(fragment)
        random.shuffle(fragments)
        for fragment in fragments:
            if random.random() < 0.3:
                source.lose(*span(fragment))
                continue
            for _ in range(random.randrange(1, 3)):
                assert target.can_accept(fragment)
                target.insert(fragment)
            source.acknowledge(*span(fragment))
        assert target.buffered <= 8000
        if random.random() < 0.5:
            arrived += messages_of(target)
            source.update(target.low_water, target.limit)
    arrived += messages_of(target)
    assert Counter(arrived) == Counter(sent)
    assert (source.in_flight, source.has_pending, source.is_blocked) == (False, False, False)
    assert (target.buffered, target.low_water) == (0, len(sent))


def test_a_message_behind_a_lost_one_is_handed_over_at_once() -> None:
    source, target = sender(), receiver()
    for message in (b"lost", b"here"):
        source.write(message)
    _, second = drain(source)
    target.insert(second)
    assert messages_of(target) == [b"here"]
    assert target.low_water == 0


def test_a_sender_at_its_credit_stops_and_goes_on_once_messages_are_taken() -> None:
    """R0-31: nothing is begun that the receiver has no room for."""
    source, target = sender(credit=2500), receiver(window=2500)
    for n in range(4):
        source.write(bytes([n]) * 1000)
    for fragment in drain(source, size=300):
        target.insert(fragment)
        source.acknowledge(*span(fragment))
    assert source.is_blocked
    assert source.available_credit == 500
    assert target.buffered == 2000
    target.next_message()
    source.update(target.low_water, target.limit)
    assert {fragment.number for fragment in drain(source)} == {2}
    assert source.available_credit == 500


def test_empty_messages_are_bounded_by_their_numbers() -> None:
    source, target = sender(), receiver()
    for _ in range(MAX_AHEAD + 10):
        source.write(b"")
    for fragment in drain(source):
        target.insert(fragment)
        source.acknowledge(*span(fragment))
    assert source.is_blocked
    assert target.next_message() == b""
    source.update(target.low_water, target.limit)
    assert len(drain(source)) == 1


@pytest.mark.parametrize("size", [1, MAX_MESSAGE_BYTES])
def test_messages_of_every_allowed_size_cross(size: int) -> None:
    source, target = sender(), receiver()
    source.write(bytes(size))
    for fragment in drain(source):
        target.insert(fragment)
    assert messages_of(target) == [bytes(size)]


def test_a_message_above_its_limit_or_the_buffer_is_refused() -> None:
    source = sender(buffer_limit=3000)
    with pytest.raises(LimitExceededError, match="MAX_MESSAGE_BYTES"):
        source.write(bytes(MAX_MESSAGE_BYTES + 1))
    source.write(bytes(2000))
    with pytest.raises(LimitExceededError, match="reliable_buffer_bytes"):
        source.write(bytes(937))
    assert source.buffered == 2064


def test_the_buffer_takes_only_so_many_empty_messages() -> None:
    source = sender(buffer_limit=640)
    for _ in range(10):
        source.write(b"")
    with pytest.raises(LimitExceededError):
        source.write(b"")


def test_what_the_peer_took_is_not_sent_again() -> None:
    source = sender()
    source.write(b"x" * 10)
    (fragment,) = drain(source)
    source.lose(*span(fragment))
    source.update(1, WINDOW)
    assert not source.has_pending
    assert source.take(CHUNK) is None
    assert source.undelivered() == ()
    source.write(b"y")
    (late,) = drain(source)
    source.update(2, WINDOW)
    source.acknowledge(*span(late))
    assert source.buffered == 0


def test_a_peer_that_took_what_was_never_sent_breaks_the_protocol() -> None:
    source = sender()
    source.write(bytes(2000))
    source.take(CHUNK)
    with pytest.raises(ProtocolError):
        source.update(1, WINDOW)


def test_older_credit_changes_nothing() -> None:
    source = sender(credit=100)
    source.write(bytes(100))
    drain(source)
    source.update(1, 300)
    source.update(0, 200)
    assert source.available_credit == 200


def test_undelivered_are_those_not_wholly_acknowledged() -> None:
    source = sender()
    for message in (b"a" * 1500, b"b", b"c"):
        source.write(message)
    first, _, second, _ = drain(source)
    source.acknowledge(*span(first))
    source.acknowledge(*span(second))
    assert source.undelivered() == (b"a" * 1500, b"c")


@pytest.mark.parametrize(
    "fragment",
    [
        Message(MAX_AHEAD, 1, 0, b"x"),
        Message(5, 901, 0, b"x"),
        Message(0, 101, 1, b"x"),
    ],
    ids=["number", "credit", "another size"],
)
def test_a_peer_beyond_what_was_granted_breaks_the_protocol(fragment: Message) -> None:
    target = receiver(window=1000)
    target.insert(Message(0, 100, 0, b"x"))
    with pytest.raises(ProtocolError):
        target.insert(fragment)


def test_what_is_whole_already_is_not_looked_at_again() -> None:
    target = receiver()
    target.insert(Message(0, 1, 0, b"x"))
    target.insert(Message(0, 1, 0, b"y"))
    assert messages_of(target) == [b"x"]
    target.insert(Message(0, 1, 0, b"y"))
    assert messages_of(target) == []
    assert target.has_begun


def test_gaps_are_bounded_and_what_fills_them_is_always_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.udp.unordered.MAX_GAPS", 2)
    target = receiver()
    assert not target.has_begun
    for offset in (10, 20):
        target.insert(Message(0, 100, offset, b"x"))
    assert not target.can_accept(Message(0, 100, 30, b"x"))
    assert not target.can_accept(Message(1, 100, 30, b"x"))
    assert target.can_accept(Message(0, 100, 11, b"x"))
    assert target.can_accept(Message(1, 100, 0, b"x"))

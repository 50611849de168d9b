"""What is decoded in steps, what passes it and what keeps its place behind it."""

from __future__ import annotations

import pytest

from bridge.dist import (
    ControlMessage,
    Disconnected,
    DistConfig,
    DistConnection,
    DistEvent,
    Exit2,
    Link,
    MonitorPExit,
    Received,
    RegSend,
    Send,
    SpawnReply,
)
from bridge.dist.unfinished import AT_ONCE
from bridge.errors import DecodeError
from bridge.etf import Atom, Pid, Reference, encode_bare
from tests.support.pair import connected_pair, drain_events, transfer

ASKING = Pid(Atom("a@h"), 1, 0, 5)
OTHER = Pid(Atom("a@h"), 7, 0, 5)
THERE = Pid(Atom("b@h"), 2, 0, 6)
R = Reference(Atom("a@h"), 5, (1, 2, 3))
S = Reference(Atom("a@h"), 5, (4, 5, 6))
LARGE_TERM = [(n, n) for n in range(30_000)]
DOWN = Atom("normal")


def _exit(reference: Reference) -> MonitorPExit:
    return MonitorPExit(source=THERE, to=ASKING, reference=reference, reason=DOWN)


def _receive(
    a: DistConnection, b: DistConnection, *messages: tuple[ControlMessage, object]
) -> list[DistEvent]:
    """Bring messages to ``a`` one after another; what it tells before it decodes on."""
    told: list[DistEvent] = []
    for message, payload in messages:
        b.send(message, payload, now=1.0)
        transfer(b, a, now=1.0)
        while (event := a.next_event()) is not None:
            told.append(event)
    return told


def test_what_is_large_comes_after_some_steps() -> None:
    a, b = connected_pair()
    assert _receive(a, b, (Send(to=OTHER), LARGE_TERM)) == []
    steps = 0
    while a.unfinished:
        assert a.next_event() is None
        a.decode_on(now=1.0)
        steps += 1
    assert steps > 5
    assert drain_events(a) == [Received(control=Send(to=OTHER), payload=LARGE_TERM)]
    a.decode_on(now=1.0)
    assert drain_events(a) == []


def test_what_is_small_enough_and_a_large_binary_come_at_once() -> None:
    a, b = connected_pair()
    small = [1000] * ((AT_ONCE - 6) // 5)
    binary = (Atom("ok"), bytes(3 * AT_ONCE))
    assert _receive(a, b, (Send(to=OTHER), small), (Send(to=OTHER), binary)) == [
        Received(control=Send(to=OTHER), payload=small),
        Received(control=Send(to=OTHER), payload=binary),
    ]
    assert not a.unfinished


def test_messages_to_one_process_keep_their_order_and_those_to_another_pass() -> None:
    a, b = connected_pair()
    messages: list[tuple[ControlMessage, object]] = [
        (Send(to=OTHER), LARGE_TERM),
        (Send(to=OTHER), 1),
        (Send(to=ASKING), 2),
        (RegSend(source=THERE, to=Atom("name")), 3),  # whose process that is, nobody knows here
        (Exit2(source=THERE, to=OTHER, reason=DOWN), None),
        (Send(to=ASKING), 4),  # now behind what went to a name
    ]
    assert _receive(a, b, *messages) == [Received(control=Send(to=ASKING), payload=2)]
    behind = [event for event in drain_events(a) if isinstance(event, Received)]
    assert [event.control for event in behind] == [control for control, payload in messages if payload != 2]
    assert _receive(a, b, (Send(to=OTHER), 5)) == [Received(control=Send(to=OTHER), payload=5)]


def test_answers_pass_and_only_the_end_of_who_was_asked_stays_behind_his_answer() -> None:
    a, b = connected_pair(answers_to=ASKING)
    told = _receive(
        a,
        b,
        (Send(to=ASKING), (R, LARGE_TERM)),
        (_exit(R), DOWN),
        (_exit(S), DOWN),
        (SpawnReply(request=S, to=ASKING, flags=0, result=THERE), None),
        (Link(source=THERE, to=OTHER), None),
        (Send(to=ASKING), (S, 1)),
    )
    assert [event.control for event in told if isinstance(event, Received)] == [
        _exit(S),
        SpawnReply(request=S, to=ASKING, flags=0, result=THERE),
        Link(source=THERE, to=OTHER),
        Send(to=ASKING),
    ]
    answer, end = drain_events(a)
    assert isinstance(answer, Received)
    assert answer.payload == (R, LARGE_TERM)
    assert isinstance(end, Received)
    assert end.control == _exit(R)
    assert _receive(a, b, (_exit(R), DOWN)) == [end]


def test_large_messages_come_in_their_order() -> None:
    a, b = connected_pair(answers_to=ASKING)
    another = [b"x"] * 30_000
    no_pair = (R, *LARGE_TERM)
    sent = [(OTHER, LARGE_TERM), (ASKING, (R, another)), (ASKING, no_pair), (ASKING, another)]
    assert _receive(a, b, *((Send(to=to), term) for to, term in sent)) == []
    assert drain_events(a) == [Received(control=Send(to=to), payload=term) for to, term in sent]


def test_what_came_whole_is_told_before_the_end_unless_this_side_closes() -> None:
    a, b = connected_pair()
    _receive(a, b, (Send(to=OTHER), LARGE_TERM))
    a.receive_eof(now=2.0)
    received, end = drain_events(a)
    assert received == Received(control=Send(to=OTHER), payload=LARGE_TERM)
    assert isinstance(end, Disconnected)
    a, b = connected_pair()
    _receive(a, b, (Send(to=OTHER), LARGE_TERM), (Send(to=OTHER), 1))
    a.drop_unfinished()
    a.receive_eof(now=2.0)
    assert [type(event) for event in drain_events(a)] == [Disconnected]


def test_a_large_term_that_is_none_ends_the_connection() -> None:
    a, b = connected_pair()
    control = encode_bare((2, Atom(""), OTHER))
    b.send_encoded(control, encode_bare(LARGE_TERM) + b"j", now=1.0)
    transfer(b, a, now=1.0)
    assert _receive(a, b, (Send(to=OTHER), 1)) == []
    (end,) = drain_events(a)
    assert isinstance(end, Disconnected)
    assert isinstance(end.error, DecodeError)
    assert not a.unfinished
    a.receive_eof(now=2.0)
    assert drain_events(a) == []


@pytest.mark.parametrize("silent", [False, True])
def test_more_is_read_once_less_waits_than_one_message_may_be(silent: bool) -> None:
    size = len(encode_bare(LARGE_TERM))
    b, a = connected_pair(config_b=DistConfig(max_packet_bytes=size + 1, net_ticktime=8.0))
    receptive = [a.receptive]
    for _ in range(2):
        _receive(a, b, (Send(to=OTHER), LARGE_TERM))
        receptive.append(a.receptive)
    assert receptive == [True, True, False]
    if silent:
        a.handle_timer(now=12.0)
        assert [type(event) for event in drain_events(a)] == [Disconnected]
        return
    # The silence of a peer that is not read is not the peer's.
    a.decode_on(now=11.0)
    a.handle_timer(now=12.0)
    while not a.receptive:
        a.decode_on(now=12.0)
    assert a.unfinished
    assert len(drain_events(a)) == 2

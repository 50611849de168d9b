"""Events are values: equal by content, frozen, and only of the kinds that the union lists."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest

from bridge.dist import Connected, Disconnected, DistEvent, Failure, HandshakeFailed, NameReceived, Received
from bridge.dist.control import Send
from bridge.dist.flags import DistFlag
from bridge.errors import DecodeError
from bridge.etf import Atom, Pid, Reference
from tests.support.pair import drain_events, pair, roundtrip_until_quiet, transfer

_P = Pid(Atom("b@h"), 1, 0, 6)


def test_a_connection_reports_each_kind_of_event_once_in_its_life() -> None:
    a, b = pair(answers_to_b=_P)
    _, seen = roundtrip_until_quiet(a, b, now=0.0)
    for number in (1, 2):
        a.send(Send(to=_P), (Reference(Atom("b@h"), 6, (number, 0, 0)), b"x"), now=1.0)
    transfer(a, b, now=1.0)
    b.receive_eof(now=2.0)
    seen += drain_events(b)
    failing, _ = pair()
    failing.receive_eof(now=0.0)
    seen += drain_events(failing)
    assert {type(event) for event in seen} == set(get_args(DistEvent))
    assert len(seen) == len(get_args(DistEvent))


def test_the_names_and_creations_of_the_peer_are_told() -> None:
    a, b = pair()
    seen_a, seen_b = roundtrip_until_quiet(a, b, now=0.0)
    assert seen_b[0] == NameReceived(peer="a@h", creation=5)
    (connected,) = seen_a
    assert isinstance(connected, Connected)
    assert (connected.peer, connected.creation) == ("b@h", 6)
    assert DistFlag.SPAWN in connected.flags
    assert DistFlag.PUBLISHED not in connected.flags


def test_a_broken_protocol_is_told_with_its_error() -> None:
    a, b = pair()
    roundtrip_until_quiet(a, b, now=0.0)
    b.receive_data(b"\0\0\0\x01x", now=1.0)
    (event,) = drain_events(b)
    assert isinstance(event, Disconnected)
    assert isinstance(event.error, DecodeError)


def test_events_cannot_change() -> None:
    event = HandshakeFailed(failure=Failure.CLOSED, detail="gone")
    with pytest.raises(FrozenInstanceError):
        event.detail = "other"  # type: ignore[misc]  # that it is refused is what is shown
    assert event == HandshakeFailed(failure=Failure.CLOSED, detail="gone")
    assert Received(control=Send(to=_P)).payload is None

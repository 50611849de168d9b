from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from bridge.udp.events import CloseReason, MessageReceived, UdpEvent
from tests.support.datagrams import bare_sessions


def test_events_are_frozen() -> None:
    event = MessageReceived(peer="a", payload=b"x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.payload = b"y"  # type: ignore[misc]  # what the test is about


def test_every_event_names_its_peer() -> None:
    for kind in get_args(UdpEvent):
        assert "peer" in kind.__annotations__


def test_reasons_that_go_on_the_wire_fit_their_byte_and_local_ones_lie_beyond() -> None:
    local = {CloseReason.UNKNOWN, CloseReason.IDLE, CloseReason.DISPLACED, CloseReason.FAULT}
    assert {reason for reason in CloseReason if reason.value >= 63} == local
    for reason in set(CloseReason) - local:
        session, _ = bare_sessions()
        session.close(reason)
        assert len(session.datagrams_to_send(now=100.0)) == 3

"""What a node sends itself arrives as from another one."""

from __future__ import annotations

import asyncio

import pytest

from bridge.dist import Exit, Link, Received, Send
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.etf import Atom, Pid, encode_bare
from bridge.node.peer import Loopback, Peer

_A, _B = (Pid(Atom("me@h"), number, 0, 7) for number in (1, 2))


def _loopback() -> tuple[Loopback, list[Received]]:
    arrived: list[Received] = []
    return Loopback(lambda _, event: arrived.append(event)), arrived


async def test_messages_arrive_in_order_and_in_a_turn_of_their_own() -> None:
    loopback, arrived = _loopback()
    peer: Peer = loopback
    await peer.drain(0.0)
    assert peer.writable
    peer.send(Send(to=_A), [1])
    peer.send_encoded(encode_bare((2, Atom(""), _B)), encode_bare(b"x"))
    peer.send(Link(source=_A, to=_B))
    peer.send(Exit(source=_A, to=_B, reason=Atom("stone")))
    assert arrived == []
    await asyncio.sleep(0)
    assert [event.control for event in arrived] == [
        Send(to=_A),
        Send(to=_B),
        Link(source=_A, to=_B),
        Exit(source=_A, to=_B, reason=Atom("stone")),
    ]
    assert [event.payload for event in arrived[:2]] == [[1], b"x"]


async def test_a_message_is_a_copy() -> None:
    loopback, arrived = _loopback()
    message = [1, "text"]
    loopback.send(Send(to=_A), message)
    message.append(2)
    await asyncio.sleep(0)
    assert arrived[0].payload == [1, b"text"]


async def test_what_is_no_term_and_what_comes_too_late_is_refused() -> None:
    loopback, _ = _loopback()
    with pytest.raises(ConfigurationError):
        loopback.send(Send(to=_A), object())
    loopback.closed.set_result(None)
    with pytest.raises(InvalidStateError, match="closed"):
        loopback.send(Send(to=_A), 1)

"""Calls of a gen_server, as seen on the wire and by the one who waits."""

from __future__ import annotations

import asyncio
import struct
from itertools import count
from typing import Any

import pytest

from bridge.dist import AliasSend, DemonitorP, MonitorP, RegSend, Send
from bridge.errors import DeadlineError, NodeDownError, RemoteExitedError
from bridge.etf import Atom, ImproperList, Pid, Reference
from bridge.node.calls import Calls, Down
from bridge.node.gen import gen_call, sender
from tests.support.peer import RecordingPeer

_CALLER = Pid(Atom("me@h"), 1, 0, 1)
_SERVER = Pid(Atom("hs1@h"), 9, 0, 1)
_REF = Reference(Atom("me@h"), 1, (1, 0, 0))


def _calls() -> Calls:
    numbers = count(1)
    return Calls(_CALLER, lambda: struct.pack(">III", next(numbers), 0, 0), 10)


async def _start(
    calls: Calls, peer: RecordingPeer, target: Pid | Atom = _SERVER, seconds: float = 60.0
) -> asyncio.Task[Any]:
    call = gen_call(calls, peer, "hs1@h", _CALLER, target, [1], seconds=seconds, deadline=None)
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    return task


async def test_a_call_monitors_asks_and_stops_monitoring() -> None:
    calls, peer = _calls(), RecordingPeer()
    task = await _start(calls, peer)
    request = (Atom("$gen_call"), (_CALLER, _REF), [1])
    assert peer.sent == [MonitorP(source=_CALLER, to=_SERVER, reference=_REF), (Send(to=_SERVER), request)]
    peer.sent.clear()
    calls.answer((_REF, b"reply"))
    assert await task == b"reply"
    assert peer.sent == [DemonitorP(source=_CALLER, to=_SERVER, reference=_REF)]


async def test_a_registered_name_is_asked_by_name() -> None:
    calls, peer = _calls(), RecordingPeer()
    task = await _start(calls, peer, Atom("counter"))
    assert peer.take() == MonitorP(source=_CALLER, to=Atom("counter"), reference=_REF)
    assert peer.take()[0] == RegSend(source=_CALLER, to=Atom("counter"))
    calls.answer((_REF, 1))
    assert await task == 1


async def test_the_end_of_the_server_reaches_the_caller_at_once() -> None:
    calls, peer = _calls(), RecordingPeer()
    task = await _start(calls, peer)
    assert calls.settle(_REF, Down(Atom("noproc")))
    with pytest.raises(RemoteExitedError, match="noproc") as caught:
        await task
    assert caught.value.reason is Atom("noproc")
    assert len(peer.sent) == 2  # the monitor is gone by itself
    assert not calls.settle(_REF, Down(Atom("noproc")))


@pytest.mark.parametrize("by_monitor", [True, False])
async def test_the_end_of_the_node_reaches_the_caller_either_way(by_monitor: bool) -> None:
    calls, peer = _calls(), RecordingPeer()
    task = await _start(calls, peer)
    peer.ended = True
    if by_monitor:
        calls.settle(_REF, Down(Atom("noconnection")))
    else:
        calls.node_down("hs1@h")
    with pytest.raises(NodeDownError):
        await task


@pytest.mark.parametrize("cancelled", [True, False])
async def test_whoever_gives_up_leaves_no_monitor_behind(cancelled: bool) -> None:
    calls, peer = _calls(), RecordingPeer()
    task = await _start(calls, peer, seconds=60.0 if cancelled else 0.0)
    if cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else DeadlineError):
        await task
    assert peer.sent[-1] == DemonitorP(source=_CALLER, to=_SERVER, reference=_REF)
    calls.answer((_REF, b"late"))
    assert (len(calls), calls.late) == (0, 1)


async def test_a_connection_that_ended_is_told() -> None:
    calls, peer = _calls(), RecordingPeer()
    peer.ended = True
    with pytest.raises(NodeDownError, match="before the call was sent"):
        await (await _start(calls, peer))


async def test_an_answer_goes_by_alias_where_the_asker_made_one() -> None:
    sent: list[Any] = []
    alias = ImproperList([Atom("alias")], _REF)
    no_alias = ImproperList([Atom("alias")], 1)
    tags: list[Any] = [_REF, alias, ImproperList([alias], 1), [alias, 1], no_alias, [], [1]]
    for tag in tags:
        to = sender((_CALLER, tag), _SERVER, lambda *message: sent.append(message))
        assert to is not None
        to.reply(7)
    by_alias = AliasSend(source=_SERVER, alias=_REF)
    ways = [Send(to=_CALLER), by_alias, by_alias, by_alias, *[Send(to=_CALLER)] * 3]
    assert sent == [("me@h", way, (tag, 7)) for way, tag in zip(ways, tags, strict=True)]
    assert sender(_CALLER, _SERVER, lambda *_: None) is None

"""Calls in a process of the other node, and what is left of one that was given up."""

from __future__ import annotations

import asyncio
import struct
from itertools import count
from typing import Any

import pytest

from bridge.dist import DemonitorP, SpawnReply, SpawnRequest
from bridge.errors import DeadlineError, NodeDownError, RemoteRefusedError
from bridge.etf import Atom, Pid, Reference
from bridge.node.calls import Calls, Down
from bridge.node.spawn import Spawns
from tests.support.peer import RecordingPeer

_CALLER = Pid(Atom("me@h"), 1, 0, 1)
_LEADER = Pid(Atom("hs1@h"), 3, 0, 1)
_PROCESS = Pid(Atom("hs1@h"), 9, 0, 1)


class _Side:
    """One caller and what it sent."""

    def __init__(self) -> None:
        numbers = count(1)
        self.calls = Calls(_CALLER, lambda: struct.pack(">III", next(numbers), 0, 0), 10)
        self.spawns = Spawns(self.calls, _CALLER)
        self.peer = RecordingPeer()
        self.request: Reference

    async def start(self, seconds: float = 60.0, leader: Any = _LEADER) -> asyncio.Task[Any]:
        """A call whose request has been sent."""
        deadline = asyncio.get_running_loop().time() + seconds
        call = self.spawns.call(self.peer, "hs1@h", "m", "f", [1], seconds=seconds, deadline=deadline)
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        _, (_, (_, asked), _) = self.peer.take()
        self.calls.answer((asked, leader))
        while not self.peer.sent:
            await asyncio.sleep(0)
        message, args = self.peer.take()
        assert isinstance(message, SpawnRequest)
        self.request = message.request
        assert message.mfa == (Atom("erpc"), Atom("execute_call"), 4)
        assert message.options == [Atom("monitor")]
        assert args[1:] == [Atom("m"), Atom("f"), [1]]
        assert message.group_leader == (leader if isinstance(leader, Pid) else _CALLER)
        return task

    def reply(self, result: Pid | Atom = _PROCESS) -> None:
        """The node answers the request."""
        message = SpawnReply(request=self.request, to=_CALLER, flags=2, result=result)
        self.spawns.replied(self.peer, message)


async def test_the_process_answers_by_its_end() -> None:
    side = _Side()
    task = await side.start()
    side.reply()
    assert len(side.spawns) == 1
    side.calls.settle(side.request, Down((side.request, Atom("return"), b"result")))
    assert await task == b"result"
    assert len(side.spawns) == 0
    assert side.peer.sent == []


async def test_the_group_leader_is_asked_for_once() -> None:
    side = _Side()
    task = await side.start()
    side.calls.settle(side.request, Down((side.request, Atom("return"), 1)))
    await task
    deadline = asyncio.get_running_loop().time() + 60.0
    again = asyncio.create_task(
        side.spawns.call(side.peer, "hs1@h", "m", "f", [], seconds=60.0, deadline=deadline)
    )
    await asyncio.sleep(0)
    assert isinstance(side.peer.take()[0], SpawnRequest)
    again.cancel()


@pytest.mark.parametrize("leader", [Atom("undefined"), (Atom("badrpc"), Atom("notsup"))])
async def test_a_node_without_one_is_given_the_caller(leader: Any) -> None:
    side = _Side()
    task = await side.start(leader=leader)
    task.cancel()


async def test_a_node_that_refuses_is_told_at_once() -> None:
    side = _Side()
    task = await side.start()
    side.reply(Atom("notsup"))
    with pytest.raises(RemoteRefusedError, match="notsup"):
        await task
    assert len(side.spawns) == 0


@pytest.mark.parametrize("cancelled", [True, False])
async def test_whoever_gives_up_leaves_no_monitor_behind(cancelled: bool) -> None:
    side = _Side()
    task = await side.start(seconds=60.0 if cancelled else 0.05)
    side.reply()
    if cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else DeadlineError):
        await task
    assert side.peer.take() == DemonitorP(source=_CALLER, to=_PROCESS, reference=side.request)
    assert len(side.spawns) == 0


async def test_whoever_gives_up_before_the_process_is_known_stops_watching_it_then() -> None:
    side = _Side()
    task = await side.start()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert side.peer.sent == []
    assert len(side.spawns) == 1
    side.reply()
    assert side.peer.take() == DemonitorP(source=_CALLER, to=_PROCESS, reference=side.request)
    assert len(side.spawns) == 0
    side.reply(Atom("system_limit"))  # nobody asks any more


async def test_a_node_that_goes_down_takes_everything_along() -> None:
    side = _Side()
    tasks = [await side.start()]
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    deadline = asyncio.get_running_loop().time() + 60.0
    call = side.spawns.call(side.peer, "hs1@h", "m", "f", [], seconds=60.0, deadline=deadline)
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    side.request = side.peer.take()[0].request
    side.reply()
    assert len(side.spawns) == 2
    side.calls.node_down("hs1@h")
    side.spawns.node_down("hs1@h")
    side.peer.closed.set_result(None)
    with pytest.raises(NodeDownError):
        await task
    assert len(side.spawns) == 0

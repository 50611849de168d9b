"""Calls and their answers, beside a peer that records what it is sent."""

from __future__ import annotations

import asyncio
import struct
from itertools import count
from typing import Any, cast

import pytest

from bridge.dist import DistConnection
from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    InvalidStateError,
    LimitExceededError,
    NodeDownError,
    RemoteExitedError,
)
from bridge.etf import Atom, Pid, Reference, decode_bare_untrusted
from bridge.node.calls import Calls, Down, argument_list, cast_message
from bridge.node.transport import DistTransport

_CALLER = Pid(Atom("me@h"), 1, 0, 1)


class _Peer(DistTransport):
    """Keeps what is sent; may refuse it, or take nothing for a while."""

    def __init__(self) -> None:
        super().__init__(cast(DistConnection, None), lambda *_: None, lambda _: None, lambda _: None)
        self.sent: list[tuple[Any, Any]] = []
        self.ended = False

    def send_encoded(self, control: bytes, payload: bytes, *, at_once: bool = False) -> None:
        del at_once
        if self.ended:
            raise InvalidStateError("ended")
        self.sent.append((decode_bare_untrusted(control, 0)[0], decode_bare_untrusted(payload, 0)[0]))

    def reference(self, index: int = -1) -> Reference:
        reference = self.sent[index][1][1][1]
        assert isinstance(reference, Reference)
        return reference


def _calls(maximum: int = 10) -> Calls:
    numbers = count(1)
    return Calls(_CALLER, lambda: struct.pack(">III", next(numbers), 0, 0), maximum)


def _start(calls: Calls, peer: _Peer, seconds: float = 60.0) -> asyncio.Task[Any]:
    deadline = asyncio.get_running_loop().time() + seconds
    call = calls.call(peer, "hs1@h", "m", "f", [1, b"x"], seconds=seconds, deadline=deadline)
    return asyncio.create_task(call)


async def test_a_call_is_what_rex_understands_and_its_answer_comes_back() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    ((control, message),) = peer.sent
    assert control == (6, _CALLER, Atom(""), Atom("rex"))
    request = (Atom("call"), Atom("m"), Atom("f"), [1, b"x"], Atom("user"))
    assert message == (Atom("$gen_call"), (_CALLER, peer.reference()), request)
    calls.answer((peer.reference(), {b"k": 1}))
    assert await task == {b"k": 1}
    assert (len(calls), calls.made, calls.late) == (0, 1, 0)


async def test_answers_find_their_calls_in_any_order() -> None:
    calls, peer = _calls(), _Peer()
    tasks = [_start(calls, peer) for _ in range(5)]
    await asyncio.sleep(0)
    for index in (3, 0, 4, 1, 2):
        calls.answer((peer.reference(index), index))
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]


async def test_an_answer_twice_or_late_or_to_nobody_is_counted() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer, seconds=0.0)
    with pytest.raises(DeadlineError, match=r"hs1@h to m:f within 0 s"):
        await task
    calls.answer((peer.reference(), 1))
    calls.answer(b"no answer")
    calls.answer((Atom("no"), Atom("reference")))
    assert calls.late == 3


async def test_only_badrpc_is_an_error_and_it_keeps_its_reason() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    calls.answer((peer.reference(), (Atom("badrpc"), (Atom("EXIT"), Atom("undef")))))
    with pytest.raises(RemoteExitedError, match=r"hs1@h m:f/2 exited") as caught:
        await task
    assert caught.value.reason is Atom("undef")
    task = _start(calls, peer)
    await asyncio.sleep(0)
    calls.answer((peer.reference(), (Atom("error"), Atom("badrpc"))))
    assert await task == (Atom("error"), Atom("badrpc"))


async def test_badrpc_nodedown_is_a_node_that_is_down() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    calls.answer((peer.reference(), (Atom("badrpc"), Atom("nodedown"))))
    with pytest.raises(NodeDownError):
        await task


async def test_a_node_that_goes_down_fails_its_own_calls_only() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    calls.node_down("hs2@h")
    await asyncio.sleep(0)
    assert not task.done()
    calls.node_down("hs1@h")
    with pytest.raises(NodeDownError, match="hs1@h"):
        await task
    assert len(calls) == 0


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    calls, peer = _calls(), _Peer()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 0


async def test_as_many_calls_wait_as_are_allowed_and_not_one_more() -> None:
    calls, peer = _calls(maximum=3), _Peer()
    tasks = [_start(calls, peer) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceededError, match="max_pending_calls=3"):
        await _start(calls, peer)
    calls.answer((peer.reference(0), 1))
    await tasks[0]
    tasks.append(_start(calls, peer))
    await asyncio.sleep(0)
    assert len(calls) == 3
    calls.close()
    for task in tasks[1:]:
        with pytest.raises(ClosedError):
            await task


async def test_a_call_waits_until_the_peer_takes_more() -> None:
    calls, peer = _calls(), _Peer()
    peer.pause_writing()
    task = _start(calls, peer)
    await asyncio.sleep(0)
    assert peer.sent == []
    peer.resume_writing()
    while not peer.sent:
        await asyncio.sleep(0)
    calls.answer((peer.reference(), 1))
    assert await task == 1


async def test_a_connection_that_ended_before_the_call_was_sent_is_told() -> None:
    calls, peer = _calls(), _Peer()
    peer.ended = True
    with pytest.raises(NodeDownError, match="before the call was sent"):
        await _start(calls, peer)
    calls.close()
    with pytest.raises(ClosedError):
        await _start(calls, peer)
    assert calls.made == 0


def test_a_cast_is_what_rex_understands() -> None:
    request = (Atom("cast"), Atom("m"), Atom("f"), [1], Atom("user"))
    assert cast_message("m", "f", (1,)) == (Atom("$gen_cast"), request)


async def test_what_is_asked_otherwise_is_settled_by_its_reference() -> None:
    calls, peer = _calls(maximum=1), _Peer()
    references: list[Reference] = []

    def ask() -> asyncio.Task[Any]:
        waiting = calls.ask(peer, "hs1@h", "a server", references.append, seconds=60.0)
        return asyncio.create_task(waiting)

    peer.pause_writing()
    task = ask()
    await asyncio.sleep(0)
    assert references == []
    peer.resume_writing()
    while not references:
        await asyncio.sleep(0)
    with pytest.raises(LimitExceededError, match="max_pending_calls=1"):
        await ask()
    assert calls.waits(references[0])
    assert calls.settle(references[0], Down(Atom("stone")))
    assert calls.settle(references[0], Down(Atom("late")))
    assert await task == Down(Atom("stone"))
    assert not calls.waits(references[0])
    assert not calls.settle(references[0], Down(Atom("late")))
    calls.close()
    with pytest.raises(ClosedError):
        await ask()


async def test_what_waited_for_room_when_the_node_closed_is_not_sent() -> None:
    calls, peer = _calls(), _Peer()
    peer.pause_writing()
    asking = calls.ask(peer, "hs1@h", "something", lambda _: None, seconds=60.0)
    tasks = [_start(calls, peer), asyncio.create_task(asking)]
    await asyncio.sleep(0)
    calls.close()
    peer.resume_writing()
    for task in tasks:
        with pytest.raises(ClosedError):
            await task
    assert (peer.sent, len(calls)) == ([], 0)


async def test_many_waits_that_end_at_different_times_all_end() -> None:
    calls, peer = _calls(2_000), _Peer()
    tasks = [_start(calls, peer, seconds=0.0001 * number) for number in range(2_000)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, DeadlineError) for outcome in outcomes)
    assert len(calls) == 0


@pytest.mark.parametrize("args", ["tea", b"tea", bytearray(b"tea"), 4, {"a": 1}, {1}], ids=repr)
def test_arguments_that_are_no_list_are_refused_before_their_letters_are_sent(args: Any) -> None:
    with pytest.raises(ConfigurationError, match="a list, also a single one"):
        argument_list(args)


def test_arguments_are_any_other_sequence() -> None:
    assert argument_list((1, 2)) == argument_list([1, 2]) == argument_list(range(1, 3)) == [1, 2]

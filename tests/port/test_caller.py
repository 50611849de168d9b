"""Calls and inboxes over two pipes, beside a peer in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from bridge.errors import (
    ClosedError,
    ConnectionLostError,
    DeadlineError,
    DecodeError,
    HandshakeError,
    LimitExceededError,
    OutcomeUnknownError,
    RemoteExitedError,
    RemoteRaisedError,
    RemoteThrewError,
)
from bridge.etf import Atom, Pid, decode_term, encode_term
from bridge.port import PortCaller, PortConfig, open_port


class Machine:
    """The other ends of the pipes, by hand."""

    def __init__(self) -> None:
        self.theirs, self._out = os.pipe()
        self._in, self.their_sink = os.pipe()
        self.ended = False

    def write(self, raw: bytes) -> None:
        os.write(self._out, len(raw).to_bytes(4, "big") + raw)

    def say(self, term: Any) -> None:
        self.write(encode_term(term))

    def greet(self, version: int = 1) -> None:
        names = {Atom("node"): Atom("n@h"), Atom("store"): Atom("s"), Atom("otp"): b"25"}
        self.say((Atom("hello"), {Atom("version"): version, **names}))

    async def hear(self) -> Any:
        size = int.from_bytes(await asyncio.to_thread(os.read, self._in, 4), "big")
        packet = b""
        while len(packet) < size:
            packet += await asyncio.to_thread(os.read, self._in, size - len(packet))
        return decode_term(packet)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            os.close(self._out)
            os.close(self._in)


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    made = Machine()
    yield made
    made.end()


@pytest.fixture
async def caller(machine: Machine) -> AsyncIterator[PortCaller]:
    machine.greet()
    async with await open_port(machine.theirs, machine.their_sink, name="test") as opened:
        yield opened


def _call(caller: PortCaller, *, timeout: float = 20.0, idempotent: bool = True) -> asyncio.Task[Any]:
    return asyncio.create_task(caller.call("m", "f", [1], timeout=timeout, idempotent=idempotent))


async def test_a_call_is_answered(machine: Machine, caller: PortCaller) -> None:
    assert (caller.current, caller.store, caller.name) == ("n@h", "s", "test")
    task = _call(caller)
    _, number, *rest = await machine.hear()
    assert rest == [Atom("m"), Atom("f"), [1]]
    machine.say((Atom("reply"), number, (Atom("ok"), b"yes")))
    assert await task == b"yes"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("error", RemoteRaisedError), ("exit", RemoteExitedError), ("throw", RemoteThrewError)],
)
async def test_what_it_raised_is_raised(
    machine: Machine, caller: PortCaller, kind: str, expected: type[Exception]
) -> None:
    task = _call(caller)
    _, number, *_ = await machine.hear()
    machine.say((Atom("reply"), number, (Atom(kind), Atom("boom"), [])))
    with pytest.raises(expected, match="boom"):
        await task


@pytest.mark.parametrize(("idempotent", "expected"), [(True, DeadlineError), (False, OutcomeUnknownError)])
async def test_a_call_that_takes_too_long_is_ended_on_the_other_side(
    machine: Machine, caller: PortCaller, *, idempotent: bool, expected: type[Exception]
) -> None:
    task = _call(caller, timeout=0.01, idempotent=idempotent)
    _, number, *_ = await machine.hear()
    with pytest.raises(expected):
        await task
    assert await machine.hear() == (Atom("cancel"), number)


async def test_cancelling_a_call_ends_it_on_the_other_side(machine: Machine, caller: PortCaller) -> None:
    task = _call(caller)
    _, number, *_ = await machine.hear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await machine.hear() == (Atom("cancel"), number)


async def test_messages_reach_the_inbox_they_are_for(machine: Machine, caller: PortCaller) -> None:
    boxes = [caller.mailbox(), caller.mailbox()]
    for box in boxes:
        assert await machine.hear() == (Atom("open"), box.pid)
    machine.say((Atom("message"), boxes[1].pid, b"second"))
    machine.say((Atom("message"), boxes[0].pid, b"first"))
    machine.say((Atom("message"), Pid(Atom("port@nohost"), 77, 0, 1), b"nobody"))
    assert [await box.receive(timeout=20) for box in boxes] == [b"first", b"second"]
    await boxes[0].close()
    assert await machine.hear() == (Atom("close"), boxes[0].pid)


@pytest.mark.parametrize(
    ("idempotent", "expected"), [(True, ConnectionLostError), (False, OutcomeUnknownError)]
)
async def test_the_end_of_the_other_side_reaches_every_waiter(
    machine: Machine, caller: PortCaller, *, idempotent: bool, expected: type[Exception]
) -> None:
    told: list[str | None] = []
    caller.on_change(told.append)
    box = caller.mailbox()
    waiting = asyncio.create_task(box.receive())
    task = _call(caller, idempotent=idempotent)
    await machine.hear()
    await machine.hear()
    machine.end()
    with pytest.raises(expected):
        await task
    with pytest.raises(ClosedError):
        await waiting
    assert caller.current is None
    assert told == [None]
    with pytest.raises(ConnectionLostError):
        await caller.call("m", "f", [], timeout=1.0, idempotent=True)


async def test_what_breaks_the_protocol_ends_the_port(machine: Machine, caller: PortCaller) -> None:
    task = _call(caller)
    await machine.hear()
    machine.write(b"\x83\xff")
    with pytest.raises(DecodeError):
        await task
    assert caller.current is None


async def test_closing_twice_is_harmless_and_calls_are_refused_then(caller: PortCaller) -> None:
    await caller.close()
    await caller.close()
    with pytest.raises(ClosedError):
        await caller.call("m", "f", [], timeout=1.0, idempotent=True)
    with pytest.raises(ClosedError):
        caller.mailbox()


async def test_silence_instead_of_a_greeting_is_told(machine: Machine) -> None:
    config = PortConfig(hello_timeout=0.01)
    with pytest.raises(HandshakeError, match="said nothing"):
        await open_port(machine.theirs, machine.their_sink, name="test", config=config)


async def test_another_version_is_refused(machine: Machine) -> None:
    machine.greet(version=9)
    with pytest.raises(HandshakeError, match="version 9"):
        await open_port(machine.theirs, machine.their_sink, name="test")


def test_a_program_that_no_port_started_is_told_so() -> None:
    program = "import asyncio, bridge.port; asyncio.run(bridge.port.connect_port())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "let a supervisor start it by kb_port" in ended.stderr


def test_it_works_on_uvloop_too() -> None:
    async def once() -> bytes:
        machine = Machine()
        machine.greet()
        async with await open_port(machine.theirs, machine.their_sink, name="test") as caller:
            task = _call(caller)
            _, number, *_ = await machine.hear()
            machine.say((Atom("reply"), number, (Atom("ok"), b"yes")))
            answer: bytes = await task
        machine.end()
        return answer

    assert uvloop.run(once()) == b"yes"


def _depth(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


async def test_a_port_that_has_ended_remembers_nothing_of_those_who_still_call(
    machine: Machine, caller: PortCaller
) -> None:
    machine.end()
    depths = set()
    for _ in range(20):
        with pytest.raises(ConnectionLostError) as caught:
            await caller.call("m", "f", [], timeout=20.0, idempotent=True)
        depths.add(_depth(caught.value))
    assert len(depths) <= 2  # the first may have waited


async def test_more_calls_than_the_other_side_runs_are_refused_here(machine: Machine) -> None:
    machine.greet()
    config = PortConfig(max_pending_calls=2)
    async with await open_port(machine.theirs, machine.their_sink, name="t", config=config) as caller:
        waiting = [_call(caller) for _ in range(2)]
        numbers = [(await machine.hear())[1] for _ in range(2)]
        with pytest.raises(LimitExceededError, match="max_pending_calls=2"):
            await caller.call("m", "f", [], timeout=20.0, idempotent=True)
        for number in numbers:
            machine.say((Atom("reply"), number, (Atom("ok"), 1)))
        assert await asyncio.gather(*waiting) == [1, 1]


@pytest.mark.parametrize("how", ["late", "cancelled", "ended"])
async def test_a_call_that_a_full_pipe_holds_back_was_not_made(
    machine: Machine, caller: PortCaller, how: str
) -> None:
    filling = asyncio.create_task(caller.call("m", "f", [bytes(3_000_000)], timeout=20.0, idempotent=False))
    await asyncio.sleep(0)  # it is in the pipe as far as that takes it, and nobody reads
    held = _call(caller, timeout=0.01 if how == "late" else 20.0, idempotent=False)
    await asyncio.sleep(0)
    match how:
        case "late":
            with pytest.raises(DeadlineError, match="took nothing") as caught:
                await held
            assert not isinstance(caught.value, OutcomeUnknownError)
        case "cancelled":
            held.cancel()
            await asyncio.wait([held])
        case _:
            machine.end()
            with pytest.raises(ConnectionLostError):
                await held
    filling.cancel()
    await asyncio.wait([filling])
    if how != "ended":
        # Nothing of the one that was held back is between the first call and its end.
        _, number, *_ = await machine.hear()
        assert await machine.hear() == (Atom("cancel"), number)


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_is_cancelled_while_a_port_opens_leaves_no_descriptor(
    machine: Machine, turns: int
) -> None:
    opening = asyncio.create_task(open_port(machine.theirs, machine.their_sink, name="t"))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    if turns:
        for _ in range(5):
            await asyncio.sleep(0)
        for descriptor in (machine.theirs, machine.their_sink):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
    else:
        os.close(machine.theirs)
        os.close(machine.their_sink)

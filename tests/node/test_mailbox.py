"""Messages in order, none lost, and an end that everybody hears of."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ClosedError, DeadlineError, LimitExceededError, RemoteExitedError
from bridge.etf import Atom, Pid, Reference
from bridge.node.mailbox import Mailbox, Watch

_PID = Pid(Atom("me@h"), 1, 0, 1)
_TARGET = Pid(Atom("peer@h"), 2, 0, 1)
_REFERENCE = Reference(Atom("me@h"), 1, (1,))


def _mailbox(capacity: int = 3) -> tuple[Mailbox, list[Any]]:
    reasons: list[Any] = []
    return Mailbox(_PID, None, capacity, lambda _, reason: reasons.append(reason)), reasons


async def test_messages_come_in_the_order_in_which_they_were_put() -> None:
    box, _ = _mailbox()
    for message in (1, 2, 3):
        box.put(message)
    assert len(box) == 3
    assert [await box.receive() for _ in range(3)] == [1, 2, 3]


async def test_those_who_wait_are_served_in_the_order_in_which_they_came() -> None:
    box, _ = _mailbox()
    waiting = [asyncio.create_task(box.receive()) for _ in range(3)]
    await asyncio.sleep(0)
    for message in (1, 2, 3):
        box.put(message)
    assert await asyncio.gather(*waiting) == [1, 2, 3]


async def test_a_full_mailbox_takes_its_number_and_ends_at_one_more() -> None:
    box, reasons = _mailbox(capacity=3)
    for message in (1, 2, 3):
        box.put(message)
    assert reasons == []
    box.put(4)
    assert box.closed
    assert reasons == [Atom("message_queue_overflow")]
    box.put(5)
    # Nothing that had arrived is lost; then the overflow is told, each time.
    assert [await box.receive() for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(LimitExceededError, match="mailbox_capacity=3"):
            await box.receive()


async def test_a_wait_ends_at_its_deadline_and_leaves_the_mailbox_as_it_was() -> None:
    box, _ = _mailbox()
    with pytest.raises(DeadlineError):
        await box.receive(timeout=0.0)
    box.put(1)
    assert await box.receive(timeout=0.0) == 1


async def test_a_cancelled_wait_hands_its_message_to_the_next() -> None:
    box, _ = _mailbox()
    first, second = asyncio.create_task(box.receive()), asyncio.create_task(box.receive())
    await asyncio.sleep(0)
    box.put(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 1


async def test_closing_wakes_all_who_wait_and_tells_the_reason_once() -> None:
    box, reasons = _mailbox()
    waiting = [asyncio.create_task(box.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    async with box:
        await box.close(Atom("stone"))
    for task in waiting:
        with pytest.raises(ClosedError):
            await task
    box.put(1)
    assert reasons == [Atom("stone")]


async def test_the_block_ends_it_normally_and_the_node_by_its_own_reason() -> None:
    box, reasons = _mailbox()
    async with box:
        box.put(1)
    assert reasons == [Atom("normal")]
    assert await box.receive() == 1
    other, others = _mailbox()
    other.end_by_node(Atom("shutdown"))
    with pytest.raises(ClosedError, match="node"):
        await other.receive()
    assert others == [Atom("shutdown")]


@given(st.lists(st.sampled_from(["put", "wait", "cancel", "turn"]), max_size=40))
def test_every_message_is_received_once_and_in_order(steps: list[str]) -> None:
    async def play() -> None:
        box, _ = _mailbox(capacity=1000)
        waiting: list[asyncio.Task[Any]] = []
        got: list[int] = []

        async def take() -> None:
            got.append(await box.receive())

        put = 0
        for step in steps:
            match step:
                case "put":
                    box.put(put)
                    put += 1
                case "wait":
                    waiting.append(asyncio.create_task(take()))
                case "cancel" if waiting:
                    waiting.pop(len(waiting) // 2).cancel()
                case _:
                    await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        # Nobody waits beside a message, and none came twice or out of turn.
        assert not len(box) or all(task.done() for task in waiting)
        rest = [await box.receive() for _ in range(len(box))]
        assert got + rest == list(range(put))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())


async def test_a_watch_ends_once_and_tells_every_waiter() -> None:
    box, _ = _mailbox()
    watch = Watch(_TARGET, "peer@h", _PID, _REFERENCE, box)
    with pytest.raises(DeadlineError):
        await watch.wait(timeout=0.0)
    waiting = [asyncio.create_task(watch.wait()) for _ in range(2)]
    watch.end(Atom("stone"))
    watch.end(Atom("other"))
    assert await asyncio.gather(*waiting) == [Atom("stone")] * 2
    assert watch.ended
    assert await box.receive() == (Atom("DOWN"), _REFERENCE, Atom("process"), _TARGET, Atom("stone"))
    assert len(box) == 0


async def test_the_mailbox_is_told_in_erlangs_own_forms() -> None:
    box, _ = _mailbox()
    Watch(Atom("rex"), "peer@h", _PID, _REFERENCE, box).end(Atom("noproc"))
    Watch(_TARGET, "peer@h", _PID, None, box).end(Atom("killed"))
    named = (Atom("rex"), Atom("peer@h"))
    assert await box.receive() == (Atom("DOWN"), _REFERENCE, Atom("process"), named, Atom("noproc"))
    assert await box.receive() == (Atom("EXIT"), _TARGET, Atom("killed"))


async def test_giving_up_on_a_watch_does_not_end_it() -> None:
    watch = Watch(_TARGET, "peer@h", _PID, _REFERENCE, None)
    task = asyncio.create_task(watch.wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.end(1)
    assert await watch.wait() == 1


async def test_exit_signals_come_as_messages_only_while_they_are_trapped() -> None:
    box, reasons = _mailbox()
    box.exit_signal(_TARGET, Atom("stone"))
    assert await box.receive() == (Atom("EXIT"), _TARGET, Atom("stone"))
    box.trap_exit = False
    box.exit_signal(_TARGET, Atom("normal"))
    assert not box.closed
    box.put(1)
    box.exit_signal(_TARGET, Atom("stone"))
    box.exit_signal(_TARGET, Atom("other"))
    assert reasons == [Atom("stone")]
    assert await box.receive() == 1
    with pytest.raises(RemoteExitedError, match="stone") as caught:
        await box.receive()
    assert caught.value.reason is Atom("stone")


async def test_kill_cannot_be_trapped() -> None:
    box, reasons = _mailbox()
    box.exit_signal(_TARGET, Atom("kill"))
    assert reasons == []
    box.exit_signal(_TARGET, Atom("kill"), kill=True)
    assert reasons == [Atom("killed")]


async def test_a_broken_link_ends_a_mailbox_that_does_not_trap_exits() -> None:
    box, reasons = _mailbox()
    box.trap_exit = False
    watch = Watch(_TARGET, "peer@h", _PID, None, box)
    watch.end(Atom("stone"))
    assert (await watch.wait(), reasons) == (Atom("stone"), [Atom("stone")])


async def test_a_watch_that_is_given_up_tells_who_waits_and_not_the_mailbox() -> None:
    box, _ = _mailbox()
    watch = Watch(_TARGET, "peer@h", _PID, _REFERENCE, box)
    waiting = asyncio.create_task(watch.wait())
    await asyncio.sleep(0)
    watch.give_up(ClosedError("given up"))
    watch.give_up(ClosedError("twice"))
    watch.end(Atom("stone"))
    with pytest.raises(ClosedError, match="given up"):
        await waiting
    assert len(box) == 0


async def test_a_mailbox_that_has_ended_remembers_nothing_of_those_who_still_read() -> None:
    box, _ = _mailbox()
    await box.close()
    depths = set()
    for _ in range(10):
        with pytest.raises(ClosedError) as caught:
            await box.receive()
        depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(depths) == 1

"""Requests made at once go in one message, and no request is the worse for it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConnectionLostError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.grouped import MOST, Grouped
from bridge.khepri.reply import NodeNotFoundError

_OK = Atom("ok")


class Server:
    """Doubles numbers, one by one or several at once, and notes what it was asked."""

    def __init__(self) -> None:
        self.alone: list[int] = []
        self.groups: list[list[int]] = []
        self.refuse = False
        self.free = asyncio.Event()
        self.free.set()

    async def one(self, item: int, _: float | None) -> int:
        self.alone.append(item)
        await asyncio.sleep(0)  # a message takes its time, however short
        await self.free.wait()
        return 2 * item

    async def many(self, items: list[int]) -> list[Any] | None:
        self.groups.append(items)
        await self.free.wait()
        return None if self.refuse else [(_OK, 2 * item) for item in items]

    def grouped(self) -> Grouped[int]:
        return Grouped(self.one, self.many)


@given(count=st.integers(0, 300))
async def test_every_request_gets_its_own_answer(count: int) -> None:
    server = Server()
    grouped = server.grouped()
    assert await asyncio.gather(*(grouped.run(number) for number in range(count))) == [
        2 * number for number in range(count)
    ]
    assert all(len(group) <= MOST for group in server.groups)
    assert sorted(server.alone + [item for group in server.groups for item in group]) == list(range(count))


async def test_who_calls_alone_goes_at_once_and_alone() -> None:
    server = Server()
    grouped = server.grouped()
    for number in range(3):
        assert await grouped.run(number) == 2 * number
    assert (server.alone, server.groups) == ([0, 1, 2], [])


async def test_one_more_beside_one_under_way_goes_alone_too() -> None:
    server = Server()
    server.free.clear()
    grouped = server.grouped()
    tasks = [asyncio.create_task(grouped.run(number)) for number in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert (server.alone, server.groups) == ([0, 1], [])
    server.free.set()
    assert await asyncio.gather(*tasks) == [0, 2]


async def test_a_refused_group_is_made_one_by_one_and_the_next_ones_are_not_tried() -> None:
    server = Server()
    server.refuse = True
    grouped = server.grouped()
    assert await asyncio.gather(*(grouped.run(number) for number in range(10))) == list(range(0, 20, 2))
    assert server.groups == [list(range(1, 10))]
    assert await asyncio.gather(*(grouped.run(number) for number in range(10))) == list(range(0, 20, 2))
    assert len(server.groups) == 1
    server.refuse = False
    for _ in range(20):
        await asyncio.gather(*(grouped.run(number) for number in range(10)))
    assert len(server.groups) > 1


async def test_what_went_wrong_with_a_group_is_told_by_each_request_itself() -> None:
    async def many(_: list[int]) -> list[Any]:
        raise ConnectionLostError("gone")

    grouped = Grouped(Server().one, many)
    assert await asyncio.gather(*(grouped.run(number) for number in range(5))) == [0, 2, 4, 6, 8]


async def test_each_reply_of_a_group_is_told_as_if_it_had_come_alone() -> None:
    props: dict[Atom, Any] = {}
    refused = (Atom("error"), (Atom("node_not_found"), props))
    replies: list[Any] = [(_OK, b"there"), refused, OutcomeUnknownError("who knows")]

    async def many(_: list[int]) -> list[Any]:
        return replies

    grouped = Grouped(Server().one, many)
    told = await asyncio.gather(*(grouped.run(number) for number in range(4)), return_exceptions=True)
    assert told[:2] == [0, b"there"]
    assert isinstance(told[2], NodeNotFoundError)
    assert isinstance(told[3], OutcomeUnknownError)


async def test_a_cancelled_request_leaves_the_others_alone() -> None:
    server = Server()
    server.free.clear()
    grouped = server.grouped()
    tasks = [asyncio.create_task(grouped.run(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.sleep(0)
    tasks[4].cancel()
    server.free.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in told if isinstance(one, int)] == [0, 2, 6, 10]
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]
    assert await grouped.run(9) == 18


def test_a_loop_that_ends_leaves_nobody_waiting() -> None:
    """All tasks are cancelled then, also the one that sends the group."""
    told: list[BaseException | int] = []

    async def ask(grouped: Grouped[int], number: int) -> None:
        try:
            told.append(await grouped.run(number))
        except asyncio.CancelledError as error:
            told.append(error)
            raise

    async def run() -> None:
        server = Server()
        server.free.clear()
        grouped = server.grouped()
        tasks = [asyncio.create_task(ask(grouped, number)) for number in range(8)]
        while not server.groups:
            await asyncio.sleep(0)
        assert len(tasks) == 8

    asyncio.run(run())
    assert [type(one) for one in told] == [asyncio.CancelledError] * 8


async def test_what_nobody_foresaw_in_a_group_ends_no_request() -> None:
    unforeseen: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unforeseen.append(context["exception"])
    )

    async def many(_: list[int]) -> list[Any]:
        raise ValueError("a mistake")

    grouped = Grouped(Server().one, many)
    assert await asyncio.gather(*(grouped.run(number) for number in range(5))) == [0, 2, 4, 6, 8]
    gc.collect()
    assert [str(one) for one in unforeseen] == ["a mistake"]

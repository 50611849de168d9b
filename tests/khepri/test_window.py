from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DeadlineError
from bridge.khepri import Khepri, OperationId, OperationIds
from bridge.khepri.window import KEPT_RESULTS, Window
from tests.support.cluster import erlang


def later() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_a_write_waits_while_the_oldest_is_too_far_behind() -> None:
    window = Window(OperationIds("me", 1))
    oldest, *others = [await window.begin(deadline=later()) for _ in range(KEPT_RESULTS)]
    waiting = [asyncio.create_task(window.begin(deadline=later())) for _ in range(2)]
    for operation in others:
        window.end(operation)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    window.end(oldest)
    begun = [await task for task in waiting]
    assert [operation.sequence for operation in begun] == [KEPT_RESULTS + 1, KEPT_RESULTS + 2]
    assert begun[0].low_water == KEPT_RESULTS


async def test_a_write_that_waited_in_vain_sent_nothing() -> None:
    ids = OperationIds("me", 1)
    window = Window(ids)
    begun = [await window.begin(deadline=later()) for _ in range(KEPT_RESULTS)]
    with pytest.raises(DeadlineError, match="nothing was sent"):
        await window.begin(deadline=0.0)
    given_up = asyncio.create_task(window.begin(deadline=later()))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert ids.last == KEPT_RESULTS
    for operation in begun:
        window.end(operation)
    assert (await window.begin(deadline=later())).low_water == KEPT_RESULTS


async def test_a_write_that_is_cancelled_as_its_turn_comes_gives_it_back() -> None:
    window = Window(OperationIds("me", 1))
    begun = [await window.begin(deadline=later()) for _ in range(KEPT_RESULTS)]
    task = asyncio.create_task(window.begin(deadline=later()))
    await asyncio.sleep(0)
    for operation in begun:
        window.end(operation)
    task.cancel()
    await asyncio.wait([task])
    assert (await window.begin(deadline=later())).low_water == KEPT_RESULTS + 1


@given(st.lists(st.integers(0, 400), max_size=600))
def test_what_runs_is_always_among_the_results_that_are_kept(choices: list[int]) -> None:
    async def run() -> None:
        ids = OperationIds("me", 1)
        window = Window(ids)
        running: list[OperationId] = []
        for choice in choices:
            if choice < len(running):
                window.end(running.pop(choice))
            elif not running or ids.last + 1 - running[0].sequence < KEPT_RESULTS:
                running.append(await window.begin(deadline=later()))
                assert ids.last - running[0].sequence < KEPT_RESULTS

    asyncio.run(run())


@erlang
async def test_thousands_of_writes_sent_at_once_are_all_applied(store: Khepri, root: str) -> None:
    async with asyncio.TaskGroup() as writers:
        for number in range(2_000):
            writers.create_task(store.put_once(f"{root}/{number}", number, timeout=60))
    assert await store.count(f"{root}/*", favor="consistency") == 2_000

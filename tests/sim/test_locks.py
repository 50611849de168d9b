from __future__ import annotations

import asyncio

import pytest

from bridge.sim.locks import Locks


async def test_one_at_a_time_has_an_entity_and_others_are_not_held_up() -> None:
    locks, order = Locks(), []

    async def work(name: str, entity: str, turns: int) -> None:
        async with locks[entity]:
            order.append(f"{name} begins")
            for _ in range(turns):
                await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(work("first", "ball", 3), work("second", "ball", 1), work("other", "gun", 0))
    assert order.index("first ends") < order.index("second begins")
    assert order.index("other ends") < order.index("first ends")


async def test_nothing_is_kept_of_an_entity_that_nobody_is_at_work_with() -> None:
    locks = Locks()
    async with locks["ball"]:
        assert "ball" in locks
        waiting = [asyncio.create_task(_enter(locks)) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(locks) == 1
        waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (len(locks), "ball" in locks) == (0, False)
    with pytest.raises(ValueError, match="inside"):
        async with locks["ball"]:
            raise ValueError("inside")
    assert len(locks) == 0


async def _enter(locks: Locks) -> None:
    async with locks["ball"]:
        pass

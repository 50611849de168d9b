"""Works that end together."""

from __future__ import annotations

import asyncio

import pytest

from bridge.sim.ending import until_one_ends


class Work:
    """Runs until it is told to end; says how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.told = asyncio.Event()
        self.error: Exception | None = None
        self.ended = ""

    async def run(self) -> None:
        self.began.set()
        try:
            await self.told.wait()
        except asyncio.CancelledError:
            # What has to be done in the end takes its time.
            await asyncio.sleep(0)
            self.ended = "cancelled"
            raise
        self.ended = "by itself"
        if self.error is not None:
            raise self.error


async def test_the_end_of_one_is_the_end_of_all() -> None:
    one, other = Work(), Work()
    one.told.set()
    await until_one_ends(one.run(), other.run())
    assert (one.ended, other.ended) == ("by itself", "cancelled")


async def test_what_one_fails_with_is_raised_once_the_others_have_ended() -> None:
    one, other = Work(), Work()
    other.told.set()
    other.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        await until_one_ends(one.run(), other.run())
    assert one.ended == "cancelled"


async def test_who_waits_no_longer_ends_them_all() -> None:
    one, other = Work(), Work()
    waiting = asyncio.create_task(until_one_ends(one.run(), other.run()))
    await one.began.wait()
    await other.began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (one.ended, other.ended) == ("cancelled", "cancelled")

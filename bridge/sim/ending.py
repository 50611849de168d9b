"""Works of which none goes on without the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def until_one_ends(*works: Coroutine[object, object, None]) -> None:
    """Run all at once; when the first ends, or this is cancelled, the others are, and have ended as well.

    Raises:
        BaseException: what the first one ended with.
    """
    tasks = {asyncio.create_task(work) for work in works}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

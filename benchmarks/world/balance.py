"""A server that holds too much is relieved by one that streams its entities in and has room (R0-44)."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from benchmarks.world.stage import Watching, meet, until
from bridge.cluster.local import LocalCluster

_SETTLED_SECONDS: Final = 3.0
"""three rounds of shedding in which nothing more may go, either way"""


async def measure_balance(cluster: LocalCluster, limit: int) -> dict[str, Any]:
    """Seconds from twice the entities that a server may hold until it is rid of the excess.

    Args:
        limit: entities that it may hold; the other one may hold twice as many.
    """
    full = Watching(cluster, "full", entities=2 * limit, max_entities=limit)
    idle = Watching(cluster, "idle", entities=2 * limit, max_entities=2 * limit)
    positions = {f"b{number}": (float(number), 0.0, 0.0) for number in range(2 * limit)}
    async with full.server, idle.server:
        await meet(full, idle)
        await full.server.transfers.spawn_many(positions, owner="ann")
        begin = time.monotonic()
        await until(lambda: len(full.server.transfers.held()) <= limit, "relief")
        within = time.monotonic() - begin
        # It goes on until it is well below its limit.
        before, held = 0, len(full.server.transfers.held())
        while held != before:
            before = held
            await asyncio.sleep(_SETTLED_SECONDS)
            held = len(full.server.transfers.held())
        held_by_the_other = len(idle.server.transfers.held())
        relief = full.server.relief
    return {
        "held_before": 2 * limit,
        "limit": limit,
        "within_limit_s": round(within, 1),
        "held_after": held,
        "held_after_by_the_other": held_by_the_other,
        "given": relief.shed,
        "failed": relief.failed,
        "given_back": idle.server.relief.shed,
    }

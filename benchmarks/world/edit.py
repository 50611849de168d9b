"""An object is imported by one party, and its transform edited live by another one at another server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.world.stage import Watching, meet, until
from bridge.cluster.local import LocalCluster
from bridge.registry import Rule

_IMPORTED = (1.0, 2.0, 3.0)
_MILLIMETRE = 0.001


def percentiles(values_ns: Sequence[int]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50_ms": round(statistics.median(values_ns) / 1e6, 2),
        "p99_ms": round(statistics.quantiles(values_ns, n=100)[98] / 1e6, 2),
        "worst_ms": round(max(values_ns) / 1e6, 2),
    }


async def measure_edit(cluster: LocalCluster, edits: int) -> dict[str, Any]:
    """Milliseconds from an edit at one server until the other one shows it."""
    ann, bob = (Watching(cluster, f"edit{n}", entities=64) for n in (1, 2))
    async with ann.server, bob.server:
        await meet(ann, bob)
        await ann.server.transfers.enter("ann")
        await bob.server.transfers.enter("bob")
        taken = await _import(ann, bob, "crate")
        placed = await _place(ann, bob, "crate", edits)
        await _import(ann, bob, "lamp", authority=False)
        direct = await _update(ann, bob, "lamp", edits)
    return {"edits": edits, "request_ms": round(taken, 2), "placed": placed, "direct": direct}


async def _import(ann: Watching, bob: Watching, entity: str, *, authority: bool = True) -> float:
    """Ann imports an object, Bob sees it and asks for it; milliseconds until it is his."""
    transfers = bob.server.transfers
    await ann.server.transfers.spawn(entity, owner="ann", position=_IMPORTED, rule=Rule.ALLOW)
    await until(lambda: entity in bob.accepted and transfers.recorded_owner(entity) == "ann", "import")
    begin = time.monotonic()
    await transfers.request(entity, player="bob", authority=authority)
    took = 1000 * (time.monotonic() - begin)
    # Her server hears of it from the homeserver, and shows from then on what his says.
    await until(lambda: ann.server.transfers.recorded_owner(entity) == "bob", "word of the new owner")
    return took


async def _place(ann: Watching, bob: Watching, entity: str, edits: int) -> dict[str, float]:
    """Bob's server has taken the object over, and he moves it; until Ann's shows it there."""
    took = []
    for number in range(edits):
        there = np.array((number / 8, -number / 8, 5.0))
        begin = time.monotonic_ns()
        bob.server.transfers.place(entity, there, by="bob")
        shown = await until(
            lambda: np.abs(ann.server.transfers.state(entity).position - there).max() < _MILLIMETRE,  # noqa: B023
            "edit",
        )
        took.append(shown - begin)
    return percentiles(took)


async def _update(ann: Watching, bob: Watching, entity: str, edits: int) -> dict[str, Any]:
    """Ann's server goes on simulating what is Bob's, and he changes it directly (Case 3)."""
    transfers, direct = bob.server.transfers, ann.server.transfers.direct
    await _until_obeyed(ann, bob, entity)
    shown, credited = [], []
    refused = direct.refused
    for number in range(edits):
        # Back and forth, since what rolls slows down.
        speed = 10.0 * (-1) ** number
        begin = time.monotonic_ns()
        await transfers.update(entity, by="bob", velocity=(speed, 0.0, 0.0))
        credited.append(time.monotonic_ns() - begin)
        at = await until(
            lambda: ann.server.transfers.state(entity).velocity[0] * speed > 0,  # noqa: B023
            "update",
        )
        shown.append(at - begin)
    return {
        **percentiles(shown),
        "credit_p50_ms": percentiles(credited)["p50_ms"],
        "refused": direct.refused - refused,
    }


async def _until_obeyed(ann: Watching, bob: Watching, entity: str) -> None:
    """Her server refuses him until it has heard at which server he is."""
    direct = ann.server.transfers.direct
    while not ann.updated_ns:
        refused = direct.refused
        await bob.server.transfers.update(entity, by="bob", velocity=(-10.0, 0.0, 0.0))
        await until(lambda: ann.updated_ns or direct.refused > refused, "verdict on an update")  # noqa: B023

"""Passes as trials: which ones, how they are paced, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bridge.errors import BridgeError
from bridge.sim.match import Match, Pass, spread

SERVERS: Final = ("sim1", "sim2")
_IN_FLIGHT: Final = 64
_TRIAL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A pass between players of two servers.

    Attributes:
        giver: server of the passer.
        taker: server of the receiver.
    """

    play: Pass
    giver: str
    taker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One pass as it went.

    Attributes:
        flight_ms: how long the ball flew in the match.
        took_ms: until the receiver's side may act; ``None`` where that failed or took half a minute.
        seen_ms: until the passer's side saw the first state of it, where that is waited for.
        error: why it failed.
    """

    flight_ms: float
    took_ms: float | None
    seen_ms: float | None = None
    error: str = ""


def crossing_passes(match: Match, count: int) -> list[Crossing]:
    """Up to ``count`` passes that cross between two servers, evenly from the whole match."""
    home = spread(match.players, SERVERS)
    every = [
        Crossing(play=p, giver=home[p.passer], taker=home[p.receiver])
        for p in match.passes
        if home[p.passer] != home[p.receiver]
    ]
    if count >= len(every):
        return every
    return [every[round(i)] for i in np.linspace(0, len(every) - 1, count)]


async def run_series(
    passes: Sequence[Crossing],
    attempt: Callable[[Crossing], Awaitable[tuple[float, float | None]]],
    *,
    per_second: float,
) -> list[Trial]:
    """Try each pass by itself, a new one begun so often whatever became of those before.

    Args:
        passes: in the order in which they begin.
        attempt: one pass; milliseconds until the taker acts, and until the giver sees it.
        per_second: passes begun; fewer while 64 are under way.
    """
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(_IN_FLIGHT)
    trials: list[Trial] = []

    async def one(crossing: Crossing) -> None:
        took: float | None = None
        seen: float | None = None
        failure = ""
        try:
            async with asyncio.timeout(_TRIAL_SECONDS):
                took, seen = await attempt(crossing)
        except (BridgeError, TimeoutError) as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            room.release()
        flight_ms = crossing.play.flight * 1e3
        trials.append(Trial(flight_ms=flight_ms, took_ms=took, seen_ms=seen, error=failure))

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number, crossing in enumerate(passes):
            await asyncio.sleep(began + number / per_second - loop.time())
            await room.acquire()
            group.create_task(one(crossing))
    return trials


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """What is published of a series; percentiles are of the passes that came to their end."""
    took = np.array([t.took_ms for t in trials if t.took_ms is not None])
    if not len(took):
        return {"passes": len(trials), "failed": len(trials)}
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    seen = [t.seen_ms for t in trials if t.seen_ms is not None]
    in_time = sum(t.took_ms is not None and t.took_ms <= t.flight_ms for t in trials)
    result: dict[str, Any] = {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
        "before_arrival": round(in_time / len(trials), 4),
        "within_100_ms": round(float((took <= 100).sum()) / len(trials), 4),
        "within_600_ms": round(float((took <= 600).sum()) / len(trials), 4),
        "passes": len(trials),
        "failed": len(trials) - len(took),
    }
    if seen:
        result["seen_p50_ms"] = round(float(np.percentile(seen, 50)), 2)
    return result

"""Whether data slows metadata down and metadata data: each measured alone, and beside the other at its most.

Data are sealed state datagrams, as many as a core seals and opens; metadata are writes of 64 tasks to three
homeservers. Data have one core of the machine and all else the others, in every measurement alike, so what is
seen is what one does to the other and not that both wanted the same core. Rounds alternate and medians are
taken. Ratios are of the time (or, of ``data_rate``, of what was delivered) beside the other to that alone.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import uvloop

from benchmarks.udp.fat import measure_rate
from benchmarks.udp.processes import in_fresh_process
from benchmarks.udp.roundtrip import measure_round_trips
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig

_CORES: Final = sorted(os.sched_getaffinity(0))
_DATA_CORE: Final = _CORES[0]
_OTHER_CORES: Final = set(_CORES[1:] or _CORES)
_WRITERS: Final = 64

Result = TypeVar("Result")


async def data(function: Callable[[], Result]) -> Result:
    """What a measurement of datagrams gives, in a process of its own on the data's core."""

    def run() -> Result:
        # Of this thread, and so of the process that it starts.
        os.sched_setaffinity(0, {_DATA_CORE})
        try:
            return in_fresh_process(function)
        finally:
            os.sched_setaffinity(0, _OTHER_CORES)

    return await asyncio.to_thread(run)


async def puts_ms(store: Khepri, seconds: float) -> list[float]:
    """Milliseconds of writes, one at a time."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await store.put("/:isolation", len(found))
        found.append((time.perf_counter() - began) * 1e3)
    return found


@contextlib.asynccontextmanager
async def writing(store: Khepri) -> AsyncIterator[None]:
    """As many writes as 64 tasks can make."""

    async def write(number: int) -> None:
        count = 0
        while True:
            count += 1
            await store.put(f"/:isolation/{number}", count)

    tasks = [asyncio.create_task(write(number)) for number in range(_WRITERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def measure(cluster: LocalCluster, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over rounds, and ratios."""
    rate = functools.partial(measure_rate, seconds)
    trips = functools.partial(measure_round_trips, 2_000, busy_poll=False)
    names = ("put_p50_ms", "put_p99_ms", "trip_p50_us", "trip_p99_us", "data_rate")
    alone: dict[str, list[float]] = {name: [] for name in names}
    beside: dict[str, list[float]] = {name: [] for name in names}

    async def one_round(store: Khepri, found: dict[str, list[float]], *, busy: bool) -> None:
        if busy:
            flood = asyncio.create_task(data(functools.partial(measure_rate, seconds + 2.0)))
            await asyncio.sleep(1.0)
            puts = await puts_ms(store, seconds)
            await flood
        else:
            puts = await puts_ms(store, seconds)
        async with writing(store) if busy else contextlib.nullcontext():
            times = await data(trips)
            delivered = await data(rate)
        found["put_p50_ms"].append(statistics.median(puts))
        found["put_p99_ms"].append(_p99(puts))
        found["trip_p50_us"].append(statistics.median(times))
        found["trip_p99_us"].append(_p99(times))
        found["data_rate"].append(delivered.per_s)

    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    async with (
        HiddenNode("isolation@127.0.0.1", cookie=cluster.cookie, config=config) as node,
        Khepri.connect(node, cluster.members, store=cluster.store) as store,
    ):
        await store.put("/:isolation", 0)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            await one_round(store, alone, busy=False)
            await one_round(store, beside, busy=True)
    result: dict[str, Any] = {}
    for name in names:
        ratios = [
            with_other / by_itself for by_itself, with_other in zip(alone[name], beside[name], strict=True)
        ]
        result[f"{name.rpartition('_')[0] if name != 'data_rate' else name}_x"] = round(
            statistics.median(ratios), 2
        )
        result[f"{name}_alone"] = round(statistics.median(alone[name]), 3)
        result[f"{name}_beside"] = round(statistics.median(beside[name]), 3)
    return result


def main() -> None:
    """Entry of ``scripts/bench isolation``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of writes, and of datagrams, in a round")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    # Inherited by the homeservers.
    os.sched_setaffinity(0, _OTHER_CORES)
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        result = uvloop.run(measure(cluster, arguments.rounds, arguments.seconds))
    about = {
        "benchmark": "isolation",
        "python": platform.python_version(),
        "processors": len(_CORES),
        "load_before": load,
        "rounds": arguments.rounds,
    }
    print(json.dumps(about | result))


if __name__ == "__main__":
    main()

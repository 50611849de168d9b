"""Throughput against the number of servers: homeservers, and simulation servers (R0-43).

Of homeservers 1, 3 and 5: writes and reads, 64 at once through a client at each member, and requests about
authority, 64 at once through one control plane. Of simulation servers 2 and 4, with three homeservers: whole
transfers, 64 at once. All on one machine, so that its processors are shared by more the more servers there
are. Prints one line of JSON; everything is a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from benchmarks.rpc import AT_ONCE
from benchmarks.transfers import LEASE_MS, throughput, whole
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig

_HOMESERVERS: Final = (1, 3, 5)
_SIMULATION_SERVERS: Final = (2, 4)


async def _per_second(
    stores: list[Khepri], seconds: float, action: Callable[[Khepri, int], Awaitable[Any]]
) -> int:
    """Actions a second by 64 tasks, spread over the clients."""
    end = time.perf_counter() + seconds
    done = 0

    async def work(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await action(stores[number % len(stores)], number)
            done += 1

    await asyncio.gather(*(work(number) for number in range(AT_ONCE)))
    return round(done / seconds)


async def _put(store: Khepri, number: int) -> None:
    await store.put(f"/:scale/{number}", number)


async def _get(store: Khepri, number: int) -> None:
    await store.get(f"/:scale/{number}")


async def homeservers(
    cluster: LocalCluster, rounds: int, seconds: float, calls: int = 2_048
) -> dict[str, int]:
    """Medians over rounds."""
    puts, gets = [], []
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    async with (
        HiddenNode("scale@127.0.0.1", cookie=cluster.cookie, config=config) as node,
        contextlib.AsyncExitStack() as stack,
    ):
        stores = [
            await stack.enter_async_context(Khepri.connect(node, member, store=cluster.store))
            for member in cluster.members
        ]
        for _ in range(rounds):
            puts.append(await _per_second(stores, seconds, _put))
            # Of each client's own member, which may be behind.
            await asyncio.gather(*(store.fence() for store in stores))
            gets.append(await _per_second(stores, seconds, _get))
        pushes = await throughput(cluster, node, rounds, calls)
    return {
        "puts": round(statistics.median(puts)),
        "gets": round(statistics.median(gets)),
        "transfers": round(float(pushes["transfers_per_s"])),  # type: ignore[arg-type]
    }


def main() -> None:
    """Entry of ``scripts/bench scale``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of writes, and of reads, in a round")
    parser.add_argument("--turns", type=int, default=10, help="transfers of each of 64 entities")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "scale",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "homeservers": {},
        "simulation_servers": {},
    }
    for nodes in _HOMESERVERS:
        print(f"{nodes} homeservers", file=sys.stderr, flush=True)
        with _cluster(nodes) as cluster:
            measured = uvloop.run(homeservers(cluster, arguments.rounds, arguments.seconds))
        result["homeservers"][nodes] = measured
    with _cluster(3) as cluster:
        for servers in _SIMULATION_SERVERS:
            print(f"{servers} simulation servers", file=sys.stderr, flush=True)
            per_second = uvloop.run(whole(cluster, arguments.turns, servers))
            result["simulation_servers"][servers] = {"transfers": round(per_second)}
    print(json.dumps(result))


def _cluster(nodes: int) -> LocalCluster:
    return LocalCluster(LocalClusterConfig(nodes=nodes, environment={"KB_LEASE_MS": str(LEASE_MS)}))


if __name__ == "__main__":
    main()

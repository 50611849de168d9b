"""Transfers of authority between two servers on loopback, against one committed transaction of the same run.

A transfer is a push: from the call to the first state that the former holder accepts from the new one. The
peer is ``give``, one transaction through the same client, which changes the owner only. Rounds are
interleaved (A B A B) and medians are compared, so that other load hits both alike. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time

import uvloop

from benchmarks.network import add_network_option
from bridge.homeserver.local import LocalCluster, LocalClusterConfig
from bridge.sim.config import SimulationConfig
from bridge.sim.events import ServerEvent, StateAccepted
from bridge.sim.server import SimulationServer
from bridge.udp import NetworkConditions


class Arrivals:
    """When the first state of each epoch was accepted, by either server."""

    def __init__(self) -> None:
        self._at_ns: dict[int, int] = {}
        self._news = asyncio.Event()

    def on_event(self, event: ServerEvent) -> None:
        """Take an event of a server."""
        if isinstance(event, StateAccepted):
            self._at_ns.setdefault(event.epoch, event.at_ns)
            self._news.set()

    async def wait(self, epoch: int) -> int:
        """Monotonic nanoseconds at which it was accepted."""
        while epoch not in self._at_ns:
            self._news.clear()
            await self._news.wait()
        return self._at_ns[epoch]


async def measure(cluster: LocalCluster, rounds: int, network: NetworkConditions) -> dict[str, float]:
    """Latencies in milliseconds."""
    arrivals = Arrivals()

    def config(name: str) -> SimulationConfig:
        return SimulationConfig(
            name=name,
            node=f"{name}@127.0.0.1",
            members=cluster.members,
            cookie=cluster.cookie,
            epmd_port=cluster.epmd_port,
            network=network,
        )

    async with (
        SimulationServer(config("sim1"), arrivals.on_event) as one,
        SimulationServer(config("sim2"), arrivals.on_event) as two,
    ):
        record = await one.transfers.spawn("ball", owner="p", position=(0.0, 0.0, 0.0))
        await arrivals.wait(record.epoch)
        pushes, gives = [], []
        holder, other = one, two
        for number in range(rounds):
            begin = time.monotonic_ns()
            await holder.transfers.give("ball", owner=f"p{number}")
            gives.append((time.monotonic_ns() - begin) / 1e6)
            begin = time.monotonic_ns()
            record = await holder.transfers.push("ball", owner="q", to=other.config.name)
            pushes.append((await arrivals.wait(record.epoch) - begin) / 1e6)
            holder, other = other, holder
    push, give = statistics.median(pushes), statistics.median(gives)
    return {
        "transfer_p50_ms": round(push, 3),
        "transfer_p99_ms": round(statistics.quantiles(pushes, n=100)[98], 3),
        "transaction_p50_ms": round(give, 3),
        "transaction_p99_ms": round(statistics.quantiles(gives, n=100)[98], 3),
        "transfer_x_transaction": round(push / give, 2),
    }


def main() -> None:
    """Entry of ``scripts/bench transfer``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="transfers, and as many transactions")
    add_network_option(parser)
    parser.add_argument("--json", action="store_true", help="accepted for all benchmarks; the output is JSON")
    arguments = parser.parse_args()
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        result = uvloop.run(measure(cluster, arguments.rounds, arguments.network))
    print(
        json.dumps(
            result
            | {
                "network": str(arguments.network),
                "rounds": arguments.rounds,
                "nodes": 3,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()

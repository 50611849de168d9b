"""How long entities stand still when their simulation server dies, and whether a live one ever loses them.

A round starts a server in processes of its own, lets another one stream its entity in, and takes the first
away: ``kill -9`` of its control plane and data plane, whose guardian then ends the session; or SIGSTOP of all
three, which stands for the loss of the host: the lease has to run out. It ends with the first state that the
successor seals. False failovers are counted over a stretch in which every core is busy and the store's leader
is killed once. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.authority import Act, decode_entries
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.sim.config import SimulationConfig
from bridge.sim.events import AuthorityGained, FellSilent, ServerEvent, SessionLost, StateAccepted
from bridge.sim.server import SimulationServer
from tests.support.server_process import server_process

RESULTS: Final = Path(__file__).parent / "results" / "failover.json"
_SECONDS: Final = 60.0


class Successor:
    """A running server and its events."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.events: list[ServerEvent] = []
        self._news = asyncio.Event()
        config = SimulationConfig(
            name=name,
            node=f"{name}@127.0.0.1",
            members=cluster.members,
            cookie=cluster.cookie,
            epmd_port=cluster.epmd_port,
            register=False,
            keep_history=True,
        )
        self.server = SimulationServer(config, self._on_event)

    def _on_event(self, event: ServerEvent) -> None:
        self.events.append(event)
        self._news.set()

    async def told(self, kind: type[ServerEvent], entity: str) -> None:
        """Wait for an event about an entity."""
        async with asyncio.timeout(_SECONDS):
            while not any(isinstance(e, kind) and getattr(e, "entity", "") == entity for e in self.events):
                self._news.clear()
                await self._news.wait()

    async def streams(self, entity: str) -> None:
        """Wait until the entity's state lies in this server's world."""
        await self.told(StateAccepted, entity)
        async with asyncio.timeout(_SECONDS):
            # The world is memory that another process writes: there is nothing to wait on.
            while not self.server.transfers.state(entity).position.any():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def first_sealed_ns(self, entity: str) -> int:
        """When it sealed the first state of an entity that it took over."""
        report = await self.server.report()
        acts = (entry for entry in decode_entries(report.history) if isinstance(entry, Act))
        return min(act.first_ns for act in acts if act.entity == entity)


async def take_away(
    cluster: LocalCluster, successor: Successor, name: str, number: int, *, host: bool
) -> float:
    """Milliseconds from the loss of a server, or of its host, to the successor's first sealed state."""
    entity = f"{name}-{number}"
    async with server_process(cluster, name) as holder:
        await holder.driver.spawn(entity, owner="p", position=(1.0, 2.0, 3.0))
        await successor.streams(entity)
        began = time.monotonic_ns()
        if host:
            holder.stop(holder.control, holder.data, holder.guardian)
        else:
            holder.kill(holder.control, holder.data)
        await successor.told(AuthorityGained, entity)
        if host:
            # A host that is lost says nothing later, either.
            holder.kill(holder.control, holder.data, holder.guardian)
    taken_ms = (await successor.first_sealed_ns(entity) - began) / 1e6
    print(f"{entity}: {taken_ms:.1f} ms", file=sys.stderr, flush=True)
    return taken_ms


async def measure(
    cluster: LocalCluster, *, rounds: int = 20, load_seconds: float = 600.0
) -> dict[str, float | int | list[float]]:
    """Failover times in milliseconds, and false failovers; the cluster's leader is killed and started again.

    Args:
        cluster: of three members; its lease decides about the loss of a host.
        rounds: losses of a server, and as many of a host; p99 of up to a hundred is the worst.
        load_seconds: of full load, for false failovers.
    """
    successor = Successor(cluster, "successor")
    async with successor.server:
        killed = [await take_away(cluster, successor, "killed", n, host=False) for n in range(rounds)]
        lost = [await take_away(cluster, successor, "lost", n, host=True) for n in range(rounds)]
        false = await false_failovers(cluster, successor, load_seconds)
    return {
        "failover_p50_ms": round(statistics.median(killed), 1),
        "failover_p99_ms": round(_p99(killed), 1),
        "host_loss_p50_ms": round(statistics.median(lost), 1),
        "host_loss_p99_ms": round(_p99(lost), 1),
        **false,
    }


async def false_failovers(
    cluster: LocalCluster, successor: Successor, seconds: float
) -> dict[str, float | int | list[float]]:
    """Sessions lost, and silences, of a live server under full load, with one kill of the leader half-way."""
    async with server_process(cluster, "alive") as holder:
        await holder.driver.spawn("alive-ball", owner="p", position=(1.0, 2.0, 3.0))
        await successor.streams("alive-ball")
        with _busy(os.cpu_count() or 1):
            await asyncio.sleep(seconds / 2)
            leader = str((await successor.server.store.health(timeout=_SECONDS)).leader)
            cluster.kill_node(leader)
            await asyncio.sleep(seconds / 2)
        events = [*holder.events, *successor.events]
        await asyncio.to_thread(cluster.start_node, leader)
    return {
        "false_failovers": sum(isinstance(event, SessionLost) for event in events),
        "silences": sum(isinstance(event, FellSilent) for event in events),
        "load_seconds": seconds,
    }


@contextlib.contextmanager
def _busy(cores: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def main() -> None:
    """Entry of ``scripts/bench failover``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="losses of a server, and as many of a host")
    parser.add_argument("--load-seconds", type=float, default=600.0, help="of full load")
    parser.add_argument("--lease-ms", type=int, default=3_000)
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    config = LocalClusterConfig(nodes=3, environment={"KB_LEASE_MS": str(arguments.lease_ms)})
    with LocalCluster(config) as cluster:
        measured = asyncio.run(measure(cluster, rounds=arguments.rounds, load_seconds=arguments.load_seconds))
    result = {
        "benchmark": "failover",
        "python": platform.python_version(),
        "rounds": arguments.rounds,
        "lease_ms": arguments.lease_ms,
        **measured,
    }
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Transfers of authority between simulation servers: how long one takes, and how many a second there are.

On three homeservers and loopback. Case 2 is measured from the giver's push, or the taker's pull, to the time
from which the taker acts; beside each, one put of the same cluster. Throughput is that of requests to the
homeservers, 64 at once over as many entities, through one control plane; the peer is a native hidden Erlang
node that makes as many transactions of one put, 64 at once. Rounds alternate, so that other load hits both
alike. Whole transfers, 64 at once, in which data planes sign and open, are counted too. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import uvloop

from benchmarks.native import native_node
from benchmarks.network import add_network_option
from benchmarks.rpc import AT_ONCE, instructions
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig
from bridge.registry import ConflictError, EntityRecord, Rule
from bridge.sim.config import SimulationConfig
from bridge.sim.events import AuthorityGained, ServerEvent, StateAccepted
from bridge.sim.server import SimulationServer
from bridge.udp import NetworkConditions
from tests.support.authority import Server

LEASE_MS: Final = 3_600_000
"""Sessions here are not renewed."""
_PATH: Final = (Atom("bench"), b"transfers")
_DATA: Final = {Atom("count"): 3, Atom("name"): b"a small record of a world"}
_ORIGIN: Final = (0.0, 0.0, 0.0)
_SECONDS: Final = 30.0


class Arrivals:
    """When servers began to act under a grant, and when another one first accepted state of it."""

    def __init__(self) -> None:
        self._at_ns: dict[tuple[type[ServerEvent], int], asyncio.Future[int]] = {}

    def on_event(self, event: ServerEvent) -> None:
        """Take an event of a server."""
        if isinstance(event, AuthorityGained | StateAccepted):
            future = self._future(type(event), event.epoch)
            if not future.done():
                future.set_result(event.at_ns)

    async def acts(self, epoch: int) -> int:
        """Monotonic nanoseconds from which a server acts under this grant."""
        return await asyncio.wait_for(self._future(AuthorityGained, epoch), _SECONDS)

    async def seen(self, epoch: int) -> int:
        """Monotonic nanoseconds at which the other server accepted its first state."""
        return await asyncio.wait_for(self._future(StateAccepted, epoch), _SECONDS)

    def _future(self, kind: type[ServerEvent], epoch: int) -> asyncio.Future[int]:
        if (kind, epoch) not in self._at_ns:
            self._at_ns[kind, epoch] = asyncio.get_running_loop().create_future()
        return self._at_ns[kind, epoch]


def simulation(
    cluster: LocalCluster,
    name: str,
    on_event: Callable[[ServerEvent], None],
    network: NetworkConditions | None = None,
) -> SimulationServer:
    """A server that joins the cluster when it is entered."""
    config = SimulationConfig(
        name=name,
        node=f"{name}@127.0.0.1",
        members=cluster.members,
        cookie=cluster.cookie,
        epmd_port=cluster.epmd_port,
        register=False,
        network=network,
    )
    return SimulationServer(config, on_event)


async def latency(
    cluster: LocalCluster, store: Khepri, rounds: int, network: NetworkConditions | None
) -> dict[str, Any]:
    """Milliseconds of pushes and pulls, one at a time, and of a put between them."""
    arrivals = Arrivals()
    pushes: list[int] = []
    pulls: list[int] = []
    puts, seen = [], []
    conflicts = 0
    async with (
        simulation(cluster, "sim1", arrivals.on_event, network) as one,
        simulation(cluster, "sim2", arrivals.on_event, network),
    ):
        record = await one.transfers.spawn("ball", owner="p", position=_ORIGIN)
        await arrivals.seen(record.epoch)
        while len(pulls) < rounds:
            begin = time.monotonic_ns()
            await store.put(_PATH, _DATA)
            puts.append(time.monotonic_ns() - begin)
            begin = time.monotonic_ns()
            record = await one.transfers.push("ball", owner="q", to="sim2")
            pushes.append(await arrivals.acts(record.epoch) - begin)
            seen.append(await arrivals.seen(record.epoch) - begin)
            while True:
                begin = time.monotonic_ns()
                try:
                    record = await one.transfers.pull("ball", owner="p")
                except ConflictError:
                    # Its feed has not told it of its own push yet.
                    conflicts += 1
                    continue
                break
            pulls.append(await arrivals.acts(record.epoch) - begin)
            await arrivals.seen(record.epoch)
    return {
        **_percentiles("case2", pushes + pulls),
        **_percentiles("push", pushes),
        **_percentiles("pull", pulls),
        **_percentiles("push_until_giver_sees", seen),
        **_percentiles("put", puts),
        "samples": len(pushes) + len(pulls),
        "conflicts": conflicts,
    }


async def throughput(
    cluster: LocalCluster, node: HiddenNode, rounds: int, calls: int
) -> dict[str, float | list[float]]:
    """Pushes of two sessions to each other, 64 at once, against transactions of a native node."""
    async with Khepri.connect(node, cluster.members, store=cluster.store) as any_member:
        leader = str((await any_member.health()).leader)
    await node.connect(leader)
    details = {
        "node": Atom(leader),
        "store": Atom(cluster.store),
        "procedure": await node.call(leader, "kb_store", "procedure", []),
        "instructions": {b"%d" % n: await instructions(node, leader, n) for n in range(1, AT_ONCE + 1)},
    }
    async with (
        Khepri.connect(node, leader, store=cluster.store) as store,
        native_node(cluster, node, details) as native,
    ):
        giver, taker = Server(store, "giver"), Server(store, "taker")
        await giver.open()
        await taker.open()
        records = await asyncio.gather(
            *(giver.home.create_entity(entity=f"e{n}", owner="p", master="p", rule=Rule.ALLOW)
              for n in range(AT_ONCE))
        )  # fmt: skip
        ours, peers = [], []
        for _ in range(rounds):
            begin = time.perf_counter()
            records = await asyncio.gather(
                *(_to_and_fro(record, giver, taker, calls // AT_ONCE // 2) for record in records)
            )
            ours.append((time.perf_counter() - begin) / (calls // AT_ONCE // 2 * 2 * AT_ONCE))
            peers.append(await native.run("tx", calls // AT_ONCE * AT_ONCE, AT_ONCE) / 1e6)
    ratios = [peer / mine for mine, peer in zip(ours, peers, strict=True)]
    return {
        "transfers_x_tx64": round(statistics.median(ratios), 2),
        "transfers_x_tx64_rounds": [round(ratio, 2) for ratio in ratios],
        "transfers_per_s": round(1 / statistics.median(ours)),
        "native_tx64_per_s": round(1 / statistics.median(peers)),
    }


async def _to_and_fro(record: EntityRecord, giver: Server, taker: Server, turns: int) -> EntityRecord:
    for _ in range(turns):
        record = await giver.push(record, taker)
        record = await taker.push(record, giver)
    return record


async def whole(cluster: LocalCluster, turns: int, servers: int = 2) -> float:
    """Transfers a second around a ring of servers, 64 entities at once, each from push to acting."""
    arrivals = Arrivals()
    async with contextlib.AsyncExitStack() as stack:
        ring = [
            await stack.enter_async_context(simulation(cluster, f"ring{servers}-{n}", arrivals.on_event))
            for n in range(servers)
        ]
        names = [f"ring{servers}-{n}" for n in range(AT_ONCE)]
        for n, name in enumerate(names):
            record = await ring[n % servers].transfers.spawn(name, owner="p", position=_ORIGIN)
            await arrivals.seen(record.epoch)

        async def transfers(number: int) -> None:
            for turn in range(number, number + turns):
                holder, other = ring[turn % servers], ring[(turn + 1) % servers]
                record = await holder.transfers.push(names[number], owner="p", to=other.config.name)
                await arrivals.acts(record.epoch)

        begin = time.perf_counter()
        await asyncio.gather(*(transfers(number) for number in range(AT_ONCE)))
        return AT_ONCE * turns / (time.perf_counter() - begin)


def _percentiles(name: str, values_ns: Sequence[int]) -> dict[str, float]:
    hundredths = statistics.quantiles(values_ns, n=100)
    return {
        f"{name}_p50_ms": round(statistics.median(values_ns) / 1e6, 3),
        f"{name}_p99_ms": round(hundredths[98] / 1e6, 3),
    }


async def measure(
    *,
    say: Callable[[str], None],
    rounds: int = 1_000,
    tx_rounds: int = 7,
    calls: int = 4_096,
    network: NetworkConditions | None = None,
) -> dict[str, Any]:
    """Latency and throughput, on a cluster of three of their own.

    Args:
        say: is told how far it is.
        rounds: a push, a pull and a put each.
        tx_rounds: of both sides of the comparison.
        calls: 64 at once, on each side of one of those.
        network: what the datagrams of the rounds go through.
    """
    config = LocalClusterConfig(nodes=3, environment={"KB_LEASE_MS": str(LEASE_MS)})
    with LocalCluster(config) as cluster:
        node_config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
        async with HiddenNode("bench@127.0.0.1", cookie=cluster.cookie, config=node_config) as node:
            say(f"transfers: {rounds} pushes and pulls")
            async with Khepri.connect(node, cluster.members, store=cluster.store) as store:
                result = await latency(cluster, store, rounds, network)
            say(f"transfers: {tx_rounds} rounds of {calls} requests, 64 at once")
            result |= await throughput(cluster, node, tx_rounds, calls)
            say("transfers: whole ones, 64 at once")
            result["whole_transfers_per_s"] = round(await whole(cluster, 20))
    return result


def main() -> None:
    """Entry of ``scripts/bench transfers``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000, help="pushes, as many pulls, and puts")
    parser.add_argument("--tx-rounds", type=int, default=7, help="of both sides, 64 at once")
    parser.add_argument("--calls", type=int, default=4_096, help="in one of those")
    add_network_option(parser)
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    measured = measure(
        network=arguments.network,
        rounds=arguments.rounds,
        tx_rounds=arguments.tx_rounds,
        calls=arguments.calls,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    about = {
        "benchmark": "transfers",
        "python": platform.python_version(),
        "network": str(arguments.network),
    }
    print(json.dumps(about | uvloop.run(measured)))


if __name__ == "__main__":
    main()

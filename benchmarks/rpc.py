"""Calls of a node and of the store, each against a native hidden Erlang node doing the same in the same run.

Prints one line of JSON. ``call`` is ``erlang:node()``; ``get`` and ``put`` are the client's against
``khepri:get`` and ``khepri:put``; ``tx`` is a put with an operation id against ``khepri:transaction`` of the
same stored procedure with the same arguments. The peer always uses ``erpc:call``. ``_seq`` is one at a time,
``_64`` is 64 at once; both are ratios of the time of a call, below 1 is faster. ``cpu_us_64`` is processor
time of this process per trivial call, in microseconds. One homeserver by default: of three on two processors
the store's own work hides the client's. Rounds alternate (A B A B) and medians are taken, so that other load
hits both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.native import Native, native_node
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.etf import Atom, ExportFun
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig

RESULTS: Final = Path(__file__).parent / "results" / "rpc.json"
AT_ONCE: Final = 64
_PATH: Final = (Atom("bench"), b"rpc")
_DATA: Final = {Atom("count"): 3, Atom("name"): b"a small record of a world"}
_SHARE: Final = {"call": 1.0, "get": 1.0, "put": 0.5, "tx": 0.5}
"""of the calls asked for: the store's writes take longer, and their medians need fewer of them"""

Action = Callable[[int], Awaitable[object]]
"""one call of worker number n"""


async def measure_ours(action: Action, calls: int, at_once: int) -> tuple[float, float]:
    """Microseconds of wall time and of processor time per call."""

    async def work(number: int) -> None:
        for _ in range(calls // at_once):
            await action(number)

    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    if at_once == 1:
        await work(0)
    else:
        await asyncio.gather(*(work(number) for number in range(at_once)))
    return (time.perf_counter() - wall) * 1e6 / calls, (time.process_time() - cpu) * 1e6 / calls


class Rounds:
    """Measurements of one kind of call, both sides alternating."""

    def __init__(self, what: str, action: Action, native: Native, calls: int) -> None:
        self.what = what
        self._action = action
        self._native = native
        self._calls = int(calls * _SHARE[what])
        self.ours: dict[int, list[tuple[float, float]]] = {1: [], AT_ONCE: []}
        self.native: dict[int, list[float]] = {1: [], AT_ONCE: []}

    async def round(self) -> None:
        """Both sides, one at a time and 64 at once."""
        for at_once in (1, AT_ONCE):
            amount = self._calls if at_once == 1 else 4 * self._calls // AT_ONCE * AT_ONCE
            self.ours[at_once].append(await measure_ours(self._action, amount, at_once))
            self.native[at_once].append(await self._native.run(self.what, amount, at_once))

    def result(self) -> dict[str, float]:
        """Ratios, and the times they come from in microseconds."""
        result = {}
        for at_once, suffix in ((1, "seq"), (AT_ONCE, "64")):
            pairs = list(zip(self.ours[at_once], self.native[at_once], strict=True))
            result[f"{self.what}_{suffix}"] = round(
                statistics.median(mine / peer for (mine, _), peer in pairs), 2
            )
            result[f"{self.what}_{suffix}_us"] = round(statistics.median(mine for (mine, _), _ in pairs), 1)
            result[f"native_{self.what}_{suffix}_us"] = round(statistics.median(peer for _, peer in pairs), 1)
        return result

    def processor_us(self) -> float:
        """Processor time per call with 64 at once, in microseconds."""
        return round(statistics.median(cpu for _, cpu in self.ours[AT_ONCE]), 1)


async def instructions(node: HiddenNode, member: str, worker: int) -> list[Any]:
    """What the homeserver makes of a worker's put, for the interpreter that the peer calls."""
    operation = (Atom("put"), [*_PATH, b"%d" % worker], _DATA)
    no_props = ExportFun(Atom("kb_khepri"), Atom("stores"), 0)
    answer = await node.call(member, "kb_operations", "checked", [[operation], no_props])
    found: list[Any] = answer[1]
    return found


async def measure(cluster: LocalCluster, kinds: list[str], rounds: int, calls: int) -> dict[str, Any]:
    """Alternate the two sides and take medians; ``load_before`` tells how busy the machine was without us."""
    load = round(os.getloadavg()[0], 1)
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    async with HiddenNode("python@127.0.0.1", cookie=cluster.cookie, config=config) as node:
        async with Khepri.connect(node, cluster.members, store=cluster.store) as any_member:
            leader = str((await any_member.health()).leader)
        await node.connect(leader)
        procedure = await node.call(leader, "kb_store", "procedure", [])
        release = bytes(await node.call(leader, "erlang", "system_info", [Atom("otp_release")])).decode()
        details = {
            "node": Atom(leader),
            "store": Atom(cluster.store),
            "path": list(_PATH),
            "data": _DATA,
            "procedure": procedure,
            "instructions": {b"%d" % n: await instructions(node, leader, n) for n in range(1, AT_ONCE + 1)},
        }
        async with (
            Khepri.connect(node, leader, store=cluster.store) as store,
            native_node(cluster, node, details) as native,
        ):
            await store.put(_PATH, _DATA)

            async def call(_: int) -> None:
                await node.call(leader, "erlang", "node", [])

            async def get(_: int) -> None:
                await store.get(_PATH)

            async def put(number: int) -> None:
                await store.put((*_PATH, b"%d" % number), _DATA)

            async def tx(number: int) -> None:
                await store.put_once((*_PATH, b"%d" % number), _DATA)

            actions: dict[str, Action] = {"call": call, "get": get, "put": put, "tx": tx}
            measured = [Rounds(what, actions[what], native, calls) for what in kinds]
            for _ in range(rounds):
                for one in measured:
                    await one.round()
    result: dict[str, Any] = {
        "benchmark": "rpc",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "otp": release,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "nodes": len(cluster.members),
        "rounds": rounds,
    }
    for one in measured:
        result |= one.result()
        if one.what == "call":
            result["cpu_us_64"] = one.processor_us()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--calls", type=int, default=1_000, help="one at a time, per round; four times as many 64 at once"
    )
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 3, 5), help="homeservers of the cluster")
    parser.add_argument(
        "--only", action="append", choices=sorted(_SHARE), help="measure this alone; may be repeated"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    kinds = arguments.only or ["call", "get", "put", "tx"]
    with LocalCluster(LocalClusterConfig(nodes=arguments.nodes)) as cluster:
        result = uvloop.run(measure(cluster, kinds, arguments.rounds, arguments.calls))
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

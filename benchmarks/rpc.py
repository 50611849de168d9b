"""A trivial call of a node, against a native hidden Erlang node's ``erpc:call`` in the same run.

Prints one line of JSON. ``call_seq`` (one at a time) and ``call_64`` (64 at once) are ratios of the time of a
call to the native node's: below 1 is faster. ``cpu_us_64`` is processor time of this process per call, in
microseconds, with 64 at once. Rounds alternate (A B A B) and medians are taken, so that other load hits
both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop

from bridge.etf import Atom
from bridge.node import HiddenNode
from tests.support.otp import COOKIE, PortMapper, otp_node, port_mapper

RESULTS: Final = Path(__file__).parent / "results" / "rpc.json"
AT_ONCE: Final = 64
_TARGET: Final = "target@127.0.0.1"
_NATIVE: Final = "native@127.0.0.1"
# Compiled, since the shell's interpreter would slow it down. The answer is microseconds per call.
_SOURCE: Final = """
-module(rpc_bench).
-export([run/3]).

run(Node, Calls, AtOnce) ->
    {Wall, ok} = timer:tc(fun() -> spread(Node, Calls div AtOnce, AtOnce) end),
    Wall / Calls.

spread(Node, Calls, 1) ->
    calls(Node, Calls);
spread(Node, Calls, AtOnce) ->
    Workers = [spawn_monitor(fun() -> calls(Node, Calls) end) || _ <- lists:seq(1, AtOnce)],
    [receive {'DOWN', Ref, process, Pid, normal} -> ok end || {Pid, Ref} <- Workers],
    ok.

calls(_Node, 0) -> ok;
calls(Node, Calls) ->
    Node = erpc:call(Node, erlang, node, []),
    calls(Node, Calls - 1).
"""


async def measure_ours(node: HiddenNode, calls: int, at_once: int) -> tuple[float, float]:
    """Microseconds of wall time and of processor time per call."""

    async def work() -> None:
        for _ in range(calls // at_once):
            await node.call(_TARGET, "erlang", "node", [])

    wall, cpu = time.perf_counter(), time.process_time()
    if at_once == 1:
        await work()
    else:
        await asyncio.gather(*(work() for _ in range(at_once)))
    return (time.perf_counter() - wall) * 1e6 / calls, (time.process_time() - cpu) * 1e6 / calls


async def measure_native(node: HiddenNode, calls: int, at_once: int) -> float:
    """Microseconds of wall time per call of the native node.

    Its processor time is left out: ``statistics(runtime)`` leaves out what the kernel does for it.
    """
    arguments = [Atom(_TARGET), calls, at_once]
    return float(await node.call(_NATIVE, "rpc_bench", "run", arguments, timeout=60.0))


@asynccontextmanager
async def _nodes(mapper: PortMapper) -> AsyncIterator[HiddenNode]:
    """The Python node, connected to the target and to the native one, which has its module."""
    source = mapper.home / "rpc_bench.erl"
    source.write_text(_SOURCE)
    async with (
        otp_node(mapper, _TARGET.partition("@")[0]),
        otp_node(mapper, _NATIVE.partition("@")[0], flags=("-hidden",)),
        HiddenNode("python@127.0.0.1", cookie=COOKIE, config=mapper.node_config()) as node,
    ):
        options = [Atom("binary"), Atom("report")]
        compiled = await node.call(
            _NATIVE, "compile", "file", [list(str(source).encode()), options], timeout=30.0
        )
        _, module, binary = compiled
        await node.call(_NATIVE, "code", "load_binary", [module, list(b"rpc_bench.erl"), binary])
        await node.connect(_TARGET)
        yield node


async def measure(mapper: PortMapper, rounds: int, calls: int) -> dict[str, Any]:
    """Alternate the two sides and take medians; ``load_before`` tells how busy the machine was without us."""
    load = round(os.getloadavg()[0], 1)
    async with _nodes(mapper) as node:
        release = bytes(await node.call(_TARGET, "erlang", "system_info", [Atom("otp_release")])).decode()
        ours: dict[int, list[tuple[float, float]]] = {1: [], AT_ONCE: []}
        native: dict[int, list[float]] = {1: [], AT_ONCE: []}
        for _ in range(rounds):
            for at_once in (1, AT_ONCE):
                amount = calls if at_once == 1 else 4 * calls // AT_ONCE * AT_ONCE
                ours[at_once].append(await measure_ours(node, amount, at_once))
                native[at_once].append(await measure_native(node, amount, at_once))

    def wall(at_once: int) -> float:
        return statistics.median(time[0] for time in ours[at_once])

    def ratio(at_once: int) -> float:
        pairs = zip(ours[at_once], native[at_once], strict=True)
        return round(statistics.median(mine / theirs for (mine, _), theirs in pairs), 2)

    return {
        "benchmark": "rpc",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "otp": release,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "rounds": rounds,
        "call_seq": ratio(1),
        "call_64": ratio(AT_ONCE),
        "cpu_us_64": round(statistics.median(time[1] for time in ours[AT_ONCE]), 1),
        "call_seq_us": round(wall(1), 1),
        "native_call_seq_us": round(statistics.median(native[1]), 1),
        "call_64_us": round(wall(AT_ONCE), 1),
        "native_call_64_us": round(statistics.median(native[AT_ONCE]), 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--calls", type=int, default=1_000, help="one at a time, per round; four times as many 64 at once"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    with port_mapper() as mapper:
        result = uvloop.run(measure(mapper, arguments.rounds, arguments.calls))
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

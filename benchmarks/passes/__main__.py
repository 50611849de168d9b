"""Latency of a pass in every case, at round trips and losses from none to much, against the model.

The crossing passes of a real match, each a trial of its own with its own ball: they are started at a steady
rate, faster than they were played, and may overlap. A pass has taken place when the receiver's side may act.
Every link that crosses hosts has the round trip (a jitter of 10 % of it included) and the loss: datagrams by
the engine's conditioner, Erlang distribution by a TCP proxy; the homeservers of one instance are one site.
Prints one line of JSON, what is under way goes to stderr, and each cell that is done into the results file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.passes.abroad import stage_abroad
from benchmarks.passes.central import central_server, clients_of
from benchmarks.passes.establish import newcomer
from benchmarks.passes.instance import services
from benchmarks.passes.proxy import proxied
from benchmarks.passes.road import Road
from benchmarks.passes.series import Crossing, Trial, crossing_passes, run_series, summary
from benchmarks.passes.stage import commit_ms, problem_note, stage
from benchmarks.udp.processes import note
from bridge.authority import CASES, Message, messages_per_transfer, transfers
from bridge.cli.record import write_record
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.sim.match import Match, generate_match, load_match

ROOT: Final = Path(__file__).parents[2]
MATCH: Final = Path(os.environ.get("BRIDGE_SHARED", ROOT.parent / "shared")) / "data" / "passes_game1.csv"
RESULTS: Final = ROOT / "benchmarks" / "results" / "passes.json"

SERIES: Final = {
    "establish": "establish",
    "case1": "push_abroad",
    "case2": "push",
    "case2_pull": "pull",
    "case2_switch": "switch",
    "case3": "update",
    "client_server": "central_transfer",
    "client_server_update": "central_update",
}
"""case of the trace behind each series"""
_COMMITTED: Final = ("establish", "case1", "case2", "case2_pull", "case2_switch")
_WARM_UP: Final = 6
_Cell = dict[str, list[Trial]]


async def _on_stage(
    cluster: LocalCluster, road: Road, match: Match, passes: list[Crossing], wanted: list[str], rate: float
) -> tuple[_Cell, float, list[Message]]:
    cell: _Cell = {}
    async with stage(cluster, road, match) as running:
        attempts = {
            "case2": running.push,
            "case2_pull": running.pull,
            "case2_switch": running.switch,
            "case3": running.update,
        }
        commit = await commit_ms(cluster, running)
        for name, attempt in attempts.items():
            if name in wanted:
                await run_series(passes[:_WARM_UP], attempt, per_second=rate)
                cell[name] = await run_series(passes, attempt, per_second=rate)
                note(f"  {name}: {_line(cell[name])}{problem_note(running.problems)}")
        messages = await running.messages()
        if "establish" in wanted:
            async with (
                services(cluster) as instance,
                proxied({"rest": instance.port}, road) as ports,
                newcomer(ports["rest"], instance.name) as player,
            ):
                await run_series(passes[:_WARM_UP], player.establish, per_second=rate)
                cell["establish"] = await run_series(passes, player.establish, per_second=rate)
                note(f"  establish: {_line(cell['establish'])}")
            messages += player.messages
    return cell, round(commit, 3), messages


async def _abroad(
    clusters: tuple[LocalCluster, LocalCluster], road: Road, passes: list[Crossing], rate: float
) -> tuple[_Cell, list[Message]]:
    messages: list[Message] = []
    async with stage_abroad(clusters, road, messages) as running:
        await run_series(passes[:_WARM_UP], running.abroad, per_second=1.0 + rate / 5)
        trials = await run_series(passes, running.abroad, per_second=rate)
        note(f"  case1: {_line(trials)}{problem_note(running.problems)}")
        of_servers = await running.messages()
    return {"case1": trials}, [*of_servers, *messages]


def _beside_central(
    road: Road, passes: list[Crossing], wanted: list[str], rate: float
) -> tuple[_Cell, list[Message]]:
    cell: _Cell = {}
    with central_server(road) as (pipe, key, identities):
        address = pipe.recv()

        async def run() -> list[Message]:
            async with clients_of(address, key, identities, road) as clients:
                attempts = {"client_server": clients.hand, "client_server_update": clients.input}
                for name, attempt in attempts.items():
                    if name in wanted:
                        await run_series(passes[:_WARM_UP], attempt, per_second=rate)
                        cell[name] = await run_series(passes, attempt, per_second=rate)
                        note(f"  {name}: {_line(cell[name])}")
                return list(clients.messages)

        messages = uvloop.run(run())
        pipe.send("end")
        return cell, [*messages, *pipe.recv()]


def _line(trials: list[Trial]) -> str:
    s = summary(trials)
    if "p50_ms" not in s:
        return f"all {s['failed']} failed"
    errors = sorted({t.error for t in trials if t.error})
    text = f"p50 {s['p50_ms']} ms, p95 {s['p95_ms']} ms, p99 {s['p99_ms']} ms"
    text = f"{text}, {s['before_arrival']:.1%} before the ball arrives"
    return f"{text}, {s['failed']} failed{problem_note(errors)}"


def _counts(messages: list[Message]) -> dict[str, Any]:
    """Messages and critical path of each case, of the transfers whose every message crossed."""
    counts = {}
    whole = [t for t in transfers(messages) if t.is_whole]
    for series, case in SERIES.items():
        of_case = [t for t in whole if t.case == case]
        if of_case:
            paths = {t.critical_path for t in of_case}
            counts[series] = {
                "transfers": len(of_case),
                "messages": messages_per_transfer(of_case),
                "critical_path": max(paths),
            }
    return counts


def model_ms(series: str, road: Road, commit: float) -> float:
    """Critical-path hops × mean one-way delay, and one commit where there is one."""
    path = CASES[SERIES[series]].path
    return path * road.one_way_ms + (commit if series in _COMMITTED else 0.0)


def _result(
    pooled: dict[tuple[float, float], _Cell],
    facts: dict[tuple[float, float], dict[str, Any]],
    arguments: argparse.Namespace,
    match: Match,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "benchmark": "passes",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "match": match.source,
        "generated": match.generated,
        "passes": arguments.passes,
        "per_second": arguments.per_second,
        "rounds": arguments.rounds,
        "nodes": arguments.nodes,
        "jitter": "10 % of the round trip",
        "load": round(os.getloadavg()[0], 1),
    }
    tables: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for (rtt, loss), cell in pooled.items():
        fact = facts[rtt, loss]
        for series, trials in cell.items():
            row = summary(trials)
            model = model_ms(series, Road(rtt_ms=rtt, loss=loss, seed=0), fact["commit_ms"])
            row |= {"model_ms": round(model, 2), **fact["counts"].get(series, {})}
            prefix = series if not loss else f"{series}_loss_{loss:g}"
            tables[prefix][f"{rtt:g}"] = row
    result |= tables
    result["commit_ms"] = {
        f"{rtt:g}" if not loss else f"{rtt:g}_loss_{loss:g}": fact["commit_ms"]
        for (rtt, loss), fact in facts.items()
    }
    for series in ("case1", "case2"):
        at_50 = tables.get(series, {}).get("50", {})
        if "p50_ms" in at_50:
            result[f"{series}_x_model"] = round(at_50["p50_ms"] / at_50["model_ms"], 3)
    return result


def main() -> None:
    """Entry of ``scripts/bench passes``."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench passes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--match", type=Path, default=MATCH, help="event file; without it one is made up")
    parser.add_argument("--passes", type=int, default=100, help="crossing passes in each cell and case")
    parser.add_argument("--per-second", type=float, default=25.0, help="passes begun a second")
    parser.add_argument("--rounds", type=int, default=1, help="of the whole table; samples are pooled")
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[0, 20, 50, 100, 200])
    parser.add_argument("--loss", type=float, nargs="+", default=[0, 1, 5], help="per cent")
    parser.add_argument("--nodes", type=int, default=3, help="homeservers of each instance")
    parser.add_argument("--only", choices=list(SERIES), action="append")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--record", type=Path, help="directory for messages.jsonl, which `trace` counts")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    if arguments.match.is_file():
        match = load_match(arguments.match)
    else:
        match = generate_match(passes=800, seconds=5_700, seed=1)
    passes = crossing_passes(match, arguments.passes)
    wanted = arguments.only or list(SERIES)
    pooled: defaultdict[tuple[float, float], _Cell] = defaultdict(lambda: defaultdict(list))
    facts: dict[tuple[float, float], dict[str, Any]] = {}
    crossed: list[Message] = []
    began = time.monotonic()
    result: dict[str, Any] = {}
    near, far = (LocalClusterConfig(nodes=arguments.nodes, instance=name) for name in ("near", "far"))
    with LocalCluster(near, note) as cluster, LocalCluster(far, note) as other:
        for number in range(arguments.rounds):
            for loss in arguments.loss:
                for rtt in arguments.rtt_ms:
                    note(f"{time.monotonic() - began:.0f} s: RTT {rtt:g} ms, loss {loss:g} %")
                    road = Road(rtt_ms=rtt, loss=loss / 100, seed=number + 1)
                    cell, commit, messages = uvloop.run(
                        _on_stage(cluster, road, match, passes, wanted, arguments.per_second)
                    )
                    beside, more = _beside_central(road, passes, wanted, arguments.per_second)
                    if "case1" in wanted:
                        abroad, crossing = uvloop.run(
                            _abroad((cluster, other), road, passes, arguments.per_second)
                        )
                        beside |= abroad
                        more += crossing
                    for series, trials in (cell | beside).items():
                        pooled[rtt, loss][series] += trials
                    crossed += messages + more
                    facts[rtt, loss] = {"commit_ms": commit, "counts": _counts(messages + more)}
                    result = _result(pooled, facts, arguments, match)
                    result["seconds"] = round(time.monotonic() - began)
                    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.record is not None:
        write_record(arguments.record, [], crossed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""``trace``: what each case costs in messages, counted from what crossed, against the formula."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bridge.cli.cluster import Directory, Name, cluster_directory
from bridge.cli.output import Json, emit, example, progress, table
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.authority import Message, Transfer
    from bridge.sim.cases import Cases

_SERVERS: Final = 4
_SECTION: Final = "\n\n"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "trace", "khepri-bridge trace record/messages.jsonl")(trace)


def trace(
    file: Annotated[
        Path | None,
        typer.Argument(help="messages.jsonl of a recorded replay; without one every case is performed here."),
    ] = None,
    last: Annotated[int, typer.Option(help="Also print each message of the last N transfers.", min=0)] = 0,
    transfers: Annotated[
        int, typer.Option(help="How often each case is performed, without a file.", min=1, max=10_000)
    ] = 20,
    name: Name = "local",
    directory: Directory = None,
    as_json: Json = False,
) -> None:
    """Count the messages that really crossed in each case, against the formula.

    Without a file, every case is performed between four servers on a cluster of this machine (the one that
    `up` started, else three nodes for this run), Case 1 with a second instance of one node for this run. The
    bounds and budgets are printed as well.
    """
    from bridge.cli.play import asyncio_run
    from bridge.cli.record import read_messages

    if file is not None:
        messages = read_messages(file)
        if not messages:
            raise ConfigurationError(f"no message was recorded in {file}: there is nothing to count")
        _print(messages, last, as_json=as_json)
        return
    asyncio_run(_live(cluster_directory(directory, name), transfers, last, as_json=as_json))


async def _live(place: Path, times: int, last: int, *, as_json: bool) -> None:
    from contextlib import AsyncExitStack, ExitStack

    from bridge.cli.abroad import AbroadCase, can_perform, second_instance
    from bridge.cli.stage import cluster_stage
    from bridge.cluster.state import load_state
    from bridge.sim.cases import Cases
    from bridge.sim.config import SimulationConfig
    from bridge.sim.server import SimulationServer

    with ExitStack() as places:
        stage = places.enter_context(cluster_stage(place if load_state(place) is not None else None))
        # Before the event loop has servers to keep alive: starting a cluster holds it up.
        other = places.enter_context(second_instance()) if can_perform() else None
        cases = Cases()
        async with AsyncExitStack() as stack:
            servers = []
            for number in range(1, _SERVERS + 1):
                name = f"trace{number}"
                config = SimulationConfig(
                    name=name,
                    node=f"{name}@127.0.0.1",
                    members=stage.members,
                    cookie=stage.cookie,
                    epmd_port=stage.epmd_port,
                    register=False,
                    store=stage.store,
                    key_file=str(_keys(stage.directory) / f"{name}.pem"),
                    keep_history=True,
                )
                server = SimulationServer(config, cases.listener(name))
                servers.append(await stack.enter_async_context(server))
            progress(f"{_SERVERS} servers, {len(stage.members)} homeservers, each case {times} times")
            await cases.perform(servers, times)
            abroad = AbroadCase()
            if other is not None:
                await abroad.perform(stage.directory, servers[0], other, times)
                cases.took_ms["push_abroad"] = abroad.took_ms
            # What answers the last of them is on its way still.
            await asyncio.gather(*(server.report() for server in servers))
            messages = cases.messages() + abroad.messages
    _print(messages, last, as_json=as_json, cases=cases, members=len(stage.members))


def _keys(directory: Path) -> Path:
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    return keys


def _print(
    messages: Sequence[Message],
    last: int,
    *,
    as_json: bool,
    cases: Cases | None = None,
    members: int = 0,
) -> None:
    from bridge.authority import CASES, transfers

    grouped = [transfer for transfer in transfers(messages) if transfer.case in CASES]
    took = {} if cases is None else cases.took_ms
    result, text = _counts(grouped, took)
    if cases is not None:
        bounds, lines = _bounds(result, cases.hops(), members)
        budget, more = _budgets(cases.took_ms)
        result |= {**bounds, "budgets": budget}
        text = _SECTION.join((text, lines, more))
    emit(result, as_json=as_json, text="\n".join((text, *_last(grouped, last))))


def _counts(grouped: Sequence[Transfer], took: Mapping[str, list[float]]) -> tuple[dict[str, Any], str]:
    from statistics import median

    from bridge.authority import CASES, messages_per_transfer

    rows, result = [], {}
    for case, formula in CASES.items():
        of_case = [t for t in grouped if t.case == case]
        if not of_case:
            continue
        mean = messages_per_transfer(of_case)
        path = sum(t.critical_path for t in of_case) / len(of_case)
        times = took.get(case, [])
        counts = (f"{mean:.2f}", str(len(formula.kinds)), f"{path:.2f}", str(formula.path))
        p50 = f"{median(times):.1f} ms" if times else ""
        rows.append((case, formula.source, str(len(of_case)), *counts, p50))
        result[case] = {
            "transfers": len(of_case),
            "messages": round(mean, 3),
            "messages_formula": len(formula.kinds),
            "critical_path": round(path, 3),
            "critical_path_formula": formula.path,
        }
        if times:
            result[case]["p50_ms"] = round(median(times), 3)
    header = ("case", "", "transfers", "messages", "formula", "critical path", "formula", "p50 here")
    return result, table(header, rows)


def _bounds(
    counts: Mapping[str, Any], between: Mapping[tuple[str, str], float], members: int
) -> tuple[dict[str, Any], str]:
    """H(S) over S, and each case's hops with the members of its commit against the bound (R0-37, R0-38)."""
    from bridge.authority.budget import majority, mean_hops, worst_case

    names = sorted({name for pair in between for name in pair})
    hops, rows = {}, []
    for size in range(1, len(names) + 1):
        some = {pair: value for pair, value in between.items() if set(pair) <= set(names[:size])}
        servers, players = mean_hops(some, size)
        hops[str(size)] = {"servers": servers, "players": round(players, 4)}
        rows.append((str(size), f"{servers:.2f}", f"{players:.2f}"))
    bound = worst_case(hops[str(len(names))]["servers"], members)
    worst, more = {}, []
    for case in ("push", "pull", "switch"):
        if case in counts:
            needed = counts[case]["critical_path"] + majority(members)
            worst[case] = {"hops": needed, "bound": bound}
            more.append((case, f"{needed:.2f}", f"{bound:.2f}", "kept" if needed <= bound else "exceeded"))
    text = _SECTION.join(
        (
            table(("servers S", "H(S) between servers", "between players at any of them"), rows),
            table(
                ("case", f"critical path + majority of {members}", "H(S) + majority + H(S)", ""),
                more,
            ),
        )
    )
    return {"hops": hops, "worst_case": worst}, text


def _budgets(took: Mapping[str, list[float]]) -> tuple[list[dict[str, Any]], str]:
    """The budget table, and what was measured here beside the model (R0-39)."""
    from dataclasses import asdict

    from bridge.authority.budget import budgets

    measured_as = {"switching": "switch", "real-time": "update"}
    rows, result = [], []
    for row in budgets():
        times = took.get(measured_as.get(row.exchange, ""), [])
        within = sum(ms <= row.target_ms for ms in times) / len(times) if times else None
        result.append(asdict(row) | {"measured_within": within})
        rows.append(
            (
                f"{row.exchange}, {row.hops} hops",
                f"{row.target_ms:.0f} ms",
                f"{row.per_hop_ms:.1f} ms",
                f"{row.p50_ms:.0f} / {row.p99_ms:.0f} ms",
                f"{row.within:.2%}",
                "" if within is None else f"{within:.2%}",
            )
        )
    header = ("exchange", "target", "per hop", "model p50 / p99", "model within", "measured here")
    return result, table(header, rows)


def _last(grouped: Sequence[Transfer], last: int) -> list[str]:
    lines = []
    for one in grouped[len(grouped) - last :] if last else []:
        begin = min(message.at_ns for message in one.messages)
        lines.append(f"\n{one.case} {one.trace.hex()}")
        lines.extend(
            f"  {(m.at_ns - begin) / 1e6:8.3f} ms  {m.hop}  {m.sender} -> {m.receiver}  {m.kind}"
            for m in one.messages
        )
    return lines

"""``up``, ``status``, ``down``: a homeserver cluster on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridge.cli.output import Json, emit, example, progress, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.cli.cluster_view import ClusterView
    from bridge.cluster.state import ClusterState
    from bridge.errors import BridgeError
    from bridge.khepri import MemberHealth

    Answers = Mapping[str, MemberHealth | BridgeError]

Directory = Annotated[
    Path | None,
    typer.Option("--dir", help="Directory of the cluster's state, data and logs.", show_default=False),
]
_FOLLOW_SECONDS: Final = 0.2

LeaseMs = Annotated[
    int | None,
    typer.Option(
        "--lease-ms",
        help="How long a simulation server's session lasts without being renewed, in milliseconds.",
        min=500,
        max=3_600_000,
        show_default="3000",
    ),
]
Name = Annotated[str, typer.Option("--name", help="Name of the cluster, where several run on this machine.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "up", "khepri-bridge up --nodes 3")(up)
    example(app, "status", "khepri-bridge status")(status)
    example(app, "down", "khepri-bridge down")(down)


def cluster_directory(directory: Path | None, name: str) -> Path:
    """The directory that the options ``--dir`` and ``--name`` mean."""
    from bridge.cluster.state import default_directory

    return directory.absolute() if directory is not None else default_directory(name)


def up(
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="Number of Erlang nodes, 1 to 9.")] = 3,
    name: Name = "local",
    instance: Annotated[
        str, typer.Option(help="Name of the instance, by which others that trust it know it.")
    ] = "local",
    directory: Directory = None,
    epmd_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the port mapper on 127.0.0.1.",
            min=1,
            max=65_535,
            show_default="the one it had, else a free one",
        ),
    ] = None,
    functions: Annotated[
        str,
        typer.Option(
            help="Functions that clients may run inside the store: module:function/arity,...",
            show_default=False,
        ),
    ] = "",
    code_path: Annotated[
        Path | None,
        typer.Option(help="Directory of the compiled modules that --functions names.", show_default=False),
    ] = None,
    lease_ms: LeaseMs = None,
    member: Annotated[
        list[str] | None,
        typer.Option(
            help="Start this member of a running cluster again, such as hs2; once or more.",
            show_default="all that are missing",
        ),
    ] = None,
    max_entities: Annotated[
        int | None,
        typer.Option(min=1, help="Entities that there may be.", show_default="1,000,000"),
    ] = None,
    max_entities_per_master: Annotated[
        int | None,
        typer.Option(min=1, help="Of them, those that one player may master.", show_default="100,000"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a cluster of Erlang nodes on this machine; it runs until `khepri-bridge down`.

    Where it runs and members of it do not, those are started again, as they were before.
    """
    from bridge.cluster.local import LocalCluster, LocalClusterConfig
    from bridge.cluster.running import missing_members

    began = time.monotonic()
    place = cluster_directory(directory, name)
    cluster = LocalCluster(
        LocalClusterConfig(
            nodes=nodes,
            directory=place,
            instance=instance,
            epmd_port=epmd_port,
            environment={
                "KB_FUNCTIONS": functions,
                "KB_CODE_PATH": str(code_path.absolute()) if code_path is not None else "",
                "KB_LEASE_MS": _number(lease_ms),
                "KB_MAX_ENTITIES": _number(max_entities),
                "KB_MAX_ENTITIES_PER_MASTER": _number(max_entities_per_master),
            },
            detached=True,
        ),
        progress,
    )
    if member or missing_members(place):
        started = cluster.start_missing(member or ())
        text = f"{', '.join(started)} started again"
    else:
        if nodes % 2 == 0:
            progress(f"{nodes} members stand the loss of as many as {nodes - 1} do: an odd number is better")
        started = tuple(node.name for node in cluster.start().nodes)
        text = "1 node is up" if len(started) == 1 else f"{len(started)} nodes are up"
    state = cluster.state
    seconds = time.monotonic() - began
    emit(
        {
            "directory": str(cluster.directory),
            "epmd_port": state.epmd_port,
            "nodes": [node.name for node in state.nodes],
            "started": list(started),
            "seconds": round(seconds, 3),
            "store": state.store,
        },
        as_json=as_json,
        text=f"{text} after {seconds:.1f} s, state in {cluster.directory}",
    )


def _number(option: int | None) -> str:
    """As the environment of a node has it; empty for its default."""
    return "" if option is None else str(option)


def status(
    name: Name = "local",
    directory: Directory = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on, with a line for each change, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show members, their roles and terms in Raft, and versions; fails unless all are there."""
    import asyncio

    from bridge.cluster.running import running_cluster
    from bridge.cluster.state import cluster_options

    place = cluster_directory(directory, name)
    state = running_cluster(place)
    if follow:
        asyncio.run(_follow(place, state, as_json=as_json))
        return
    answers = asyncio.run(_ask_all(place, state))
    seen = _seen(state, answers)
    advice = seen.advice(f"khepri-bridge up{cluster_options(place)}", logs=place)
    emit(
        {
            "directory": str(place),
            "epmd_port": state.epmd_port,
            "store": state.store,
            **seen.to_dict(),
            "advice": advice,
        },
        as_json=as_json,
        text="\n".join(
            [
                table(seen.HEADER, seen.rows()),
                f"store {state.store} of instance {state.instance}, Khepri {seen.khepri}, OTP {seen.otp}",
                *advice,
            ]
        ),
    )
    if not seen.ok:
        raise typer.Exit(1)


def down(
    name: Name = "local",
    directory: Directory = None,
    erase: Annotated[bool, typer.Option("--erase", help="Also remove the cluster's data and logs.")] = False,
    as_json: Json = False,
) -> None:
    """End the cluster that `up` started, and nothing else; fine when none runs."""
    from bridge.cluster.directory import erase_data
    from bridge.cluster.local import LocalCluster, LocalClusterConfig

    place = cluster_directory(directory, name)
    ended = LocalCluster(LocalClusterConfig(directory=place, detached=True), progress).stop()
    erased = erase and erase_data(place)
    text = "the cluster is down" if ended else f"no cluster was running in {place}"
    if erase:
        text += ", its data is erased" if erased else ", and there was no data to erase"
    emit({"ended": ended, "erased": erased, "directory": str(place)}, as_json=as_json, text=text)


async def _ask_all(place: Path, state: ClusterState) -> Answers:
    """Health as each member tells it; nothing where none can be reached."""
    from bridge.cli.connection import local_node
    from bridge.khepri import members_health

    async with local_node(place, state) as node:
        return await members_health(node, [member.name for member in state.nodes], state.store)


async def _follow(place: Path, state: ClusterState, *, as_json: bool) -> None:
    """A line at once, and one for each change of a role, a term, a leader, the members, or of who answers."""
    import asyncio
    import contextlib
    import signal

    from bridge.cli.connection import local_node
    from bridge.khepri import members_health

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    names = [member.name for member in state.nodes]
    told = ""
    began = time.monotonic()
    async with local_node(place, state) as node:
        while not ended.is_set():
            seen = _seen(state, await members_health(node, names, state.store))
            if seen.line() != told:
                told = seen.line()
                emit(
                    {"seconds": round(time.monotonic() - began, 3), **seen.to_dict()},
                    as_json=as_json,
                    text=f"{time.monotonic() - began:8.3f} s  {told}",
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _FOLLOW_SECONDS)


def _seen(state: ClusterState, answers: Answers) -> ClusterView:
    from bridge.cli.cluster_view import ClusterView
    from bridge.cluster.processes import is_running

    alive = {node.name: node.process is not None and is_running(node.process) for node in state.nodes}
    pids = {node.name: node.process.pid if node.process is not None else None for node in state.nodes}
    return ClusterView.of(answers, instance=state.instance, alive=alive, pids=pids)

"""``up``, ``status``, ``down``: a homeserver cluster on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, emit, example, progress, table

if TYPE_CHECKING:
    from bridge.homeserver.cluster_state import ClusterState

Directory = Annotated[
    Path | None,
    typer.Option("--dir", help="Directory of the cluster's state, data and logs.", show_default=False),
]
Name = Annotated[str, typer.Option("--name", help="Name of the cluster, where several run on this machine.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "up", "khepri-bridge up --nodes 3")(up)
    example(app, "status", "khepri-bridge status --json")(status)
    example(app, "down", "khepri-bridge down --erase")(down)


def cluster_directory(directory: Path | None, name: str) -> Path:
    """The directory that the options ``--dir`` and ``--name`` mean."""
    from bridge.homeserver.cluster_state import default_directory

    return directory.absolute() if directory is not None else default_directory(name)


def up(
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="Number of Erlang nodes, 1 to 9.")] = 3,
    name: Name = "local",
    directory: Directory = None,
    epmd_port: Annotated[
        int | None, typer.Option(help="Port of the port mapper on 127.0.0.1.", show_default="a free one")
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
    as_json: Json = False,
) -> None:
    """Start a cluster of Erlang nodes on this machine; it runs until `khepri-bridge down`."""
    from bridge.homeserver.local import LocalCluster, LocalClusterConfig

    began = time.monotonic()
    cluster = LocalCluster(
        LocalClusterConfig(
            nodes=nodes,
            directory=cluster_directory(directory, name),
            epmd_port=epmd_port,
            environment={
                "KB_FUNCTIONS": functions,
                "KB_CODE_PATH": str(code_path.absolute()) if code_path is not None else "",
            },
            detached=True,
        ),
        progress,
    )
    state = cluster.start()
    seconds = time.monotonic() - began
    emit(
        {
            "directory": str(cluster.directory),
            "epmd_port": state.epmd_port,
            "nodes": [node.name for node in state.nodes],
            "seconds": round(seconds, 3),
            "store": state.store,
        },
        as_json=as_json,
        text=f"{len(state.nodes)} nodes are up after {seconds:.1f} s, state in {cluster.directory}",
    )


def status(name: Name = "local", directory: Directory = None, as_json: Json = False) -> None:
    """Show members, leader and versions of the running cluster; fails unless all are there."""
    import asyncio

    from bridge.homeserver.local import running_cluster
    from bridge.homeserver.processes import is_running

    place = cluster_directory(directory, name)
    state = running_cluster(place)
    health = asyncio.run(_health(place, state))
    alive = {node.name: node.process is not None and is_running(node.process) for node in state.nodes}
    members = [str(member) for member in health.get("members", [])]
    leader = health.get("leader")
    healthy = leader is not None and all(alive.get(member, False) for member in members) and bool(members)
    rows = [
        (
            node.name,
            "running" if alive[node.name] else "stopped",
            "leader" if node.name == leader else "member" if node.name in members else "not a member",
            str(node.process.pid) if node.process is not None else "-",
        )
        for node in state.nodes
    ]
    emit(
        {
            "ok": healthy,
            "directory": str(place),
            "epmd_port": state.epmd_port,
            "store": state.store,
            "instance": state.instance,
            "leader": leader,
            "members": members,
            "nodes": [{"name": row[0], "running": alive[row[0]], "role": row[2]} for row in rows],
            "khepri": health.get("khepri"),
            "otp": health.get("otp"),
        },
        as_json=as_json,
        text=f"{table(('node', 'process', 'role', 'pid'), rows)}\nstore {state.store} of instance "
        f"{state.instance}, Khepri {health.get('khepri')}, OTP {health.get('otp')}",
    )
    if not healthy:
        raise typer.Exit(1)


def down(
    name: Name = "local",
    directory: Directory = None,
    erase: Annotated[bool, typer.Option("--erase", help="Also remove the cluster's data and logs.")] = False,
    as_json: Json = False,
) -> None:
    """End the cluster that `up` started, and nothing else; fine when none runs."""
    from bridge.homeserver.local import LocalCluster, LocalClusterConfig, erase_data

    place = cluster_directory(directory, name)
    ended = LocalCluster(LocalClusterConfig(directory=place, detached=True), progress).stop()
    if erase:
        erase_data(place)
    text = "the cluster is down" if ended else "no cluster was running"
    emit(
        {"ended": ended, "erased": erase, "directory": str(place)},
        as_json=as_json,
        text=f"{text}, its data is erased" if erase else text,
    )


async def _health(place: Path, state: ClusterState) -> dict[str, Any]:
    """Health as one member that answers sees it; empty when none does."""
    from bridge.cli.connection import plain_term, store_client
    from bridge.errors import BridgeError

    try:
        async with store_client(place, state) as store:
            return {str(key): plain_term(value) for key, value in (await store.health()).items()}
    except BridgeError as error:
        progress(f"no member answers: {error}")
        return {}

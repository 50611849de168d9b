"""``put``, ``get``, ``delete``, ``tree``: the cluster's store by hand."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer

from bridge.cli.cluster import Directory, Name, cluster_directory
from bridge.cli.output import Json, emit, example
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.khepri import Khepri

Favor = Literal["low_latency", "consistency"]
Result = TypeVar("Result")

NodePath = Annotated[
    str, typer.Argument(metavar="PATH", help="Path: /:stock/wood is the atom stock, then the binary wood.")
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.001, max=60.0)]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "put", "khepri-bridge put /:stock/wood '{\"count\": 3}'")(put)
    example(app, "get", "khepri-bridge get /:stock/wood")(get)
    example(app, "delete", "khepri-bridge delete /:stock/wood")(delete)
    example(app, "tree", "khepri-bridge tree /:stock")(tree)


def put(
    path: NodePath,
    value: Annotated[
        str,
        typer.Argument(
            metavar="JSON",
            help="Value: objects become maps with binary keys, text binaries, null the atom null; "
            '{"$atom": "ready"} is an atom, {"$tuple": [1, 2]} a tuple.',
        ),
    ],
    name: Name = "local",
    directory: Directory = None,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Create or replace a node; applied once, also when a member dies meanwhile."""
    from bridge.cli.term_json import term_from_json

    term = term_from_json(value)
    _with_store(directory, name, lambda store: store.put_once(path, term, timeout=timeout))
    emit({"ok": True, "path": path}, as_json=as_json, text="")


def get(
    path: NodePath,
    favor: Annotated[
        str, typer.Option(help="low_latency reads the nearest member, consistency asks the leader.")
    ] = "low_latency",
    name: Name = "local",
    directory: Directory = None,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Print the data of a node as JSON; fails when there is no such node."""
    from bridge.cli.term_json import json_from_term

    chosen = _favor(favor)
    term = _with_store(directory, name, lambda store: store.get(path, favor=chosen, timeout=timeout))
    data = json_from_term(term)
    emit({"path": path, "data": data}, as_json=as_json, text=json.dumps(data, ensure_ascii=False))


def delete(
    path: NodePath,
    name: Name = "local",
    directory: Directory = None,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Delete a node and what is below it; fine when there is none."""
    from bridge.khepri import Delete

    _with_store(directory, name, lambda store: store.transaction([Delete(path)], timeout=timeout))
    emit({"ok": True, "path": path}, as_json=as_json, text="")


def tree(
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="Where to begin; the whole tree by default.")
    ] = "/",
    every: Annotated[
        bool, typer.Option("--all", help="Also the bridge's own records below /:bridge.")
    ] = False,
    name: Name = "local",
    directory: Directory = None,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Print a subtree, one line for each node."""
    from bridge.cli.term_json import json_from_term
    from bridge.khepri import path_text

    base = path.rstrip("/")
    found: dict[Any, Any] = _with_store(
        directory, name, lambda store: store.get_many(f"{base}/**", timeout=timeout)
    )
    nodes = {path_text(native): json_from_term(term) for native, term in found.items()}
    hidden = not every and not base.startswith("/:bridge")
    shown = {
        text: data for text, data in sorted(nodes.items()) if not (hidden and text.startswith("/:bridge"))
    }
    lines = [
        text if data is None else f"{text}  {json.dumps(data, ensure_ascii=False)}"
        for text, data in shown.items()
    ]
    emit({"path": path, "nodes": shown}, as_json=as_json, text="\n".join(lines))


def _favor(text: str) -> Favor:
    if text not in ("low_latency", "consistency"):
        raise ConfigurationError(f"--favor is low_latency or consistency, not {text}")
    return cast("Favor", text)


def _with_store(directory: Path | None, name: str, action: Callable[[Khepri], Awaitable[Result]]) -> Result:
    """Run one action against the running cluster."""
    import asyncio

    from bridge.cli.connection import store_client
    from bridge.homeserver.local import running_cluster

    place = cluster_directory(directory, name)
    state = running_cluster(place)

    async def run() -> Result:
        async with store_client(place, state) as store:
            return await action(store)

    return asyncio.run(run())

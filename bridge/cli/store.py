"""``get``, ``put``, ``cas``, ``delete``, ``tree``, ``info``: a cluster's store by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from bridge.cli.output import Json, emit, example, progress, table
from bridge.cli.target import Target, on_store
from bridge.cli.term_text import Erlang, term_text
from bridge.cli.watch import cursor_now
from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.khepri import Khepri

Favor = Literal["low_latency", "consistency"]

NodePath = Annotated[
    str, typer.Argument(metavar="PATH", help="Path: /:stock/wood is the atom stock, then the binary wood.")
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.001, max=60.0)]

_VALUE = (
    "objects become maps with binary keys, text binaries, null the atom null; "
    '{"$atom": "ready"} is an atom, {"$tuple": [1, 2]} a tuple.'
)


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "put", "khepri-bridge put /:stock/wood '{\"count\": 3}'")(on_store(put))
    example(app, "get", "khepri-bridge get /:stock/wood")(on_store(get))
    example(app, "cas", "khepri-bridge cas /:stock/wood '{\"count\": 3}' '{\"count\": 2}'")(on_store(cas))
    example(app, "delete", "khepri-bridge delete /:stock/wood")(on_store(delete))
    example(app, "tree", "khepri-bridge tree /:stock")(on_store(tree))
    example(app, "info", "khepri-bridge info")(on_store(info))


def put(
    target: Target,
    path: NodePath,
    value: Annotated[str, typer.Argument(metavar="JSON", help=f"Value: {_VALUE}")],
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Create or replace a node; applied once, also when a member dies meanwhile."""
    from bridge.cli.term_json import term_from_json

    term = term_from_json(value)
    target.run(lambda store: store.put_once(path, term, timeout=timeout))
    emit({"ok": True, "path": path}, as_json=as_json, text="")


def get(
    target: Target,
    path: NodePath,
    favor: Annotated[
        str, typer.Option(help="low_latency reads the nearest member, consistency asks the leader.")
    ] = "low_latency",
    erlang: Erlang = False,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Print the data of a node as JSON; fails when there is no such node."""
    from bridge.cli.term_json import json_from_term

    chosen = _favor(favor)
    term = target.run(lambda store: store.get(path, favor=chosen, timeout=timeout))
    emit({"path": path, "data": json_from_term(term)}, as_json=as_json, text=term_text(term, erlang=erlang))


def cas(
    target: Target,
    path: NodePath,
    expected: Annotated[str, typer.Argument(metavar="EXPECTED", help="JSON of what the node holds now.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help=f"JSON of what it shall hold: {_VALUE}")],
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Replace the data of a node if it is as expected, else fail; applied once, as `put` is."""
    from bridge.cli.term_json import term_from_json

    before, after = term_from_json(expected), term_from_json(new)
    target.run(lambda store: store.compare_and_swap(path, before, after, timeout=timeout))
    emit({"ok": True, "path": path}, as_json=as_json, text="")


def delete(target: Target, path: NodePath, timeout: Timeout = 5.0, as_json: Json = False) -> None:
    """Delete a node and what is below it; fine when there is none."""
    from bridge.khepri import Delete

    target.run(lambda store: store.transaction([Delete(path)], timeout=timeout))
    emit({"ok": True, "path": path}, as_json=as_json, text="")


def tree(
    target: Target,
    path: Annotated[
        str,
        typer.Argument(
            metavar="[PATH]",
            help="Where to begin, or a pattern such as '/:stock/*'.",
        ),
    ] = "/",
    every: Annotated[
        bool, typer.Option("--all", help="Also the bridge's own records below /:bridge.")
    ] = False,
    erlang: Erlang = False,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Print a subtree, one line for each node; of a pattern, what it matches and what is below."""
    from bridge.cli.term_json import json_from_term
    from bridge.khepri import path_text

    base = path.rstrip("/")
    found = target.run(lambda store: _subtree(store, base, timeout))
    nodes = {path_text(native): term for native, term in found.items()}
    hidden = not every and not base.startswith("/:bridge")
    shown = {
        text: data for text, data in sorted(nodes.items()) if not (hidden and text.startswith("/:bridge"))
    }
    lines = [
        text if data is None else f"{text}  {term_text(data, erlang=erlang)}" for text, data in shown.items()
    ]
    if not shown:
        progress(f"there is no node at {path}")
    emit(
        {"path": path, "nodes": {text: json_from_term(data) for text, data in shown.items()}},
        as_json=as_json,
        text="\n".join(lines),
    )


def info(target: Target, timeout: Timeout = 5.0, as_json: Json = False) -> None:
    """Show the store as the member that answers sees it: members, leader, versions, nodes, feed."""
    found = target.run(lambda store: _info(store, timeout))
    rows = [
        (name, ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value))
        for name, value in found.items()
    ]
    emit(found, as_json=as_json, text=table(("what", "value"), rows))


async def _subtree(store: Khepri, base: str, timeout: float) -> dict[Any, Any]:
    found: dict[Any, Any] = await store.get_many(f"{base}/**", timeout=timeout)
    # Below a pattern `**` leaves out what the pattern itself matches, unlike below a path.
    if base:
        found |= await store.get_many(base, timeout=timeout)
    return found


async def _info(store: Khepri, timeout: float) -> dict[str, Any]:
    versions = await store.cluster.versions(timeout=timeout)
    described = await store.cluster.info(timeout=timeout)
    return {
        "store": str(store.store),
        "member": store.caller.current,
        "leader": await store.cluster.leader(timeout=timeout),
        "members": await store.cluster.members(timeout=timeout),
        "nodes": described["nodes"],
        "keep_while": described["keep_while_count"],
        "projections": [str(projection["name"]) for projection in map(_named, described["projections"])],
        "khepri": versions.khepri,
        "otp": versions.otp,
        "machine_version": versions.effective_machine,
        "feed_cursor": str(await cursor_now(store)),
    }


def _named(term: Any) -> dict[str, Any]:
    return {str(name): value for name, value in term.items()}


def _favor(text: str) -> Favor:
    if text not in ("low_latency", "consistency"):
        raise ConfigurationError(f"--favor is low_latency or consistency, not {text}")
    return cast("Favor", text)

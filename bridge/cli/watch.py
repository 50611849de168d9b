"""``watch``: changes of a store as they happen, one line each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, example, progress
from bridge.cli.target import Target, on_store
from bridge.cli.term_text import Erlang, term_text

if TYPE_CHECKING:
    from bridge.khepri import Change, Cursor, Feed, Khepri


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    example(app, "watch", "khepri-bridge watch '/:stock/*' --count 10")(on_store(watch))


def watch(
    target: Target,
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="PATTERN...",
            help="A path with all below it, or a pattern such as '/:stock/*'; up to 64 of them.",
        ),
    ],
    since: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR", help="Go on from the cursor that an earlier run ended with.", show_default=False
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="End after so many changes, a snapshot being one.", min=1)
    ] = None,
    erlang: Erlang = False,
    as_json: Json = False,
) -> None:
    """Print a snapshot, then every change, until Ctrl-C; then a cursor, to stderr.

    A snapshot lists what is there. One that says "history was lost" may hide changes before it.
    With --json each change is one object on one line.
    """

    async def follow(store: Khepri) -> None:
        async with store.watch(*patterns, since=since) as feed:
            following = asyncio.ensure_future(_follow(feed, count, erlang=erlang, as_json=as_json))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, following.cancel)
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    await following
            finally:
                if feed.cursor is not None:
                    progress(f"cursor {feed.cursor}")

    target.run(follow)


async def cursor_now(store: Khepri) -> Cursor | None:
    """Where a watch that begins now would begin, at the connected member."""
    async with store.watch("/:bridge/:identity") as feed:
        changes = aiter(feed)
        await anext(changes)
        await _handled(changes)
        return feed.cursor


async def _follow(feed: Feed, count: int | None, *, erlang: bool, as_json: bool) -> None:
    changes = aiter(feed)
    told = 0
    while count is None or told < count:
        change = await anext(changes, None)
        if change is None:
            return
        if as_json:
            typer.echo(json.dumps(change_json(change), ensure_ascii=False, separators=(",", ":")))
        else:
            typer.echo("\n".join(change_lines(change, erlang=erlang)))
        told += 1
    await _handled(changes)


async def _handled(changes: AsyncIterator[Change]) -> None:
    """Tell a feed that its last change is done: its cursor follows when another one is asked for."""
    asking = asyncio.ensure_future(anext(changes, None))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])


def change_json(change: Change) -> dict[str, Any]:
    """What ``--json`` prints for a change."""
    from bridge.cli.term_json import json_from_term
    from bridge.khepri import Deleted, Snapshot, Updated, path_text

    match change:
        case Snapshot(nodes=nodes, member=member, gap=gap):
            shown = {path_text(path): json_from_term(data) for path, data in nodes.items()}
            return {"type": "snapshot", "member": member, "gap": gap, "nodes": dict(sorted(shown.items()))}
        case Updated(path=path, data=data):
            return {"type": "updated", "path": path_text(path), "data": json_from_term(data)}
        case Deleted(path=path):
            return {"type": "deleted", "path": path_text(path)}


def change_lines(change: Change, *, erlang: bool) -> list[str]:
    """What people read of a change: a snapshot is a line, and one for each node."""
    from bridge.khepri import Deleted, Snapshot, Updated, path_text

    def line(word: str, path: Any, data: Any) -> str:
        text = f"{word}  {path_text(path)}"
        return text if data is None else f"{text}  {term_text(data, erlang=erlang)}"

    match change:
        case Snapshot(nodes=nodes, member=member, gap=gap):
            lost = ", history was lost" if gap else ""
            lines = [line("present ", path, data) for path, data in nodes.items()]
            return [f"snapshot  {member}, {len(nodes)} nodes{lost}", *sorted(lines)]
        case Updated(path=path, data=data):
            return [line("updated ", path, data)]
        case Deleted(path=path):
            return [line("deleted ", path, None)]

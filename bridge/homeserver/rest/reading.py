"""Reads of the records that requests need first, and of those that callers ask for.

Whatever is read here is good to show and never acted on: each write decides anew inside its transaction. A
    read is of the member that this process is connected to, which may be behind the leader by what
    replication takes; ``fresh=true`` waits until it has applied all that was committed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, Query

from bridge.etf import Atom
from bridge.homeserver.rest.context import Context, Here
from bridge.homeserver.rest.problems import ProblemError
from bridge.khepri import NameMatches, NodeNotFoundError, Path
from bridge.registry import EntityRecord, ServerRecord

_BRIDGE: Final = Atom("bridge")


def bridge_path(kind: str, *names: str | bytes | Atom) -> Path:
    """A path below ``/:bridge`` (``docs/protocol.md`` §2)."""
    return [_BRIDGE, Atom(kind), *(name.encode() if type(name) is str else name for name in names)]


async def record_at(here: Context, path: Path, *, current: bool = False) -> Any:
    """The record at a path, or ``None``.

    Args:
        here: the service.
        path: of one node.
        current: whether it is the leader's, not the connected member's: for what a write builds on.
    """
    try:
        return await here.store.get(path, favor="consistency" if current else "low_latency")
    except NodeNotFoundError:
        return None


async def records_at(here: Context, paths: Iterable[Path]) -> list[Any]:
    """The records at those paths where there are any, in this order."""
    terms = await asyncio.gather(*(record_at(here, path) for path in paths))
    return [term for term in terms if term is not None]


async def session_of_player(here: Context, player: str) -> bytes | None:
    """The session where a player is, or ``None``."""
    place = await record_at(here, bridge_path("players", player), current=True)
    return None if place is None else place[Atom("session")]


async def server_named(here: Context, server: str, *, current: bool = False) -> ServerRecord:
    """A server's record.

    Raises:
        ProblemError: none is called so.
    """
    term = await record_at(here, bridge_path("servers", server), current=current)
    if term is None:
        raise ProblemError("no_server", f"no server is called {server}")
    return ServerRecord.from_term(term)


async def entity_named(here: Context, entity: str) -> EntityRecord:
    """An entity's record; also of one that was made a moment ago through another member.

    Raises:
        ProblemError: none is called so.
    """
    path = bridge_path("entities", entity)
    term = await record_at(here, path) or await record_at(here, path, current=True)
    record = None if term is None else EntityRecord.from_term(term)
    if record is None or record.is_deleted:
        raise ProblemError("no_entity", f"no entity is called {entity}")
    return record


async def entity_records(here: Context, names: Sequence[str]) -> list[EntityRecord]:
    """The records of those that there are."""
    terms = await records_at(here, (bridge_path("entities", name) for name in names))
    records = [EntityRecord.from_term(term) for term in terms]
    return [record for record in records if not record.is_deleted]


async def names_owned(here: Context, player: str) -> list[str]:
    """Names of what a player owns, from the index."""
    return await _names_in(here, bridge_path("owned", player))


async def names_held(here: Context, server: str) -> list[str]:
    """Names of what a server's session holds or still has to release, from the index.

    Raises:
        ProblemError: no server is called so.
    """
    session = (await server_named(here, server)).session
    if session is None:
        return []
    return await _names_in(here, bridge_path("held", session))


async def _names_in(here: Context, index: Path) -> list[str]:
    buckets = await here.store.get_many([*index, NameMatches()])
    return [
        entity.decode(errors="replace") for record in buckets.values() for entity in record[Atom("entities")]
    ]


async def _fenced(
    here: Here,
    fresh: Annotated[
        bool,
        Query(description="Wait until the member that is read has applied all that was committed before."),
    ] = False,
) -> None:
    if fresh:
        await here.store.fence()


Fresh = Depends(_fenced)
"""of a route that reads: takes ``fresh=true``"""

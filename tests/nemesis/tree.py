"""Whether the tree is whole: every entity once, and all that follows from records, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.etf import Atom
from bridge.registry import EntityRecord

Tree = Mapping[tuple[Any, ...], Any]
"""data of ``/:bridge`` by native path"""


def problems(tree: Tree, entities: set[str]) -> list[str]:
    """What contradicts itself in a tree at rest (``docs/protocol.md`` §2).

    Args:
        tree: everything below ``/:bridge``.
        entities: those that were made.
    """
    found = [*_entities(tree, entities), *_sessions(tree), *_held(tree), *_owned(tree), *_epochs(tree)]
    return sorted(found)


def records(tree: Tree) -> dict[str, EntityRecord]:
    """Records of all entities by name."""
    return {_text(path[2]): EntityRecord.from_term(data) for path, data in _below(tree, "entities", 3)}


def sessions(tree: Tree) -> set[bytes]:
    """Open sessions."""
    return {path[2] for path, _ in _below(tree, "sessions", 3)}


def _entities(tree: Tree, entities: set[str]) -> Iterator[str]:
    there = records(tree)
    for name in entities - there.keys():
        yield f"{name} was made and is not there"
    for name, record in there.items():
        if record.entity != name:
            yield f"{name} says that it is {record.entity}"
        if name not in entities:
            yield f"{name} is there and was never made"
        if (record.session is None) != (record.server is None):
            yield f"{name} has a session or a server, not both"


def _sessions(tree: Tree) -> Iterator[str]:
    opened = sessions(tree)
    for name, record in records(tree).items():
        if record.session is not None and record.session not in opened:
            yield f"{name} is held by a session that is not open"
        if record.awaiting is not None and record.awaiting.session not in opened:
            yield f"{name} awaits a release of a session that is not open"
    for path, _ in _below(tree, "ending", 3):
        yield f"session {path[2].hex()[:8]} has ended and is not passed on"
    for path, data in _below(tree, "servers", 3):
        session = data[Atom("session")]
        if isinstance(session, bytes) and session not in opened:
            yield f"server {_text(path[2])} names a session that is not open"
    for path, _ in _below(tree, "inbox", None):
        if path[2] not in opened:
            yield f"an inbox message for session {path[2].hex()[:8]}, which is not open"


def _held(tree: Tree) -> Iterator[str]:
    should = set()
    for path, data in _below(tree, "entities", 3):
        waited: Any = data
        while isinstance(waited, Mapping):
            if isinstance(waited[Atom("session")], bytes):
                should.add((waited[Atom("session")], path[2]))
            waited = waited.get(Atom("awaiting"))
    listed = {
        (path[2], entity) for path, data in _below(tree, "held", 4) for entity in data[Atom("entities")]
    }
    for session, entity in should - listed:
        yield f"{_text(entity)} is not in the index of session {session.hex()[:8]}"
    for session, entity in listed - should:
        yield f"{_text(entity)} is in the index of session {session.hex()[:8]} without a reason"


def _owned(tree: Tree) -> Iterator[str]:
    should = {(record.owner, name) for name, record in records(tree).items()}
    listed = {
        (_text(path[2]), _text(entity))
        for path, data in _below(tree, "owned", 4)
        for entity in data[Atom("entities")]
    }
    for owner, entity in should - listed:
        yield f"{entity} is not in the index of its owner {owner}"
    for owner, entity in listed - should:
        yield f"{entity} is in the index of {owner}, who does not own it"


def _epochs(tree: Tree) -> Iterator[str]:
    grants = next((data for path, data in tree.items() if path == (Atom("bridge"), Atom("grants"))), None)
    last = 0 if grants is None else (grants[Atom("incarnation")] << 48) + grants[Atom("counter")]
    seen: dict[int, str] = {}
    for name, record in records(tree).items():
        if record.epoch > last:
            yield f"{name} has epoch {record.epoch}, the last one given is {last}"
        if record.epoch in seen:
            yield f"{name} and {seen[record.epoch]} have one epoch"
        seen[record.epoch] = name


def _below(tree: Tree, kind: str, length: int | None) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for path, data in tree.items():
        if len(path) >= 3 and path[1] == Atom(kind) and data is not None and length in (None, len(path)):
            yield path, data


def _text(name: bytes) -> str:
    return name.decode(errors="replace")

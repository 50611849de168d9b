"""What clients asked of a homeserver, joined with what they were answered, of the entries of a history."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.authority.entries import Called, Entry, Replied
from bridge.authority.record_model import Known, Operation, shown_open

Asked = list[tuple[Called, Operation]]
"""requests about one entity each, with how each ended"""


def operations_of(entries: Sequence[Entry]) -> Asked:
    """Requests about entities, each with how it ended."""
    asked = []
    for entry, end in _requests(entries):
        if not entry.entity:
            continue
        members = {
            name: getattr(entry, name)
            for name in ("session", "epoch", "owner", "to", "by", "player", "value", "authority", "master")
        }
        operation = Operation(
            client=entry.client,
            function=entry.function,
            entity=entry.entity,
            called_ns=entry.at_ns,
            answered_ns=0 if end is None else end.at_ns,
            known=Known.UNKNOWN if end is None else end.known,
            detail="" if end is None else end.detail,
            record=None if end is None else end.record,
            told_epoch=None if end is None else end.told_epoch,
            **members,
        )
        asked.append((entry, operation))
    return asked


def leaves_of(entries: Sequence[Entry], asked: Asked) -> Asked:
    """What players who left passed on.

    The answer shows no records: of each it may have been any change until then. Without an answer it may have
    been one of any entity.
    """
    there = {operation.entity for _, operation in asked}
    found = []
    for entry, end in _requests(entries):
        if entry.function != "leave":
            continue
        for entity in sorted(there if end is None else there.intersection(end.passed)):
            operation = Operation(
                client=entry.client,
                function=entry.function,
                entity=entity,
                called_ns=entry.at_ns,
                until_ns=None if end is None else end.at_ns,
                player=entry.player,
            )
            found.append((entry, operation))
    return found


def travelled(asked: Asked) -> list[str]:
    """Entities that were put into escrow for another instance, or may have been."""
    return sorted(
        {op.entity for _, op in asked if op.function == "push_abroad" and op.known is not Known.REFUSED}
    )


def vanishing(asked: Asked) -> dict[str, int]:
    """When somebody first asked to delete an entity and was not answered."""
    first: dict[str, int] = {}
    for called, operation in asked:
        if operation.function == "delete_entity" and operation.known is Known.UNKNOWN:
            first[operation.entity] = min(first.get(operation.entity, called.at_ns), called.at_ns)
    return first


def alive_until(asked: Asked) -> dict[bytes, int]:
    """Until when sessions had not ended: something was granted to them, or shown to be theirs, after that."""
    alive: dict[bytes, int] = {}
    for called, operation in asked:
        for session in shown_open(operation):
            alive[session] = max(alive.get(session, 0), called.at_ns)
    return alive


def _requests(entries: Sequence[Entry]) -> list[tuple[Called, Replied | None]]:
    """Requests, each with its answer.

    A request that was repeated at another process is recorded by both, and is one: done between its first
    call and its first answer.
    """
    ends: dict[tuple[str, int], Replied] = {}
    calls: dict[tuple[str, int], Called] = {}
    for entry in sorted((e for e in entries if isinstance(e, Called | Replied)), key=lambda e: e.at_ns):
        match entry:
            case Replied():
                ends.setdefault((entry.client, entry.number), entry)
            case Called():
                calls.setdefault((entry.client, entry.number), entry)
    return [(entry, ends.get(name)) for name, entry in calls.items()]

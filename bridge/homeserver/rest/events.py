"""Changes of the store as events of the live feed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any

from bridge.errors import DecodeError
from bridge.homeserver.rest.asks import asks_in
from bridge.homeserver.rest.scenes import scene_of
from bridge.homeserver.rest.servers import info_of
from bridge.homeserver.rest.shapes import Entity
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Change, Deleted, NativePath, Snapshot, Updated
from bridge.registry import AskEnded, EntityRecord, ServerRecord, Step, inbox_message

Event = tuple[str, Any]
"""its name, and what is told as JSON"""

_EPOCHS = frozenset({"epoch", "previous", "granted"})


def snapshot_events(snapshot: Snapshot, hidden: Collection[str]) -> Iterator[Event]:
    """A snapshot as an event for each record, between one that begins it and one that ends it.

    Args:
        snapshot: of the store's feed.
        hidden: servers whose addresses are not told.
    """
    yield "snapshot", {"gap": snapshot.gap, "member": snapshot.member}
    for path, data in snapshot.nodes.items():
        event = event_of(Updated(path, data), hidden)
        if event is not None:
            yield event
    yield "complete", {}


def event_of(change: Change, hidden: Collection[str]) -> Event | None:
    """What a change is told as; ``None``: it is nothing that is told.

    Args:
        change: of one node.
        hidden: servers whose addresses are not told.
    """
    match change:
        case Updated(path=path, data=data) if data is not None:
            try:
                return _updated(path, data, hidden)
            except DecodeError:
                # A record of a later version, say: no reason to end the feed.
                return None
        case Deleted(path=path):
            return _deleted(path)
    return None


def _updated(path: NativePath, data: Any, hidden: Collection[str]) -> Event | None:
    match [_word(part) for part in path]:
        case ["bridge", "entities", _]:
            record = EntityRecord.from_term(data)
            if record.is_deleted:
                return "entity-gone", {"entity": record.entity}
            return "entity", Entity.of(record).model_dump(mode="json")
        case ["bridge", "servers", _]:
            server = ServerRecord.from_term(data)
            return "server", info_of(server, hidden=server.server in hidden).model_dump(mode="json")
        case ["scenes", _]:
            return "scene", scene_of(data).model_dump(mode="json")
        case ["bridge", "asks", _]:
            return "asks", {"asks": [one.model_dump(mode="json") for one in asks_in(data)]}
        case ["bridge", "inbox", *_]:
            message = inbox_message(data)
            return ("outcome" if isinstance(message, AskEnded) else "inbox"), inbox_json(message)
    return None


def _deleted(path: NativePath) -> Event | None:
    match [_word(part) for part in path]:
        case ["bridge", "entities", name]:
            return "entity-gone", {"entity": name}
        case ["scenes", name]:
            return "scene-gone", {"scene": name}
        case ["bridge", "asks", _]:
            return "asks", {"asks": []}
    return None


def inbox_json(message: Any) -> Any:
    """An inbox message, or a part of one: epochs are texts, binaries base64url, traces hexadecimal."""
    match message:
        case EntityRecord():
            return Entity.of(message).model_dump(mode="json")
        case Step(trace=trace, hop=hop):
            return {"trace": trace.hex(), "hop": hop}
        case Enum():
            return message.value
        case bytes():
            return base64url_encode(message)
    if dataclasses.is_dataclass(message):
        told = {"type": type(message).__name__.lower()}
        for field in dataclasses.fields(message):
            value = getattr(message, field.name)
            is_epoch = field.name in _EPOCHS and value is not None
            told[field.name] = str(value) if is_epoch else inbox_json(value)
        return told
    return message


def _word(part: Any) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else str(part)

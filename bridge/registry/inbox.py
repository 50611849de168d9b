"""What homeservers tell a session by its inbox, decoded (``docs/protocol.md`` §2, §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry.fields import Fields
from bridge.registry.records import (
    Awaiting,
    EntityRecord,
    Outcome,
    ServerRecord,
    Step,
    abroad_name,
    outcome_of,
    server_abroad,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The homeserver gives this server an entity that another one pushed.

    Attributes:
        epoch: of the grant.
        previous: the epoch that the giver released.
        giver: the server that released it; one of another instance has ``@`` and that behind its name.
        box: its signed release, sealed for this server.
        abroad: key and address of a giver of another instance, as that instance says; ``None`` of this one.
    """

    entity: str
    epoch: int
    previous: int
    giver: str
    owner: str
    box: str
    step: Step
    abroad: ServerRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """The session that held an entity is no more; this server, which streams it, is to go on with it.

    Attributes:
        epoch: of the grant.
        previous: the epoch of the ended session's grant.
        giver: its server.
        awaiting: an older holder's release that is due before this server may act.
    """

    entity: str
    epoch: int
    previous: int
    giver: str
    owner: str
    awaiting: Awaiting | None
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The homeserver gave the entity to another server, or deleted it; this one must stop.

    Attributes:
        epoch: to release.
        granted: epoch of the new holder.
        taker: the new holder's server; ``None`` where the entity was deleted, so that nobody takes it.
        unread: the news of the grant of ``epoch`` that this recall replaced in the inbox before it was read.
    """

    entity: str
    epoch: int
    granted: int
    taker: str | None
    owner: str
    step: Step
    unread: Grant | Failover | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An entity that this session put into escrow is another instance's (R0-28).

    Attributes:
        epoch: under which that instance has it.
        holder: its server, with ``@`` and the instance behind its name.
    """

    entity: str
    epoch: int
    holder: str
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The other instance refused; the entity is this session's again, at a new epoch.

    Attributes:
        reason: why, one of ``docs/protocol.md`` §11.
    """

    entity: str
    epoch: int
    reason: str
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A player asks this master for an entity under the rule ``ask`` (R0-8).

    Attributes:
        player: who asks.
        server: where the player is.
        owner: who owns the entity now.
        authority: whether the player's server is to simulate it as well.
        expires_ms: when the ask ends by itself, Unix time in milliseconds.
        step: of this message; its trace is that of the request.
    """

    entity: str
    player: str
    server: str
    owner: str
    master: str
    authority: bool
    expires_ms: int
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class AskEnded:
    """What became of an ask of a player of this session.

    Attributes:
        record: the entity as the answer left it; a grant of authority is acted on as that of a pull.
        asked: trace of the request.
    """

    entity: str
    player: str
    outcome: Outcome
    record: EntityRecord
    asked: bytes
    step: Step


InboxMessage = Grant | Failover | Recall | Ask | AskEnded | Closed | Returned


def inbox_message(term: Any) -> InboxMessage:
    """Decode an inbox message.

    Raises:
        DecodeError: of another type, or a member is missing.
    """
    fields = Fields(term)
    match str(fields.member("type")):
        case "grant":
            return _grant(term)
        case "failover":
            return _failover(term)
        case "recall":
            unread = fields.optional("unread")
            return Recall(
                entity=fields.text("entity"),
                epoch=fields.number("epoch"),
                granted=fields.number("granted"),
                taker=None if fields.member("to") == Atom("undefined") else fields.text("to"),
                owner=fields.text("owner"),
                step=Step.from_term(term),
                unread=None if unread is None else _unread(unread),
            )
        case "closed":
            return Closed(
                entity=fields.text("entity"),
                epoch=fields.number("epoch"),
                holder=abroad_name(fields.text("to"), fields.text("instance")),
                step=Step.from_term(term),
            )
        case "returned":
            return Returned(
                entity=fields.text("entity"),
                epoch=fields.number("epoch"),
                reason=fields.name("reason"),
                step=Step.from_term(term),
            )
        case "ask":
            return Ask(
                entity=fields.text("entity"),
                player=fields.text("player"),
                server=fields.text("server"),
                owner=fields.text("owner"),
                master=fields.text("master"),
                authority=fields.flag("authority"),
                expires_ms=fields.number("expires"),
                step=Step.from_term(term),
            )
        case "outcome":
            return AskEnded(
                entity=fields.text("entity"),
                player=fields.text("player"),
                outcome=outcome_of(term),
                record=EntityRecord.from_term(fields.member("record")),
                asked=fields.binary("asked"),
                step=Step.from_term(term),
            )
        case other:
            raise DecodeError(f"no inbox message: type {other!r:.50}")


def _grant(term: Any) -> Grant:
    fields = Fields(term)
    abroad = fields.optional("abroad")
    giver = None if abroad is None else server_abroad(abroad, Fields(abroad).text("instance"))
    return Grant(
        entity=fields.text("entity"),
        epoch=fields.number("epoch"),
        previous=fields.number("previous"),
        giver=fields.text("from") if giver is None else giver.server,
        owner=fields.text("owner"),
        box=fields.text("box"),
        step=Step.from_term(term),
        abroad=giver,
    )


def _failover(term: Any) -> Failover:
    fields = Fields(term)
    due = fields.optional("awaiting")
    return Failover(
        entity=fields.text("entity"),
        epoch=fields.number("epoch"),
        previous=fields.number("previous"),
        giver=fields.text("from"),
        owner=fields.text("owner"),
        awaiting=None if due is None else Awaiting.from_term(due),
        step=Step.from_term(term),
    )


def _unread(term: Any) -> Grant | Failover:
    return _failover(term) if str(Fields(term).member("type")) == "failover" else _grant(term)

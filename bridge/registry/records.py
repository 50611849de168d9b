"""Records of the homeserver's tree and its inbox messages, decoded (``docs/protocol.md`` §2, §7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bridge.errors import DecodeError
from bridge.etf import Atom


class Rule(StrEnum):
    """What the master lets others do with an entity (R0-8)."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaiting:
    """The release that a granted authority still waits for.

    Attributes:
        awaiting: the release that this holder waited for itself when the entity was taken from it.
    """

    session: bytes
    server: str
    epoch: int
    awaiting: Awaiting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerRecord:
    """At which server's session a player entered last; nowhere once that session is no more."""

    player: str
    session: bytes
    server: str

    @classmethod
    def from_term(cls, term: Any) -> PlayerRecord:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        return cls(
            player=fields.text("player"), session=fields.binary("session"), server=fields.text("server")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An entity that is not this instance's to change.

    Attributes:
        instance: where it is, as far as was told, or is to go.
        in_escrow: whether that instance has yet to decide; else it has the entity, or has passed it on.
        holder: its server that got the entity from here, with ``@`` and the instance behind its name;
            ``None`` where that is not known.
    """

    instance: str
    in_escrow: bool
    holder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRecord:
    """Who owns, who masters and who simulates one entity (R0-9).

    Attributes:
        default_owner: to whom ownership falls; ``None``: to the master.
        session: 16 bytes, the session that holds authority; ``None`` while the entity is dormant.
        server: its server.
        epoch: 64 bits, rises with every grant; 0 before the first.
        home: the instance that the entity began at, which knows where it is.
        version: rises with every change of the record.
        away: where the entity is, when it is at another instance; then nobody here may change it.
        is_deleted: there is no such entity any more, but somebody who may act for it has yet to say that it
            does not; until then the name is not free.
    """

    entity: str
    owner: str
    master: str
    rule: Rule
    session: bytes | None
    server: str | None
    epoch: int
    awaiting: Awaiting | None
    home: str
    version: int
    default_owner: str | None = None
    away: Away | None = None
    is_deleted: bool = False

    @classmethod
    def from_term(cls, term: Any) -> EntityRecord:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        awaiting = fields.optional("awaiting")
        return cls(
            entity=fields.text("entity"),
            owner=fields.text("owner"),
            master=fields.text("master"),
            rule=fields.rule("rule"),
            session=fields.optional_binary("session"),
            server=fields.optional_text("server"),
            epoch=fields.number("epoch"),
            awaiting=None if awaiting is None else _awaiting(awaiting),
            home=fields.text("home"),
            version=fields.number("version"),
            default_owner=fields.optional_text("default_owner"),
            away=_away(fields.optional("away")),
            is_deleted=fields.optional("deleted") is True,
        )

    @property
    def age(self) -> tuple[int, int]:
        """Rises with every change, also over the life of an earlier entity of this name."""
        return self.epoch, self.version

    def due_to(self, session: bytes, epoch: int) -> Awaiting | None:
        """The release that a session's grant waits for, also where the entity was taken from it since.

        Raises:
            LookupError: the record does not name this grant, so says nothing about it.
        """
        if (self.session, self.epoch) == (session, epoch):
            return self.awaiting
        link = self.awaiting
        while link is not None:
            if (link.session, link.epoch) == (session, epoch):
                return link.awaiting
            link = link.awaiting
        raise LookupError(f"{self.entity} at {self.epoch} names no grant of {epoch} to this session")


def _away(term: Any) -> Away | None:
    if term is None:
        return None
    fields = Fields(term)
    instance, server = fields.text("instance"), fields.optional_text("server")
    return Away(
        instance=instance,
        in_escrow=fields.member("state") == Atom("escrow"),
        holder=None if server is None else abroad_name(server, instance),
    )


def _awaiting(term: Any) -> Awaiting:
    fields = Fields(term)
    older = fields.optional("awaiting")
    return Awaiting(
        session=fields.binary("session"),
        server=fields.text("server"),
        epoch=fields.number("epoch"),
        awaiting=None if older is None else _awaiting(older),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """A simulation server as its homeserver knows it.

    Attributes:
        session: 16 bytes; ``None`` while the server is away.
        key: the public key, a JWK as JSON.
        thumbprint: RFC 7638 thumbprint of that key.
        host: where its data plane listens.
        port: UDP port.
        revoked: whether the key counts no more: nobody may talk to the server.
    """

    server: str
    session: bytes | None
    key: bytes
    thumbprint: str
    host: str
    port: int
    revoked: bool = False

    @classmethod
    def from_term(cls, term: Any) -> ServerRecord:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        host, port = fields.address("address")
        return cls(
            server=fields.text("server"),
            session=fields.optional_binary("session"),
            key=fields.binary("key"),
            thumbprint=fields.text("thumbprint"),
            host=host,
            port=port,
            revoked=fields.optional("revoked") is True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a message stands in its transfer: 16 bytes that name the transfer, and the messages before it."""

    trace: bytes
    hop: int

    def next(self) -> Step:
        """The step of a message that this one causes."""
        return Step(trace=self.trace, hop=self.hop + 1)

    @classmethod
    def from_term(cls, term: Any) -> Step:
        """Decode ``trace`` and ``hop`` of an answer or an inbox message."""
        fields = Fields(term)
        return cls(trace=fields.binary("trace"), hop=fields.number("hop"))


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


class Outcome(StrEnum):
    """What became of a request for an entity."""

    GRANTED = "granted"
    """the player has it"""
    PENDING = "pending"
    """the master was asked"""
    REFUSED = "refused"
    """the master said no"""
    CONFLICT = "conflict"
    """another player was granted it; the record says who"""
    DENIED = "denied"
    """the rule became ``deny``"""
    EXPIRED = "expired"
    """the master did not answer in time"""
    MASTER_AWAY = "master_away"
    """the master left, or a new one is not here"""
    GONE = "gone"
    """who had asked is not at that session any more"""
    DELETED = "deleted"
    """there is no such entity any more"""


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


def outcome_of(term: Any) -> Outcome:
    """Decode ``outcome`` of an answer or an inbox message.

    Raises:
        DecodeError: it is none.
    """
    value = str(Fields(term).member("outcome"))
    try:
        return Outcome(value)
    except ValueError:
        raise DecodeError(f"no outcome of a request: {value!r:.50}") from None


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
        awaiting=None if due is None else _awaiting(due),
        step=Step.from_term(term),
    )


def _unread(term: Any) -> Grant | Failover:
    return _failover(term) if str(Fields(term).member("type")) == "failover" else _grant(term)


def abroad_name(name: str, instance: str) -> str:
    """The name of another instance's server, told apart from this one's."""
    return f"{name}@{instance}"


def server_abroad(term: Any, instance: str) -> ServerRecord:
    """Decode a server of another instance, of a grant or of ``/:bridge/:abroad``.

    Raises:
        DecodeError: it is none.
    """
    fields = Fields(term)
    host, port = fields.address("address")
    return ServerRecord(
        server=abroad_name(fields.text("server"), instance),
        session=fields.binary("session"),
        key=fields.binary("key"),
        thumbprint=fields.text("thumbprint"),
        host=host,
        port=port,
    )


class Fields:
    """Typed access to the members of a record; a ``DecodeError`` says which one is missing."""

    def __init__(self, term: Any) -> None:
        if not isinstance(term, Mapping):
            raise DecodeError(f"no record: {term!r:.100}")
        self._term = term

    def member(self, name: str) -> Any:
        """Whatever is there."""
        try:
            return self._term[Atom(name)]
        except KeyError:
            raise DecodeError(f"a record without {name}: {self._term!r:.200}") from None

    def optional(self, name: str) -> Any:
        """Whatever is there; ``None`` where nothing or ``undefined`` is."""
        value = self._term.get(Atom(name))
        return None if value == Atom("undefined") else value

    def binary(self, name: str) -> bytes:
        """A binary."""
        value = self.member(name)
        if not isinstance(value, bytes):
            raise DecodeError(f"{name} is no binary: {value!r:.100}")
        return value

    def optional_binary(self, name: str) -> bytes | None:
        """A binary, or ``None``."""
        return None if self.optional(name) is None else self.binary(name)

    def text(self, name: str) -> str:
        """A binary as text."""
        return self.binary(name).decode(errors="replace")

    def optional_text(self, name: str) -> str | None:
        """A binary as text, or ``None``."""
        return None if self.optional(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A whole number, not negative."""
        value = self.member(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DecodeError(f"{name} is no number: {value!r:.100}")
        return value

    def address(self, name: str) -> tuple[str, int]:
        """Host and port."""
        match self.member(name):
            case (bytes() as host, int() as port) if 0 < port < 65536:
                return host.decode(errors="replace"), port
            case other:
                raise DecodeError(f"no address of a server: {other!r:.100}")

    def name(self, name: str) -> str:
        """A binary or an atom as text."""
        value = self.member(name)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def flag(self, name: str) -> bool:
        """A boolean."""
        value = self.member(name)
        if not isinstance(value, bool):
            raise DecodeError(f"{name} is no boolean: {value!r:.100}")
        return value

    def rule(self, name: str) -> Rule:
        """A rule."""
        try:
            return Rule(str(self.member(name)))
        except ValueError:
            raise DecodeError(f"{name} is no rule: {self.member(name)!r:.100}") from None

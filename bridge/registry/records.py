"""Records of the homeserver's tree, decoded (``docs/protocol.md`` §2, §7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bridge.errors import DecodeError
from bridge.etf import Atom
from bridge.registry.fields import Fields


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

    @classmethod
    def from_term(cls, term: Any) -> Awaiting:
        """Decode a member of a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        older = fields.optional("awaiting")
        return cls(
            session=fields.binary("session"),
            server=fields.text("server"),
            epoch=fields.number("epoch"),
            awaiting=None if older is None else cls.from_term(older),
        )


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
            rule=_rule(fields),
            session=fields.optional_binary("session"),
            server=fields.optional_text("server"),
            epoch=fields.number("epoch"),
            awaiting=None if awaiting is None else Awaiting.from_term(awaiting),
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


def _rule(fields: Fields) -> Rule:
    member = fields.member("rule")
    try:
        return Rule(str(member))
    except ValueError:
        raise DecodeError(f"rule is no rule: {member!r:.100}") from None


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

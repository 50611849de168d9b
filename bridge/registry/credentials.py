"""Credentials in the homeserver's tree: enrolments, revocations, the instance's keys, players' data.

Signatures are checked before, by the readers of ``bridge.jose.credentials``; here is what only the tree can
decide: whose a name is, whether a proof was shown before at any member, what was revoked. Each of these is a
transaction, so nobody acts on what one member happened to have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bridge.errors import DecodeError, KeyFormatError
from bridge.etf import Atom
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Keyring, Proof, Role, keyring
from bridge.jose.credentials.proof import PEER
from bridge.jose.credentials.ticket import check_data
from bridge.jose.encoding import json_encode, json_object_untrusted
from bridge.khepri import Khepri, Path
from bridge.registry.fields import Fields
from bridge.registry.ownership import OPERATOR, Party
from bridge.registry.records import ServerRecord
from bridge.registry.requests import PATIENCE, Requests, name_bytes

_BRIDGE: Final = Atom("bridge")
_UNDEFINED: Final = Atom("undefined")


class KeyState(StrEnum):
    """How far a key of the instance has got; it only goes forward."""

    NEXT = "next"
    """published before it is used, so that everybody has it by then"""
    CURRENT = "current"
    """signs"""
    RETIRED = "retired"
    """signs no more; what it signed holds until ``until``"""
    REVOKED = "revoked"
    """nothing that it signed holds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceKey:
    """A key that an instance signs with, or did.

    Attributes:
        key: public, on P-256.
        since: Unix seconds, when it was first published in its state.
        until: Unix seconds, until when its signatures hold; ``None`` without an end.
    """

    key: Jwk
    state: KeyState
    since: int
    until: int | None

    def verifies(self, now: float) -> bool:
        """Whether what it signed holds at that time, in Unix seconds."""
        return self.state is not KeyState.REVOKED and (self.until is None or now < self.until)

    @classmethod
    def from_term(cls, term: Any) -> InstanceKey:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        try:
            state = KeyState(str(fields.member("state")))
            key = Jwk.from_json(fields.binary("key"))
        except (ValueError, KeyFormatError) as error:
            raise DecodeError(f"no key of an instance: {error}") from None
        until = None if fields.optional("until") is None else fields.number("until")
        return cls(key=key, state=state, since=fields.number("since"), until=until)


def ring_at(keys: Iterable[InstanceKey], now: float) -> Keyring:
    """Those keys whose signatures hold at that time, in Unix seconds."""
    return keyring(key.key for key in keys if key.verifies(now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A key or a certificate that counts no more.

    Attributes:
        credential: thumbprint of the key, or id of the certificate.
        at_ms: when it was revoked, Unix milliseconds.
    """

    credential: str
    reason: str
    at_ms: int

    @classmethod
    def from_term(cls, term: Any) -> Revocation:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        return cls(credential=fields.text("id"), reason=fields.text("reason"), at_ms=fields.number("at"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who was enrolled under a name.

    Attributes:
        key: the public key that speaks for the name.
        certificate: id of the newest certificate.
        expires_at: of that, Unix seconds.
    """

    name: str
    role: Role
    key: Jwk
    certificate: str
    expires_at: int

    @classmethod
    def from_term(cls, term: Any) -> Subject:
        """Decode a record.

        Raises:
            DecodeError: a member is missing or of another type.
        """
        fields = Fields(term)
        try:
            role = Role(str(fields.member("role")))
            key = Jwk.from_json(fields.binary("key"))
        except (ValueError, KeyFormatError) as error:
            raise DecodeError(f"no subject: {error}") from None
        return cls(
            name=fields.text("subject"),
            role=role,
            key=key,
            certificate=fields.text("certificate"),
            expires_at=fields.number("expires"),
        )


class Credentials:
    """Requests about credentials.

    Args:
        store: client of the instance's store.
        patience: seconds to repeat a request until its outcome is known.
    """

    def __init__(self, store: Khepri, *, patience: float = PATIENCE) -> None:
        self._store = store
        self._requests = Requests(store, patience=patience)

    async def enrol(
        self, certificate: Certificate, *, previous: str | None = None, operator: bool = False
    ) -> None:
        """Enter a name and its key, as a certificate that is about to be signed says it.

        Args:
            previous: thumbprint of the name's key until now, if its holder has shown that it is.
            operator: whether an operator wants it so, whoever has the name.

        Raises:
            NameTakenError: another key has the name, or another name the key.
            RevokedError: the key was revoked.
        """
        await self._requests.ask(
            "enrol",
            subject=name_bytes(certificate.subject),
            role=Atom(certificate.role.value),
            key=certificate.key.to_json().encode(),
            thumbprint=certificate.thumbprint.encode(),
            certificate=certificate.id.encode(),
            expires=certificate.expires_at,
            previous=_UNDEFINED if previous is None else previous.encode(),
            operator=operator,
        )

    async def authenticate(self, proof: Proof, certificate: Certificate) -> ServerRecord | None:
        """Use a proof up, whose signature and certificate were checked.

        Returns:
            The server that the proof asks to be introduced to; ``None`` where it asks for no one.

        Raises:
            ReplayedError: the proof was shown before, at whichever member.
            RevokedError: the certificate or its key was revoked.
            NotEnrolledError: the name has another key by now, or none.
            UnknownServerError: there is no such server, or it is away.
        """
        value = await self._requests.ask(
            "authenticate",
            subject=name_bytes(certificate.subject),
            role=Atom(certificate.role.value),
            thumbprint=certificate.thumbprint.encode(),
            certificate=certificate.id.encode(),
            proof=proof.id.encode(),
            issued=proof.issued_at,
            peer=name_bytes(proof.peer) if proof.use == PEER else _UNDEFINED,
        )
        peer = Fields(value).optional("peer")
        return None if peer is None else ServerRecord.from_term(peer)

    async def attest(self, session: bytes, *, server: str, thumbprint: str, entity: str | None = None) -> int:
        """Have it decided that a session is open, and holds an entity where one is named.

        Args:
            server: whose session it must be.
            thumbprint: of the key that it must have been opened with.

        Returns:
            The epoch under which it holds the entity; 0 where none is named.

        Raises:
            NotHolderError: the session is not open, not that server's, or does not hold the entity.
            UnknownEntityError: there is none.
            RevokedError: the key was revoked.
        """
        value = await self._requests.ask(
            "attest",
            session=session,
            server=name_bytes(server),
            thumbprint=thumbprint.encode(),
            entity=_UNDEFINED if entity is None else name_bytes(entity),
        )
        return Fields(value).number("epoch")

    async def revoke(self, credential: str, *, reason: str) -> Revocation:
        """Let a key, by its thumbprint, or a single certificate, by its id, count no more; for good.

        Of a server's key: its peers drop it when they hear of it, its session ends with its lease. Of a key
        of the instance: nothing that it signed holds any more.

        Returns:
            The revocation, which may be an earlier one.
        """
        value = await self._requests.ask("revoke_credential", id=credential.encode(), reason=reason.encode())
        return Revocation.from_term(value)

    async def revocations(self) -> list[Revocation]:
        """All that was revoked, the newest first, as the connected member has it."""
        found = await self._store.get_many("/:bridge/:revoked/*")
        return sorted(map(Revocation.from_term, found.values()), key=lambda one: -one.at_ms)

    async def publish_key(self, key: Jwk, state: KeyState) -> InstanceKey:
        """Publish a key of the instance as ``NEXT`` or ``CURRENT``; a current one before it retires.

        Returns:
            The key as it stands: one that has retired or was revoked stays so.
        """
        value = await self._requests.ask(
            "publish_key",
            kid=key.thumbprint().encode(),
            key=key.public().to_json().encode(),
            state=Atom(state.value),
        )
        return InstanceKey.from_term(value)

    async def keys(self) -> list[InstanceKey]:
        """The instance's keys, the newest first."""
        found = await self._store.get_many("/:bridge/:keys/*")
        return sorted(map(InstanceKey.from_term, found.values()), key=lambda key: -key.since)

    async def subject(self, role: Role, name: str) -> Subject | None:
        """Who was enrolled under a name, as the leader has it."""
        path: Path = [_BRIDGE, Atom("subjects"), Atom(role.value), name_bytes(name)]
        term = await self._store.get_or(path, None, favor="consistency")
        return None if term is None else Subject.from_term(term)

    async def is_revoked(self, credential: str) -> bool:
        """Whether a key or a certificate was revoked, as the leader has it."""
        path: Path = [_BRIDGE, Atom("revoked"), credential.encode()]
        return await self._store.get_or(path, None, favor="consistency") is not None

    async def player_data(self, player: str) -> dict[str, Any]:
        """A player's data, as the leader has it; empty where there is none.

        Raises:
            DecodeError: it is no JSON object.
        """
        path: Path = [_BRIDGE, Atom("player_data"), name_bytes(player)]
        term = await self._store.get_or(path, None, favor="consistency")
        if term is None:
            return {}
        try:
            return json_object_untrusted(Fields(term).binary("data"))
        except ValueError as error:
            raise DecodeError(f"the data of {player!r:.80} is no JSON object: {error}") from None

    async def set_player_data(self, player: str, data: Mapping[str, Any], *, by: Party) -> int:
        """Keep a player's data, for the player's next hand-off.

        Args:
            data: a JSON object, as a ticket can carry it.
            by: the server where the player is, or an operator.

        Returns:
            How often it was written.

        Raises:
            SignatureError: no ticket could carry it.
            NotHereError: the player is not at that server.
        """
        check_data(data)
        value = await self._requests.ask(
            "set_player_data",
            player=name_bytes(player),
            data=json_encode(dict(data)),
            by=Atom("operator") if by is OPERATOR else name_bytes(by),
        )
        return Fields(value).number("version")

"""Who gets what signed: certificates, access tokens, peer tokens, hand-off tickets.

Signatures and times are checked here, by the keys that are published; then the tree decides, in one
transaction each, whether the key counts and the proof is new; only then the signer is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from bridge.errors import BridgeError, ConfigurationError, SignatureError
from bridge.etf import Atom
from bridge.jose.credentials import (
    AccessToken,
    Certificate,
    Enrolment,
    GrantToken,
    PeerToken,
    Proof,
    Role,
    SessionTicket,
    Signer,
    Ticket,
    read_certificate_untrusted,
    read_enrolment_untrusted,
    read_proof_untrusted,
)
from bridge.jose.credentials.proof import ACCESS, KEY, PEER
from bridge.jose.encoding import base64url_encode
from bridge.registry import Credentials, KeyState, NotEnrolledError, ServerRecord, UnknownServerError
from bridge.registry.trust import Trusted
from bridge.udp.bucket import HostBuckets

_log = logging.getLogger("bridge.homeserver.issuing")

PUBLISH_SECONDS: Final = 15.0
"""between two looks at which keys the signer has; who keeps keys may do so for a minute more"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingSettings:
    """How long what is issued lasts, and who may register."""

    open_registration: bool = False
    """whether anybody may register a name for a player; else an operator enrols each"""
    enrolment_rate: float = 0.5
    """enrolments a second of one host, operators' aside: with open registration each can be a name that is
    gone, and the signer makes so many certificates for all"""
    enrolment_burst: int = 50
    """enrolments of one host after a quiet time: a household, or a hall behind one address"""
    certificate_seconds: int = 30 * 86_400
    """of a certificate; it is renewed with the same key, or another one, by its holder"""
    access_seconds: int = AccessToken.MAX_LIFETIME_S
    """of an access token"""
    peer_seconds: int = PeerToken.MAX_LIFETIME_S
    """of a peer token"""
    ticket_seconds: int = 60
    """of a ticket: from the homeserver to the server's door"""

    def __post_init__(self) -> None:
        if self.enrolment_rate <= 0 or self.enrolment_burst < 1:
            raise ConfigurationError("enrolment_rate is above zero, enrolment_burst 1 or more")
        for what, seconds, longest in (
            ("certificate", self.certificate_seconds, Certificate.MAX_LIFETIME_S),
            ("access token", self.access_seconds, AccessToken.MAX_LIFETIME_S),
            ("peer token", self.peer_seconds, PeerToken.MAX_LIFETIME_S),
            ("ticket", self.ticket_seconds, Ticket.MAX_LIFETIME_S),
        ):
            if not 1 <= seconds <= longest:
                raise ConfigurationError(f"a {what} lasts 1 to {longest} seconds, not {seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Something signed.

    Attributes:
        token: compact JWS.
        expires_at: Unix seconds.
    """

    token: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduced:
    """A peer token, and the server that it is for."""

    issued: Issued
    peer: ServerRecord


class Issuing:
    """Issues what an instance signs.

    Args:
        credentials: of the instance's tree.
        signer: of the instance.
        trust: its published keys.
        instance: its name.
        clock: gives Unix seconds.
        monotonic: gives seconds of a clock that never goes back, for limits.
        random: gives so many random bytes.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        signer: Signer,
        trust: Trusted,
        instance: str,
        settings: IssuingSettings | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.credentials = credentials
        self.settings = settings or IssuingSettings()
        self._signer = signer
        self._trust = trust
        self._instance = instance
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._enrolments = HostBuckets(rate=self.settings.enrolment_rate, burst=self.settings.enrolment_burst)

    async def publish(self) -> None:
        """Have the signer's keys published: the first one signs, the others will.

        Raises:
            ConfigurationError: the key that signs was revoked.
        """
        current, *following = await self._signer.keys()
        published = await self.credentials.publish_key(current, KeyState.CURRENT)
        if published.state is KeyState.REVOKED:
            raise ConfigurationError(
                f"the signer's key {current.thumbprint()} was revoked, so nothing holds that it signs: start "
                "homeserver signer with another one"
            )
        for key in following:
            await self.credentials.publish_key(key, KeyState.NEXT)

    @contextlib.asynccontextmanager
    async def publishing(self, *, every: float = PUBLISH_SECONDS) -> AsyncIterator[None]:
        """Publish again and again, for a signer that is restarted with other keys.

        Args:
            every: seconds.
        """

        async def publish() -> None:
            while True:
                await asyncio.sleep(every)
                try:
                    await self.publish()
                except BridgeError as error:
                    _log.warning("the signer's keys could not be published: %s", error)

        task = asyncio.create_task(publish())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def read_enrolment(self, text: str) -> Enrolment:
        """Check a request for a certificate: it is by its own key, for this instance, and fresh.

        Raises:
            SignatureError: it is not.
        """
        return read_enrolment_untrusted(text, instance=self._instance, now=self._clock())

    def read_proof(self, text: str) -> tuple[Proof, Certificate]:
        """Check a proof of possession and the certificate in it.

        Raises:
            SignatureError: one of them does not hold.
        """
        now = self._clock()
        return read_proof_untrusted(text, keys=self._trust.keys(now), instance=self._instance, now=now)

    def takes_enrolment(self, host: str) -> bool:
        """Whether one more enrolment of this host, a numeric address, is not one too many; counts it."""
        return self._enrolments.take(host, self._monotonic())

    async def is_holder(self, enrolment: Enrolment) -> bool:
        """Whether the name is enrolled with this very key already: then this is a renewal."""
        known = await self.credentials.subject(enrolment.role, enrolment.subject)
        return known is not None and known.key.thumbprint() == enrolment.key.thumbprint()

    async def handed_over(self, proof: Proof, certificate: Certificate, enrolment: Enrolment) -> str:
        """Use up a proof, which was checked, that the name's key until now lets an enrolment's key have it.

        Returns:
            Thumbprint of the key until now.

        Raises:
            SignatureError: the proof says something else.
            ReplayedError: it was shown before.
            RevokedError: its key or its certificate was revoked.
            NotEnrolledError: the name has another key by now.
        """
        if (proof.use, proof.peer) != (KEY, enrolment.key.thumbprint()):
            raise SignatureError("this proof lets no such key have the name")
        if (certificate.role, certificate.subject) != (enrolment.role, enrolment.subject):
            raise SignatureError("this proof is of another name")
        await self.credentials.authenticate(proof, certificate)
        return certificate.thumbprint

    async def certify(
        self, enrolment: Enrolment, *, previous: str | None = None, operator: bool = False
    ) -> Issued:
        """Certify a name and a key.

        Args:
            previous: thumbprint of the name's key until now, which its holder has shown.
            operator: whether an operator wants it so.

        Raises:
            NameTakenError: another key has the name, or another name the key.
            RevokedError: the key was revoked.
            SignatureError: the signer refuses, as it does certificates of operators.
        """
        if enrolment.role is Role.OPERATOR:
            raise SignatureError("certificates of operators are made with homeserver certify")
        now = int(self._clock())
        made = Certificate(
            subject=enrolment.subject,
            role=enrolment.role,
            key=enrolment.key,
            instance=self._instance,
            issued_at=now,
            expires_at=now + self.settings.certificate_seconds,
            id=self._new_id(),
        )
        await self.credentials.enrol(made, previous=previous, operator=operator)
        return await self._signed(Certificate.TYP, made.claims(), made.expires_at)

    async def access(self, proof: Proof, certificate: Certificate) -> Issued:
        """Give an access token for a proof that was checked.

        Raises:
            SignatureError: the proof asks for something else.
            ReplayedError: it was shown before.
            RevokedError: its key or its certificate was revoked.
            NotEnrolledError: the name has another key by now.
        """
        if proof.use != ACCESS:
            raise SignatureError("this proof asks for no access token")
        await self.credentials.authenticate(proof, certificate)
        now = int(self._clock())
        made = AccessToken(
            subject=certificate.subject,
            role=certificate.role,
            thumbprint=certificate.thumbprint,
            instance=self._instance,
            issued_at=now,
            expires_at=min(now + self.settings.access_seconds, certificate.expires_at),
            id=self._new_id(),
        )
        return await self._signed(AccessToken.TYP, made.claims(), made.expires_at)

    async def introduce(
        self, proof: Proof, certificate: Certificate, *, peer_certificate: str | None = None
    ) -> Introduced:
        """Give a token for a peer, and the peer's key and address (R0-32, R0-15).

        Args:
            peer_certificate: of the peer, where the asker has it; it must be in force and the peer's.

        Raises:
            SignatureError: the proof asks for something else, or the peer's certificate is not one.
            UnknownServerError: there is no such server, or it is away.
        """
        if proof.use != PEER:
            raise SignatureError("this proof asks for no peer token")
        theirs = None if peer_certificate is None else self._read_certificate(peer_certificate)
        if theirs is not None and (theirs.subject, theirs.role) != (proof.peer, Role.SERVER):
            raise SignatureError("the peer's certificate is of somebody else")
        peer = await self.credentials.authenticate(proof, certificate)
        assert peer is not None
        if theirs is not None and theirs.thumbprint != peer.thumbprint:
            raise SignatureError("the peer's certificate is of another key than the peer's")
        now = int(self._clock())
        made = PeerToken(
            subject=certificate.subject,
            role=certificate.role,
            thumbprint=certificate.thumbprint,
            peer=peer.server,
            instance=self._instance,
            issued_at=now,
            expires_at=min(now + self.settings.peer_seconds, certificate.expires_at),
            id=self._new_id(),
        )
        return Introduced(issued=await self._signed(PeerToken.TYP, made.claims(), made.expires_at), peer=peer)

    async def ticket(self, player: str, *, server: ServerRecord, room: str) -> Issued:
        """Give a player a ticket into a room, with the player's data as the leader has it (R4-1).

        Raises:
            NotEnrolledError: nobody was enrolled under that name, or that key was revoked.
            UnknownServerError: the server is away.
            SignatureError: no ticket can be made of this.
        """
        if server.session is None:
            raise UnknownServerError(f"{server.server} is away", reason=Atom("no_server"))
        known = await self.credentials.subject(Role.PLAYER, player)
        if known is None or await self.credentials.is_revoked(known.key.thumbprint()):
            raise NotEnrolledError(f"{player} has no key that counts", reason=Atom("not_enrolled"))
        now = int(self._clock())
        made = Ticket(
            subject=player,
            key=known.key.public(),
            server=server.server,
            session=base64url_encode(server.session),
            room=room,
            data=await self.credentials.player_data(player),
            nonce=self._new_id(),
            instance=self._instance,
            issued_at=now,
            expires_at=now + self.settings.ticket_seconds,
        )
        return await self._signed(Ticket.TYP, made.claims(), made.expires_at)

    async def session_ticket(self, session: bytes, *, server: str, thumbprint: str) -> Issued:
        """Say that a session is open: for as long as a few seconds.

        Raises:
            NotHolderError: it is not, or not that server's under that key.
            RevokedError: the key was revoked.
        """
        # The time first: what is decided then holds at least from then on.
        now = int(self._clock())
        await self.credentials.attest(session, server=server, thumbprint=thumbprint)
        made = SessionTicket(
            server=server,
            session=base64url_encode(session),
            thumbprint=thumbprint,
            instance=self._instance,
            issued_at=now,
            expires_at=now + SessionTicket.MAX_LIFETIME_S,
        )
        return await self._signed(SessionTicket.TYP, made.claims(), made.expires_at)

    async def grant(self, session: bytes, entity: str, *, server: str, thumbprint: str) -> tuple[str, int]:
        """Say that a session was given an entity, for ever; it counts with a session ticket only.

        Returns:
            Compact JWS, and the epoch.

        Raises:
            NotHolderError: the session does not hold it, is not open, or not that server's under that key.
            UnknownEntityError: there is none.
            RevokedError: the key was revoked.
        """
        epoch = await self.credentials.attest(session, server=server, thumbprint=thumbprint, entity=entity)
        made = GrantToken(
            entity=entity,
            epoch=epoch,
            session=base64url_encode(session),
            thumbprint=thumbprint,
            instance=self._instance,
        )
        return await self._signer.sign(GrantToken.TYP, made.claims()), epoch

    def _read_certificate(self, text: str) -> Certificate:
        now = self._clock()
        certificate = read_certificate_untrusted(
            text, keys=self._trust.keys(now), instance=self._instance, now=now
        )
        if self._trust.is_revoked(certificate.thumbprint) or self._trust.is_revoked(certificate.id):
            raise SignatureError("the peer's certificate was revoked")
        return certificate

    async def _signed(self, typ: str, claims: dict[str, object], expires_at: int) -> Issued:
        return Issued(token=await self._signer.sign(typ, claims), expires_at=expires_at)

    def _new_id(self) -> str:
        return base64url_encode(self._random(16))

"""An instance's signer in this process, with the key in the test's own hands, and credentials by it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from bridge.errors import ConnectionLostError
from bridge.jose import Jwk
from bridge.jose.credentials import (
    AccessToken,
    Certificate,
    Enrolment,
    GrantToken,
    PeerToken,
    Proof,
    Role,
    SessionTicket,
    Ticket,
    keyring,
)
from bridge.jose.credentials.reading import Credential
from bridge.jose.credentials.token import encode_token
from bridge.jose.encoding import base64url_encode

INSTANCE: Final = "emerald"
NOW: Final = 1_800_000_000
ISSUER: Final = Jwk.generate()
KEYS: Final = keyring([ISSUER])
ID: Final = base64url_encode(bytes(range(16)))
SESSION: Final = base64url_encode(bytes(range(16, 32)))


class KeySigner:
    """Signs whatever it is given; the real one, which is strict, is a process of its own."""

    def __init__(self, *keys: Jwk) -> None:
        self._keys = list(keys or (ISSUER,))
        self.fail = False

    async def sign(self, typ: str, claims: Mapping[str, object]) -> str:
        return encode_token(typ, claims, self._keys[0], max_bytes=16_384)

    async def keys(self) -> list[Jwk]:
        if self.fail:
            raise ConnectionLostError("the signer is away")
        return [key.public() for key in self._keys]


def certificate(key: Jwk, /, **changes: Any) -> Certificate:
    """A certificate of Alice's, for an hour from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "key": key.public(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "id": ID,
    }
    return Certificate(**{**members, **changes})


def access_token(key: Jwk, /, **changes: Any) -> AccessToken:
    """An access token of Alice's, for its longest time from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "thumbprint": key.thumbprint(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + AccessToken.MAX_LIFETIME_S,
        "id": ID,
    }
    return AccessToken(**{**members, **changes})


def peer_token(key: Jwk, /, **changes: Any) -> PeerToken:
    """A peer token of Alice's for the server B, for its longest time from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "thumbprint": key.thumbprint(),
        "peer": "B",
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + PeerToken.MAX_LIFETIME_S,
        "id": ID,
    }
    return PeerToken(**{**members, **changes})


def ticket(key: Jwk, /, **changes: Any) -> Ticket:
    """A ticket of Alice's into the tavern of server B, for a minute from ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "key": key.public(),
        "server": "B",
        "session": SESSION,
        "room": "tavern",
        "data": {"gold": 7, "items": ["sword", {"name": "éclair"}]},
        "nonce": ID,
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + 60,
    }
    return Ticket(**{**members, **changes})


def grant(key: Jwk, /, **changes: Any) -> GrantToken:
    """The gun, granted to a session of server B."""
    members: dict[str, Any] = {
        "entity": "gun",
        "epoch": (1 << 48) + 5,
        "session": SESSION,
        "thumbprint": key.thumbprint(),
        "instance": INSTANCE,
    }
    return GrantToken(**{**members, **changes})


def session_ticket(key: Jwk, /, **changes: Any) -> SessionTicket:
    """That session of server B, open for five seconds from ``NOW``."""
    members: dict[str, Any] = {
        "server": "B",
        "session": SESSION,
        "thumbprint": key.thumbprint(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "expires_at": NOW + SessionTicket.MAX_LIFETIME_S,
    }
    return SessionTicket(**{**members, **changes})


def proof(certificate_text: str, /, **changes: Any) -> Proof:
    """A request for an access token, made at ``NOW``."""
    members: dict[str, Any] = {
        "certificate": certificate_text,
        "instance": INSTANCE,
        "use": "access",
        "peer": "",
        "issued_at": NOW,
        "id": ID,
    }
    return Proof(**{**members, **changes})


def enrolment(key: Jwk, /, **changes: Any) -> Enrolment:
    """A request for a certificate of Alice's, made at ``NOW``."""
    members: dict[str, Any] = {
        "subject": "alice",
        "role": Role.PLAYER,
        "key": key.public(),
        "instance": INSTANCE,
        "issued_at": NOW,
        "id": ID,
    }
    return Enrolment(**{**members, **changes})


def new_id() -> str:
    """An id that was never used."""
    return base64url_encode(secrets.token_bytes(16))


def issued(credential: Credential, issuer: Jwk = ISSUER, **claims: object) -> str:
    """The credential as text, some of its claims changed."""
    return encode_token(
        credential.TYP, {**credential.claims(), **claims}, issuer, max_bytes=credential.MAX_BYTES
    )

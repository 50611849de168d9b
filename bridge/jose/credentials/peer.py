"""Peer tokens: the homeserver introduces one certified key to one server (R0-32).

The bearer shows it to the peer when they connect; the peer checks it without asking anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import (
    check_id,
    check_lifetime,
    check_members,
    check_name,
    check_thumbprint,
    role_of,
)
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring

_MEMBERS: Final = frozenset({"sub", "role", "jkt", "iss", "aud", "iat", "exp", "jti"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerToken:
    """Leave to speak to one server.

    Attributes:
        subject: who may.
        role: as what.
        thumbprint: of the subject's certified key; who connects proves it by the session's handshake.
        peer: name of the server.
        instance: whose homeservers say so.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.
        id: 16 random bytes, base64url.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-peer+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 300
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    subject: str
    role: Role
    thumbprint: str
    peer: str
    instance: str
    issued_at: int
    expires_at: int
    id: str

    def __post_init__(self) -> None:
        check_name(self.subject, "'sub'")
        role_of(self.role)
        check_thumbprint(self.thumbprint)
        check_name(self.peer, "'aud'")
        check_name(self.instance, "'iss'")
        check_lifetime(self.issued_at, self.expires_at, self.MAX_LIFETIME_S)
        check_id(self.id)

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        return {
            "sub": self.subject,
            "role": self.role.value,
            "jkt": self.thumbprint,
            "iss": self.instance,
            "aud": self.peer,
            "iat": self.issued_at,
            "exp": self.expires_at,
            "jti": self.id,
        }

    @classmethod
    def from_claims_untrusted(cls, claims: Mapping[str, Any]) -> Self:
        """Take claims for what they say.

        Raises:
            SignatureError: the only one.
        """
        check_members(claims, _MEMBERS)
        return cls(
            subject=claims["sub"],
            role=role_of(claims["role"]),
            thumbprint=claims["jkt"],
            peer=claims["aud"],
            instance=claims["iss"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            id=claims["jti"],
        )


def read_peer_untrusted(
    token: str, *, keys: Keyring, instance: str, peer: str, thumbprint: str, now: float
) -> PeerToken:
    """Check a peer token in full.

    Args:
        peer: the server that was shown it.
        thumbprint: of the key that the bearer has proven.
        keys: and what else there is, as for the other kinds.

    Raises:
        SignatureError: the only one.
    """
    introduced = read_untrusted(PeerToken, token, keys=keys, instance=instance, now=now)
    if introduced.peer != peer:
        raise SignatureError("the peer token is for another server")
    if introduced.thumbprint != thumbprint:
        raise SignatureError("the peer token is of another key than its bearer's")
    return introduced

"""Certificates: the homeserver says whose a key is (R0-32)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from bridge.jose.credentials.claims import (
    check_id,
    check_key,
    check_lifetime,
    check_members,
    check_name,
    key_of,
    role_of,
)
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring
from bridge.jose.key import Jwk

_MEMBERS: Final = frozenset({"sub", "role", "jwk", "iss", "iat", "exp", "jti"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A name, a role and the key that speaks for them, as the instance certifies it.

    Attributes:
        subject: name of the player, the server or the operator.
        role: as what.
        key: public key on P-256, the subject's.
        instance: whose homeservers certify it.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.
        id: 16 random bytes, base64url; by it a certificate is revoked without its key.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-certificate+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 90 * 86_400
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    subject: str
    role: Role
    key: Jwk
    instance: str
    issued_at: int
    expires_at: int
    id: str

    def __post_init__(self) -> None:
        check_name(self.subject, "'sub'")
        role_of(self.role)
        check_key(self.key)
        check_name(self.instance, "'iss'")
        check_lifetime(self.issued_at, self.expires_at, self.MAX_LIFETIME_S)
        check_id(self.id)

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the key."""
        return self.key.thumbprint()

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        return {
            "sub": self.subject,
            "role": self.role.value,
            "jwk": self.key.public_members(),
            "iss": self.instance,
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
            key=key_of(claims["jwk"]),
            instance=claims["iss"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            id=claims["jti"],
        )


def read_certificate_untrusted(token: str, *, keys: Keyring, instance: str, now: float) -> Certificate:
    """Check a certificate in full. Whether it was revoked is the caller's to check.

    Args:
        keys: of the instance, at this time.
        instance: that must have issued it.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    return read_untrusted(Certificate, token, keys=keys, instance=instance, now=now)

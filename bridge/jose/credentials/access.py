"""Access tokens: who a REST request is from. Short-lived, so that most of them outlive no revocation."""

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
class AccessToken:
    """Proof, to the homeservers of one instance, of having shown a certified key a short while ago.

    Attributes:
        subject: in whose name requests come.
        role: as what.
        thumbprint: of the certified key, by which a token is revoked with it.
        instance: that issued the token, and takes it.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.
        id: 16 random bytes, base64url.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-access+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 300
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    subject: str
    role: Role
    thumbprint: str
    instance: str
    issued_at: int
    expires_at: int
    id: str

    def __post_init__(self) -> None:
        check_name(self.subject, "'sub'")
        role_of(self.role)
        check_thumbprint(self.thumbprint)
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
            "aud": self.instance,
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
        if claims["aud"] != claims["iss"]:
            raise SignatureError("an access token is for the instance that issued it")
        return cls(
            subject=claims["sub"],
            role=role_of(claims["role"]),
            thumbprint=claims["jkt"],
            instance=claims["iss"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            id=claims["jti"],
        )


def read_access_untrusted(token: str, *, keys: Keyring, instance: str, now: float) -> AccessToken:
    """Check an access token in full. Whether its key was revoked is the caller's to check.

    Args:
        keys: of the instance, at this time.
        instance: that must have issued it.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    return read_untrusted(AccessToken, token, keys=keys, instance=instance, now=now)

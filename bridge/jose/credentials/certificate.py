"""Certificates: the homeserver says whose a key is (R0-32)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.jose.credentials.claims import check_name
from bridge.jose.credentials.declared import EXPIRES, ID, ISSUED, KEY, ROLE, Claim, Declared
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring
from bridge.jose.key import Jwk


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Declared):
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

    subject: Annotated[str, Claim("sub", check_name)]
    role: Annotated[Role, ROLE]
    key: Annotated[Jwk, KEY]
    instance: Annotated[str, Claim("iss", check_name)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]
    id: Annotated[str, ID]

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the key."""
        return self.key.thumbprint()


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

"""Access tokens: who a REST request is from. Short-lived, so that most of them outlive no revocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.jose.credentials.claims import check_name, check_thumbprint
from bridge.jose.credentials.declared import EXPIRES, ID, ISSUED, ROLE, Claim, Declared
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken(Declared):
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

    subject: Annotated[str, Claim("sub", check_name)]
    role: Annotated[Role, ROLE]
    thumbprint: Annotated[str, Claim("jkt", check_thumbprint)]
    instance: Annotated[str, Claim("iss", check_name, again="aud")]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]
    id: Annotated[str, ID]


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

"""Enrolments: somebody asks for a certificate of a name and a key, and signs that with the key.

The signature shows that the key is the asker's own, and nothing about the name: whether the name may be had
is for the homeserver to decide, by who else brings the request (an operator, nobody, or the holder of the
name's key until now).

Source: PKCS#10 (RFC 2986), for the thought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_name, check_now
from bridge.jose.credentials.declared import ID, ISSUED, KEY, ROLE, Claim, Declared
from bridge.jose.credentials.role import Role
from bridge.jose.credentials.token import decode_token_untrusted, encode_token, keyring, peek_token_untrusted
from bridge.jose.key import Jwk


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment(Declared):
    """A request for a certificate.

    Attributes:
        subject: the name.
        role: as what.
        key: the public key, on P-256.
        instance: whose homeserver is asked.
        issued_at: Unix seconds.
        id: 16 random bytes, base64url, new for each request.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-enrolment+jwt"
    MAX_AGE_S: ClassVar[int] = 60
    MAX_BYTES: ClassVar[int] = 4_096

    subject: Annotated[str, Claim("sub", check_name)]
    role: Annotated[Role, ROLE]
    key: Annotated[Jwk, KEY]
    instance: Annotated[str, Claim("aud", check_name)]
    issued_at: Annotated[int, ISSUED]
    id: Annotated[str, ID]

    def signed(self, private: Jwk) -> str:
        """Return the request as text, by its own key."""
        return encode_token(self.TYP, self.claims(), private, max_bytes=self.MAX_BYTES)


def read_enrolment_untrusted(token: str, *, instance: str, now: float) -> Enrolment:
    """Check that whoever asks has the key. Nothing else of it is proven.

    Args:
        instance: that is asked.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    claims = peek_token_untrusted(token, typ=Enrolment.TYP, max_bytes=Enrolment.MAX_BYTES)
    enrolment = Enrolment.from_claims_untrusted(claims)
    if enrolment.instance != instance:
        raise SignatureError("the enrolment is for another instance")
    check_now(enrolment.issued_at, enrolment.issued_at + Enrolment.MAX_AGE_S, now)
    # The one place where a key is taken from the text it signs: that it is in the asker's hands is all it
    # shows.
    decode_token_untrusted(
        token, typ=Enrolment.TYP, keys=keyring([enrolment.key]), max_bytes=Enrolment.MAX_BYTES
    )
    return enrolment

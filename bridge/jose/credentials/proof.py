"""Proof of possession: a client shows its certificate and signs what it asks for with its key (R0-32).

A proof is for one instance, one use, and good for ``MAX_AGE_S``. That it was not shown before is for the
homeserver to see to, by its id: nothing here remembers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from bridge.errors import SignatureError
from bridge.jose.credentials.certificate import Certificate, read_certificate_untrusted
from bridge.jose.credentials.claims import check_name, check_now, check_thumbprint
from bridge.jose.credentials.declared import ID, ISSUED, Claim, Declared
from bridge.jose.credentials.token import (
    Keyring,
    decode_token_untrusted,
    encode_token,
    keyring,
    peek_token_untrusted,
)
from bridge.jose.key import Jwk

ACCESS: Final = "access"
"""use of a proof that asks for an access token"""
PEER: Final = "peer"
"""use of a proof that asks for a peer token"""
KEY: Final = "key"
"""use of a proof that lets another key have the certificate's name"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof(Declared):
    """What the holder of a certified key signs to be given a token.

    Attributes:
        certificate: the certificate, as it was given.
        instance: whose homeserver is asked.
        use: ``ACCESS``, ``PEER`` or ``KEY``.
        peer: the server to be introduced to; the thumbprint of the other key; ``""`` for an access token.
        issued_at: Unix seconds.
        id: 16 random bytes, base64url, new for each proof.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-proof+jwt"
    MAX_AGE_S: ClassVar[int] = 60
    MAX_BYTES: ClassVar[int] = 8_192

    certificate: Annotated[str, Claim("certificate", _check_certificate)]
    instance: Annotated[str, Claim("aud", check_name)]
    use: Annotated[str, Claim("use", _with_the_other)]
    peer: Annotated[str, Claim("peer", _with_the_other)]
    issued_at: Annotated[int, ISSUED]
    id: Annotated[str, ID]

    def __post_init__(self) -> None:
        Declared.__post_init__(self)
        if self.use == PEER:
            check_name(self.peer, "'peer'")
        elif self.use == KEY:
            check_thumbprint(self.peer, "'peer'")
        elif self.use != ACCESS or self.peer != "":
            raise SignatureError(
                f"'use' is {ACCESS!r}, without a peer, {PEER!r}, with one, or {KEY!r}, with a thumbprint"
            )

    def signed(self, private: Jwk) -> str:
        """Return the proof as text, by the certificate's key."""
        return encode_token(self.TYP, self.claims(), private, max_bytes=self.MAX_BYTES)


def _check_certificate(value: object, what: str) -> None:
    if not isinstance(value, str) or len(value) > Certificate.MAX_BYTES:
        raise SignatureError(f"{what} is a certificate, as text")


def _with_the_other(value: object, what: str) -> None:
    """``use`` says what ``peer`` is: both are checked together."""
    del value, what


def read_proof_untrusted(
    token: str, *, keys: Keyring, instance: str, now: float
) -> tuple[Proof, Certificate]:
    """Check a proof, and the certificate in it, under whose key the proof must hold.

    Whether it was shown before, and whether the key was revoked, is the caller's to check.

    Args:
        keys: of the instance, at this time.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    proof = Proof.from_claims_untrusted(peek_token_untrusted(token, typ=Proof.TYP, max_bytes=Proof.MAX_BYTES))
    if proof.instance != instance:
        raise SignatureError("the proof is for another instance")
    check_now(proof.issued_at, proof.issued_at + Proof.MAX_AGE_S, now)
    # The certificate first: only a key that the instance certified is worth a second check of a signature.
    certificate = read_certificate_untrusted(proof.certificate, keys=keys, instance=instance, now=now)
    decode_token_untrusted(token, typ=Proof.TYP, keys=keyring([certificate.key]), max_bytes=Proof.MAX_BYTES)
    return proof, certificate

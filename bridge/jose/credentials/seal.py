"""Seals: the signature of one instance under a document for another one (``docs/protocol.md`` §11).

The document is JSON that anybody can read; the seal holds its hash, beside it.
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
)
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring

_MEMBERS: Final = frozenset({"iss", "aud", "act", "doc", "re", "iat", "exp", "jti"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What an instance says of a document.

    Attributes:
        instance: who signs.
        audience: the instance that it is for.
        act: the kind of document.
        digest: SHA-256 of the document's bytes, base64url.
        question: ``id`` of the seal that this one answers; ``None`` for a question.
        issued_at: Unix seconds.
        expires_at: Unix seconds, up to ``MAX_LIFETIME_S`` later.
        id: 16 random bytes, base64url.

    Raises:
        SignatureError: a member out of its range.
    """

    TYP: ClassVar[str] = "kb-escrow+jwt"
    MAX_LIFETIME_S: ClassVar[int] = 300
    MAX_BYTES: ClassVar[int] = MAX_CREDENTIAL_BYTES

    instance: str
    audience: str
    act: str
    digest: str
    question: str | None
    issued_at: int
    expires_at: int
    id: str

    def __post_init__(self) -> None:
        check_name(self.instance, "'iss'")
        check_name(self.audience, "'aud'")
        check_name(self.act, "'act'")
        # A hash of 32 bytes, as a thumbprint is.
        check_thumbprint(self.digest, "'doc'")
        if self.question is not None:
            check_id(self.question, "'re'")
        check_lifetime(self.issued_at, self.expires_at, self.MAX_LIFETIME_S)
        check_id(self.id)

    def claims(self) -> dict[str, object]:
        """Return what is signed."""
        return {
            "iss": self.instance,
            "aud": self.audience,
            "act": self.act,
            "doc": self.digest,
            "re": self.question,
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
            instance=claims["iss"],
            audience=claims["aud"],
            act=claims["act"],
            digest=claims["doc"],
            question=claims["re"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            id=claims["jti"],
        )


def read_seal_untrusted(token: str, *, keys: Keyring, instance: str, audience: str, now: float) -> Seal:
    """Check a seal in full, but for the document and the question, which the reader has.

    Args:
        keys: pinned, of the instance that must have signed.
        instance: that one.
        audience: whom it must be for.
        now: Unix seconds.

    Raises:
        SignatureError: the only one.
    """
    seal = read_untrusted(Seal, token, keys=keys, instance=instance, now=now)
    if seal.audience != audience:
        raise SignatureError(f"the document is for {seal.audience!r:.80}, not for {audience}")
    return seal

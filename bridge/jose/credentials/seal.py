"""Seals: the signature of one instance under a document for another one (``docs/protocol.md`` §11).

The document is JSON that anybody can read; the seal holds its hash, beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from bridge.errors import SignatureError
from bridge.jose.credentials.claims import check_id, check_name, check_thumbprint
from bridge.jose.credentials.declared import EXPIRES, ID, ISSUED, Claim, Declared
from bridge.jose.credentials.reading import read_untrusted
from bridge.jose.credentials.token import MAX_CREDENTIAL_BYTES, Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(Declared):
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

    instance: Annotated[str, Claim("iss", check_name)]
    audience: Annotated[str, Claim("aud", check_name)]
    act: Annotated[str, Claim("act", check_name)]
    digest: Annotated[str, Claim("doc", check_thumbprint)]
    question: Annotated[str | None, Claim("re", _check_question)]
    issued_at: Annotated[int, ISSUED]
    expires_at: Annotated[int, EXPIRES]
    id: Annotated[str, ID]


def _check_question(value: object, what: str) -> None:
    if value is not None:
        check_id(value, what)


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

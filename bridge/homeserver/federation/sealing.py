"""Documents under seals: made, and checked in full before anything of them is believed."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from bridge.errors import SignatureError
from bridge.homeserver.federation.documents import Document, act_of, encode_document
from bridge.homeserver.federation.peers import Peer
from bridge.jose.credentials import Keyring, Seal, Signer, read_seal_untrusted
from bridge.jose.credentials.token import peek_token_untrusted
from bridge.jose.encoding import base64url_encode

LIFETIME_S: Final = 60
"""of a seal: what is asked is asked anew with each attempt"""

_D = TypeVar("_D", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A document as it crosses.

    Attributes:
        body: JSON.
        seal: the signature beside it, a compact JWS.
        id: of the seal.
    """

    body: bytes
    seal: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondent:
    """An instance that writes to others, and reads what they write to it.

    Attributes:
        instance: its name.
        signer: its key.
        clock: Unix seconds.
    """

    instance: str
    signer: Signer
    clock: Callable[[], float] = time.time

    async def write(self, document: Document, *, to: str, answering: str | None = None) -> Sealed:
        """Seal a document for another instance.

        Args:
            document: what to say.
            to: to whom.
            answering: ``id`` of the seal that it answers; ``None``: it is a question.

        Raises:
            SignatureError: the signer refuses.
            ConnectionLostError: it is away.
        """
        return await seal_document(
            document,
            signer=self.signer,
            instance=self.instance,
            audience=to,
            question=answering,
            now=self.clock(),
            random=secrets.token_bytes(16),
        )

    def read_untrusted(
        self, body: bytes, seal: str, decode: Callable[[bytes], _D], *, by: Peer, answering: str | None = None
    ) -> tuple[_D, Seal]:
        """What another instance wrote to this one, and the seal that holds for it.

        Args:
            body: the document as it came.
            seal: what came beside it.
            decode: reads documents of the kind that is awaited.
            by: whose it has to be.
            answering: ``id`` of the seal of the question; ``None``: it has to be a question.

        Raises:
            SignatureError: it is not by that instance, for this one, whole, of now and in answer to that.
            DecodeError: it is no such document.
        """
        checked = check_seal_untrusted(
            seal,
            body,
            keys=by.keyring,
            instance=by.instance,
            audience=self.instance,
            question=answering,
            now=self.clock(),
        )
        document = decode(body)
        if checked.act != act_of(document):
            raise SignatureError("the seal is of another kind of document")
        return document, checked


async def seal_document(
    document: Document,
    *,
    signer: Signer,
    instance: str,
    audience: str,
    question: str | None,
    now: float,
    random: bytes,
) -> Sealed:
    """Sign a document of ``instance`` for ``audience``.

    Args:
        document: what to say.
        signer: of the instance.
        instance: who says it.
        audience: to whom.
        question: ``id`` of the seal that it answers; ``None``: it is a question.
        now: Unix seconds.
        random: 16 bytes, for the id.

    Raises:
        SignatureError: the signer refuses.
        ConnectionLostError: it is away.
    """
    body = encode_document(document)
    seal = Seal(
        instance=instance,
        audience=audience,
        act=act_of(document),
        digest=_digest(body),
        question=question,
        issued_at=int(now),
        expires_at=int(now) + LIFETIME_S,
        id=base64url_encode(random),
    )
    return Sealed(body=body, seal=await signer.sign(Seal.TYP, seal.claims()), id=seal.id)


def claimed_instance_untrusted(seal: str) -> str:
    """Return whose a seal claims to be, to look up the keys that it has to hold under.

    Raises:
        SignatureError: it is no seal.
    """
    claims = peek_token_untrusted(seal, typ=Seal.TYP, max_bytes=Seal.MAX_BYTES)
    instance = claims.get("iss")
    if not isinstance(instance, str) or not 1 <= len(instance.encode("utf-8", "replace")) <= 255:
        raise SignatureError("a seal names its instance")
    return instance


def check_seal_untrusted(
    seal: str, body: bytes, *, keys: Keyring, instance: str, audience: str, question: str | None, now: float
) -> Seal:
    """Check that a document is exactly what an instance said to another one, now, and in answer to what.

    Raises:
        SignatureError: the only one.
    """
    read = read_seal_untrusted(seal, keys=keys, instance=instance, audience=audience, now=now)
    if read.digest != _digest(body):
        raise SignatureError("the document is not the one that was sealed")
    if read.question != question:
        raise SignatureError("the document answers another question")
    return read


def _digest(body: bytes) -> str:
    return base64url_encode(hashlib.sha256(body).digest())

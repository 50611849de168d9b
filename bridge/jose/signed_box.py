"""Signed boxes, what servers send each other: a signature over the ciphertext, checked before it is opened.

Seven segments: ``jws_header . jwe_header . (empty) . iv . ciphertext . tag . signature``. The signature is a
detached, unencoded JWS over the five segments of the box (RFC 7797), so it says who sealed what for whom,
when and for which use; the plaintext repeats both identities, so that a box cannot be signed over by another.

Source: ``docs/protocol.md`` section 4. A shorter nesting (a signed token inside a box) was rejected: the
receiver would run a key agreement with a stranger's key before it knows who sent it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bridge.errors import BoxError
from bridge.jose.box import BoxParts, box_compact, open_parts, parse_box_untrusted, seal
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.key import Jwk
from bridge.jose.signature import sign_raw, verify_raw

MAX_SIGNED_BOX_BYTES = 65_536
"""Characters of a signed box; what is larger does not belong on this path."""
MAX_SIGNED_HEADER_BYTES = 2048
"""Of the signed header: about 330 and six for each byte of a context that needs escapes."""
MAX_LIFETIME_MS = 60_000
MAX_CLOCK_SKEW_MS = 30_000
MAX_CONTEXT_BYTES = 200
SESSION_BYTES = 16

VERSION = 1
ALGORITHM = "ES256"
CURVE = "P-256"
DIRECTIONS = ("i", "r", "n")
"""From the initiator, from the responder, neither (not in a session)."""

_U64 = 2**64
_THUMBPRINT_BYTES = 32
_PURPOSE = re.compile(r"[a-z0-9-]{1,32}")
_HEADER_MEMBERS = frozenset(
    ["alg", "b64", "crit", "v", "snd", "rcp", "epk", "sid", "seq", "iat", "ttl", "pur", "dir", "ctx"]
)
_BOX_HEADER_MEMBERS = frozenset({"alg", "apu", "apv", "enc", "epk"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBoxClaims:
    """What the sender signed about a box.

    Attributes:
        sender: thumbprint of the signing key, base64url (RFC 7638).
        recipient: thumbprint of the key the box is sealed to.
        session: 16 bytes.
        sequence: 0 to 2^64-1; (``sender``, ``session``, ``sequence``) is the replay key, never token bytes.
        issued_at_ms: Unix time, milliseconds.
        lifetime_ms: 0 to 60000; 0 does not expire.
        purpose: ``init``, ``reply``, ``release``, ``entity`` …; 1 to 32 lower-case letters, digits, ``-``.
        direction: one of ``DIRECTIONS``.
        context: free text bound to the box, up to 200 bytes of UTF-8.
    """

    sender: str
    recipient: str
    session: bytes
    sequence: int
    issued_at_ms: int
    lifetime_ms: int
    purpose: str
    direction: str
    context: str = ""

    def __post_init__(self) -> None:
        for thumbprint in (self.sender, self.recipient):
            _check_thumbprint(thumbprint)
        if not isinstance(self.session, bytes) or len(self.session) != SESSION_BYTES:
            raise BoxError(f"a session has {SESSION_BYTES} bytes")
        if not _in_range(self.sequence, _U64):
            raise BoxError("a sequence is an unsigned number of 64 bits")
        if not _in_range(self.issued_at_ms, _U64):
            raise BoxError("the issue time is an unsigned number of 64 bits")
        if not _in_range(self.lifetime_ms, MAX_LIFETIME_MS + 1):
            raise BoxError(f"the lifetime is 0 to {MAX_LIFETIME_MS} ms")
        if not isinstance(self.purpose, str) or _PURPOSE.fullmatch(self.purpose) is None:
            raise BoxError("a purpose has 1 to 32 lower-case letters, digits, '-'")
        if self.direction not in DIRECTIONS:
            raise BoxError(f"the direction is one of {', '.join(DIRECTIONS)}")
        if not isinstance(self.context, str) or not _fits(self.context):
            raise BoxError(f"the context has at most {MAX_CONTEXT_BYTES} bytes of UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBox:
    """A box whose signature held and which opened.

    Attributes:
        ephemeral: the sender's fresh public key, for a further key agreement.
    """

    claims: SignedBoxClaims
    payload: bytes
    ephemeral: Jwk


def seal_signed_box(
    payload: bytes,
    *,
    sender: Jwk,
    recipient: Jwk,
    session: bytes,
    sequence: int,
    issued_at_ms: int,
    lifetime_ms: int,
    purpose: str,
    direction: str,
    context: str = "",
    ephemeral: Jwk | None = None,
) -> str:
    """Seal a payload to one recipient and sign the result.

    Args:
        payload: any bytes; the text stays below ``MAX_SIGNED_BOX_BYTES``.
        sender: private key on P-256, which signs.
        recipient: public key on P-256.
        session: see ``SignedBoxClaims`` for this and what follows.
        ephemeral: private key on P-256 for this one box, whose further use (a session's key agreement) the
            caller answers for; made fresh and forgotten when not given.

    Returns:
        Seven segments of ASCII, joined by dots.

    Raises:
        BoxError: an argument out of its range, or a key of the wrong kind.
    """
    for key in (sender, recipient, *(() if ephemeral is None else (ephemeral,))):
        if key.curve != CURVE:
            raise BoxError(f"signed boxes take keys on {CURVE}")
    if not sender.is_private:
        raise BoxError("the sender's private key is needed")
    fresh = Jwk.generate(CURVE) if ephemeral is None else ephemeral
    if fresh.thumbprint_bytes() in (sender.thumbprint_bytes(), recipient.thumbprint_bytes()):
        raise BoxError("the ephemeral key is a long-lived one")
    claims = SignedBoxClaims(
        sender=sender.thumbprint(),
        recipient=recipient.thumbprint(),
        session=session,
        sequence=sequence,
        issued_at_ms=issued_at_ms,
        lifetime_ms=lifetime_ms,
        purpose=purpose,
        direction=direction,
        context=context,
    )
    inside = sender.thumbprint_bytes() + recipient.thumbprint_bytes() + bytes(payload)
    box = seal(inside, recipient, fresh, apu=claims.sender, apv=claims.recipient)
    header = base64url_encode(json_encode(_header(claims, fresh.thumbprint())))
    covered = f"{header}.{box_compact(box)}"
    token = f"{covered}.{base64url_encode(sign_raw(covered.encode('ascii'), sender, ALGORITHM))}"
    if len(token) > MAX_SIGNED_BOX_BYTES:
        raise BoxError(f"payload too long for a signed box of {MAX_SIGNED_BOX_BYTES} bytes")
    return token


def peek_claims_untrusted(token: str) -> SignedBoxClaims:
    """Read what a box says of itself, to learn which key to fetch. Nothing of it is proven.

    Only the signed header is read: strangers can make a server do this much, so no point of theirs is checked
    to be on its curve here.

    Raises:
        BoxError: the token is too long, or what was read of it is malformed.
    """
    _, _, claims, _ = _outside(token)
    return claims


def open_signed_box(
    token: str,
    *,
    recipient: Jwk,
    sender: Jwk,
    purpose: str,
    direction: str,
    session: bytes | None = None,
    context: str | None = None,
    now_ms: int,
) -> OpenedBox:
    """Check a box in full, then open it.

    Whether it was seen before is the caller's to check, by (sender, session, sequence).

    Args:
        token: as ``seal_signed_box`` made it.
        recipient: this side's private key.
        sender: public key of the sender, *fetched from the homeserver*, never one that was carried.
        purpose: what the box must be for.
        direction: which way it must go.
        session: the session it must belong to, if one is known yet.
        context: the context it must carry, if the caller knows it beforehand.
        now_ms: Unix time, milliseconds.

    Raises:
        BoxError: the box is malformed, for another use or recipient, too old, or does not open.
        SignatureError: the signature does not hold under ``sender``. Nothing was decrypted.
    """
    parsed = _split(token)
    claims = parsed.claims
    if sender.curve != CURVE or claims.sender != sender.thumbprint():
        raise BoxError("the box names another sender than the key that was looked up")
    verify_raw(parsed.signature, parsed.covered, sender, ALGORITHM)
    if claims.recipient != recipient.thumbprint():
        raise BoxError("the box is for another recipient")
    if parsed.version != VERSION:
        raise BoxError(f"the box is of version {parsed.version}, this side reads {VERSION}")
    _check_use(claims, purpose=purpose, direction=direction, session=session, context=context)
    _check_time(claims, now_ms)
    if parsed.box.sender.thumbprint() != parsed.ephemeral:
        raise BoxError("the box carries another ephemeral key than the signed one")
    if parsed.ephemeral in (claims.sender, claims.recipient):
        # What is sealed under a long-lived key can be opened for as long as that key lives.
        raise BoxError("the ephemeral key of the box is a long-lived one")
    inside = open_parts(parsed.box, recipient)
    identities = sender.thumbprint_bytes() + recipient.thumbprint_bytes()
    if inside[: len(identities)] != identities:
        raise BoxError("the box was sealed by or for somebody else than its signature says")
    return OpenedBox(claims=claims, payload=inside[len(identities) :], ephemeral=parsed.box.sender)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    claims: SignedBoxClaims
    version: int
    ephemeral: str
    box: BoxParts
    covered: bytes
    signature: bytes


def _outside(token: str) -> tuple[list[str], dict[str, Any], SignedBoxClaims, bytes]:
    """Read segments, signed header, claims and signature; the box between them is left alone."""
    if not isinstance(token, str) or len(token) > MAX_SIGNED_BOX_BYTES:
        raise BoxError(f"a signed box is text of at most {MAX_SIGNED_BOX_BYTES} bytes")
    segments = token.split(".", 7)
    if len(segments) != 7 or segments[2]:
        raise BoxError("a signed box has seven segments, the third empty")
    try:
        raw_header = base64url_decode_untrusted(segments[0])
        signature = base64url_decode_untrusted(segments[6])
        if len(raw_header) > MAX_SIGNED_HEADER_BYTES:
            raise ValueError(f"header longer than {MAX_SIGNED_HEADER_BYTES} bytes")
        header = json_object_untrusted(raw_header)
        claims = _claims(header)
        _check_thumbprint(header["epk"])
    except ValueError as error:
        raise BoxError(f"no signed box: {error}") from error
    return segments, header, claims, signature


def _split(token: str) -> _Parsed:
    segments, header, claims, signature = _outside(token)
    box = parse_box_untrusted(".".join(segments[1:6]))
    _check_box_header(box, claims)
    return _Parsed(
        claims=claims,
        version=header["v"],
        ephemeral=header["epk"],
        box=box,
        covered=token.rpartition(".")[0].encode("ascii"),
        signature=signature,
    )


def _header(claims: SignedBoxClaims, ephemeral: str) -> dict[str, Any]:
    return {
        "alg": ALGORITHM,
        "b64": False,
        "crit": ["b64"],
        "v": VERSION,
        "snd": claims.sender,
        "rcp": claims.recipient,
        "epk": ephemeral,
        "sid": base64url_encode(claims.session),
        "seq": claims.sequence,
        "iat": claims.issued_at_ms,
        "ttl": claims.lifetime_ms,
        "pur": claims.purpose,
        "dir": claims.direction,
        "ctx": claims.context,
    }


def _claims(header: dict[str, Any]) -> SignedBoxClaims:
    if header.keys() != _HEADER_MEMBERS:
        raise BoxError("the signed header does not have exactly its members")
    if header["alg"] != ALGORITHM or header["b64"] is not False or header["crit"] != ["b64"]:
        raise BoxError(f"a signed box is signed with {ALGORITHM}, detached and unencoded")
    if not _in_range(header["v"], 2**16) or not isinstance(header["sid"], str):
        raise BoxError("version or session of the signed header is of the wrong type")
    return SignedBoxClaims(
        sender=header["snd"],
        recipient=header["rcp"],
        session=base64url_decode_untrusted(header["sid"]),
        sequence=header["seq"],
        issued_at_ms=header["iat"],
        lifetime_ms=header["ttl"],
        purpose=header["pur"],
        direction=header["dir"],
        context=header["ctx"],
    )


def _check_box_header(box: BoxParts, claims: SignedBoxClaims) -> None:
    header = box.header
    if header.keys() != _BOX_HEADER_MEMBERS or header["alg"] != "ECDH-ES" or box.encryption != "A128GCM":
        raise BoxError("a signed box is sealed with ECDH-ES and A128GCM, and no other header members")
    if "kid" in header["epk"] or box.sender.curve != CURVE:
        raise BoxError(f"the ephemeral key is a bare one on {CURVE}")
    if header["apu"] != claims.sender or header["apv"] != claims.recipient:
        raise BoxError("the box is sealed between other keys than the signed header says")


def _check_use(
    claims: SignedBoxClaims, *, purpose: str, direction: str, session: bytes | None, context: str | None
) -> None:
    if claims.purpose != purpose:
        raise BoxError(f"the box is for {claims.purpose!r}, not for {purpose!r}")
    if claims.direction != direction:
        raise BoxError(f"the box goes direction {claims.direction!r}, not {direction!r}")
    if session is not None and claims.session != session:
        raise BoxError("the box belongs to another session")
    if context is not None and claims.context != context:
        raise BoxError("the box was sealed in another context")


def _check_time(claims: SignedBoxClaims, now_ms: int) -> None:
    # Differences of whole numbers, so that no issue time a sender invents can wrap the comparison.
    age_ms = now_ms - claims.issued_at_ms
    if age_ms < -MAX_CLOCK_SKEW_MS:
        raise BoxError(f"the box is from {-age_ms} ms ahead; check the clocks")
    if claims.lifetime_ms and age_ms > claims.lifetime_ms + MAX_CLOCK_SKEW_MS:
        raise BoxError(f"the box expired: {age_ms} ms old, lifetime {claims.lifetime_ms} ms")


def _check_thumbprint(text: object) -> None:
    try:
        if isinstance(text, str) and len(base64url_decode_untrusted(text)) == _THUMBPRINT_BYTES:
            return
    except ValueError:
        pass
    raise BoxError(f"a thumbprint has {_THUMBPRINT_BYTES} bytes, in base64url")


def _in_range(value: object, end: int) -> bool:
    # bool is an int in Python, and "true" is no number.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _fits(context: str) -> bool:
    try:
        return len(context.encode("utf-8")) <= MAX_CONTEXT_BYTES
    except UnicodeEncodeError:
        return False

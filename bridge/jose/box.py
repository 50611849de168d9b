"""Encrypted boxes that Erlang and Elixir JOSE open and make: ``box_encrypt`` and ``box_decrypt``.

A box hides its content and tells nobody who sealed it: with ``sender_private`` it proves "one of the two",
and one content key serves a pair of keys for ever. What must be proven goes into a signed box. Boxes of
``ECDH-1PU``, which bind the sender's key as well, are read and not made, for the same reason: they prove
their sender to the recipient alone, who could have made them.

Source: RFC 7516 (JWE), RFC 7518 section 4.6, draft-madden-jose-ecdh-1pu-04 section 2; shaped as by
``jose_jwk:box_encrypt`` of erlang-jose 1.11.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import BoxError, KeyFormatError
from bridge.jose.agreement import concat_kdf, shared_secret
from bridge.jose.content import CONTENT_ENCRYPTIONS
from bridge.jose.curves import AGREEMENT_CURVES
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.key import Jwk

MAX_BOX_BYTES = 1_048_576
"""Characters of a box as text; an entity's whole state in JSON takes a few thousand."""
MAX_HEADER_BYTES = 4096
"""Of the protected header; one with two thumbprints and a P-521 key takes about 400."""
MAX_PARTY_BYTES = 256
"""Of ``apu`` and ``apv``; a thumbprint has 32."""

ALGORITHM = "ECDH-ES"
ENCRYPTION = "A128GCM"

_FLATTENED_REQUIRED = frozenset({"protected", "iv", "ciphertext", "tag"})
_FLATTENED = _FLATTENED_REQUIRED | {"encrypted_key"}
AUTHENTICATED = "ECDH-1PU"
# The sender's key rides in "epk"; ECDH-SS, where it is static by name, calls it "spk" (erlang-jose 1.11).
_SENDER_KEY_MEMBER = {"ECDH-ES": "epk", "ECDH-SS": "spk", AUTHENTICATED: "epk"}
_TEXTS = frozenset({"apu", "apv", "cty", "kid", "typ"})
# "skid" says which of the sender's keys it was. It decides nothing: the caller knows whose boxes it takes.
_OPTIONAL = {"ECDH-ES": _TEXTS, "ECDH-SS": _TEXTS, AUTHENTICATED: _TEXTS | {"skid"}}
_KEY_MEMBERS = {"EC": frozenset({"crv", "kty", "x", "y"}), "OKP": frozenset({"crv", "kty", "x"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxParts:
    """The parts of a box as they came, and what its header says. Nothing here is trusted yet.

    Attributes:
        protected: the header's base64url text, which the tag covers.
        sender: the key in the header, checked to be a key and nothing more.
        apu: producer's identity that the content key is bound to, or nothing.
        apv: consumer's identity, likewise.
    """

    protected: str
    header: Mapping[str, Any]
    algorithm: str
    encryption: str
    sender: Jwk
    apu: bytes
    apv: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes


def box_encrypt(plaintext: bytes, recipient_public: Jwk, sender_private: Jwk | None = None) -> dict[str, str]:
    """Seal a box, ECDH-ES and A128GCM.

    Args:
        plaintext: what to hide; the box's text stays below ``MAX_BOX_BYTES``.
        recipient_public: on P-256, P-384, P-521, X25519 or X448; of a private key the public half is used.
        sender_private: on the same curve. Without it a fresh key is made for this box and forgotten.

    Returns:
        Flattened JWE: ``protected``, ``encrypted_key`` (empty), ``iv``, ``ciphertext``, ``tag``.

    Raises:
        BoxError: keys of curves that do not fit, no private key, a plaintext or a ``kid`` that is too long.
    """
    if recipient_public.curve not in AGREEMENT_CURVES:
        raise BoxError(f"no box can be sealed to a key of {recipient_public.curve or recipient_public.kty}")
    sender = Jwk.generate(recipient_public.curve) if sender_private is None else sender_private
    return seal(plaintext, recipient_public, sender, apu=_party(sender), apv=_party(recipient_public))


def seal(plaintext: bytes, recipient: Jwk, sender: Jwk, *, apu: str, apv: str) -> dict[str, str]:
    """Seal a box under a given key pair, bound to two given identities (base64url).

    Raises:
        BoxError: as ``box_encrypt``.
    """
    # Base64 takes four characters for three bytes; the header has its own bound.
    if len(plaintext) * 4 // 3 > MAX_BOX_BYTES - 2 * MAX_HEADER_BYTES:
        raise BoxError(f"plaintext too long for a box of {MAX_BOX_BYTES} bytes")
    encryption = CONTENT_ENCRYPTIONS[ENCRYPTION]
    try:
        secret = shared_secret(sender, recipient)
        epk = sender.public_members()
    except KeyFormatError as error:
        raise BoxError(f"cannot seal: {error}") from error
    if sender.kid is not None:
        epk["kid"] = sender.kid
    header = {"alg": ALGORITHM, "apu": apu, "apv": apv, "enc": ENCRYPTION, "epk": epk}
    key = concat_kdf(
        secret,
        algorithm=ENCRYPTION,
        apu=base64url_decode_untrusted(apu),
        apv=base64url_decode_untrusted(apv),
        size=encryption.key_size,
    )
    raw_header = json_encode(header)
    if len(raw_header) > MAX_HEADER_BYTES:
        raise BoxError(f"the sender's 'kid' is too long for a header of {MAX_HEADER_BYTES} bytes")
    protected = base64url_encode(raw_header)
    iv = os.urandom(encryption.iv_size)
    ciphertext, tag = encryption.seal(key, iv, bytes(plaintext), protected.encode("ascii"))
    return {
        "ciphertext": base64url_encode(ciphertext),
        "encrypted_key": "",
        "iv": base64url_encode(iv),
        "protected": protected,
        "tag": base64url_encode(tag),
    }


def box_compact(box: Mapping[str, str]) -> str:
    """Return a flattened box as compact text: five segments joined by dots."""
    return ".".join(
        (box["protected"], box.get("encrypted_key", ""), box["iv"], box["ciphertext"], box["tag"])
    )


def box_decrypt(
    box: Mapping[str, str] | str, recipient_private: Jwk, sender_public: Jwk | None = None
) -> bytes:
    """Open a box that was sealed to a key.

    Takes what ``box_encrypt`` of this package and of erlang-jose make: ECDH-ES (and ECDH-SS) with direct use
    of the agreed key, ECDH-1PU where the sender's key is given, and the six content encryptions of RFC 7518.
    Refuses everything else: key wrapping, compression, critical extensions, several recipients, unprotected
    headers, short tags.

    Args:
        box: flattened JWE, compact text, or the flattened one as JSON text.
        recipient_private: the key it was sealed to.
        sender_public: whose box it must be, got from elsewhere; then only ECDH-1PU will do, because the
            others do not tell. Of a private key the public half is used.

    Returns:
        The plaintext. Without ``sender_public`` it proves that somebody sealed it to this key; who, it does
        not prove. With it, that the sender or the recipient did.

    Raises:
        BoxError: the box is malformed, altered, for another key, or asks for what is not allowed.
    """
    return open_parts(parse_box_untrusted(box), recipient_private, sender_public)


def open_parts(parts: BoxParts, recipient: Jwk, sender: Jwk | None = None) -> bytes:
    """Decrypt a parsed box.

    Raises:
        BoxError: it was altered, is for another key or by another sender, or tells no sender where one is
            asked for, or the other way round.
    """
    encryption = CONTENT_ENCRYPTIONS[parts.encryption]
    # Lengths first: a box that cannot be opened is not worth a key agreement.
    if len(parts.iv) != encryption.iv_size or len(parts.tag) != encryption.tag_size:
        raise BoxError(
            f"{parts.encryption} needs {encryption.iv_size} bytes of iv, {encryption.tag_size} of tag"
        )
    if parts.algorithm == AUTHENTICATED and sender is None:
        raise BoxError(f"the box is sealed with {AUTHENTICATED}: give the sender's public key")
    if parts.algorithm != AUTHENTICATED and sender is not None:
        raise BoxError(f"the box is sealed with {parts.algorithm}, which proves no sender")
    try:
        secret = shared_secret(recipient, parts.sender)
        if sender is not None:
            secret += shared_secret(recipient, sender)
    except KeyFormatError as error:
        raise BoxError(f"the box is not for this key: {error}") from error
    key = concat_kdf(
        secret, algorithm=parts.encryption, apu=parts.apu, apv=parts.apv, size=encryption.key_size
    )
    return encryption.open(key, parts.iv, parts.ciphertext, parts.tag, parts.protected.encode("ascii"))


def parse_box_untrusted(box: Mapping[str, str] | str) -> BoxParts:
    """Take a box apart; bounded, and without any use of a private key.

    Raises:
        BoxError: it is no box of the allowed kind.
    """
    protected, iv, ciphertext, tag = _segments(box)
    try:
        raw_header = base64url_decode_untrusted(protected)
        if len(raw_header) > MAX_HEADER_BYTES:
            raise ValueError(f"header longer than {MAX_HEADER_BYTES} bytes")
        header = json_object_untrusted(raw_header)
        algorithm, encryption = header.get("alg"), header.get("enc")
        key_member = _SENDER_KEY_MEMBER.get(algorithm) if isinstance(algorithm, str) else None
        if not isinstance(algorithm, str) or key_member is None:
            allowed = ", ".join(_SENDER_KEY_MEMBER)
            raise ValueError(f"key agreement {str(algorithm)[:32]!r} is none of {allowed}")
        if not isinstance(encryption, str) or encryption not in CONTENT_ENCRYPTIONS:
            raise ValueError(f"content encryption is none of {', '.join(CONTENT_ENCRYPTIONS)}")
        # Exact members: "zip" is a bomb, "crit" names what is not understood, the rest has no meaning here.
        for name, value in header.items():
            if name in _OPTIONAL[algorithm]:
                if not isinstance(value, str):
                    raise ValueError("header members are texts")
            elif name not in ("alg", "enc", key_member):
                raise ValueError(f"header member {name[:32]!r} is not allowed")
        return BoxParts(
            protected=protected,
            header=header,
            algorithm=algorithm,
            encryption=encryption,
            sender=_sender_key(header.get(key_member)),
            apu=_party_bytes(header.get("apu", "")),
            apv=_party_bytes(header.get("apv", "")),
            iv=base64url_decode_untrusted(iv),
            ciphertext=base64url_decode_untrusted(ciphertext),
            tag=base64url_decode_untrusted(tag),
        )
    except (ValueError, KeyFormatError) as error:
        raise BoxError(f"no box: {error}") from error


def _segments(box: Mapping[str, str] | str) -> tuple[str, str, str, str]:
    if isinstance(box, str):
        if len(box) > MAX_BOX_BYTES:
            raise BoxError(f"box longer than {MAX_BOX_BYTES} bytes")
        if not box.startswith("{"):
            segments = box.split(".", 5)
            if len(segments) != 5 or segments[1]:
                raise BoxError("no box: five segments are needed, the second empty")
            return segments[0], segments[2], segments[3], segments[4]
        try:
            box = json_object_untrusted(box.encode("utf-8"))
        except ValueError as error:
            raise BoxError(f"no box: {error}") from error
    if not isinstance(box, Mapping):
        raise BoxError("no box: neither text nor an object")
    names = box.keys()
    if names != _FLATTENED and names != _FLATTENED_REQUIRED:
        raise BoxError(f"a box has exactly the members {', '.join(sorted(_FLATTENED))}")
    length = 0
    for value in box.values():
        if not isinstance(value, str):
            raise BoxError("the members of a box are texts")
        length += len(value)
    if box.get("encrypted_key", ""):
        raise BoxError("the member 'encrypted_key' of a box is an empty text")
    if length > MAX_BOX_BYTES:
        raise BoxError(f"box longer than {MAX_BOX_BYTES} bytes")
    return box["protected"], box["iv"], box["ciphertext"], box["tag"]


def _sender_key(members: object) -> Jwk:
    if not isinstance(members, dict):
        raise ValueError("the header holds no key")
    kty = members.get("kty")
    required = _KEY_MEMBERS.get(kty) if isinstance(kty, str) else None
    # "d" above all: a private key that travels is nobody's any more.
    if required is None or not required <= members.keys() or members.keys() - required - {"kid"}:
        raise ValueError("the key in the header does not have exactly the members of a public key")
    return Jwk.from_dict(members)


def _party(key: Jwk) -> str:
    """Name a key as erlang-jose does: its ``kid`` where it has one, else its thumbprint."""
    if key.kid is not None:
        try:
            _party_bytes(key.kid)
        except ValueError:
            return key.thumbprint()
        return key.kid
    return key.thumbprint()


def _party_bytes(text: str) -> bytes:
    raw = base64url_decode_untrusted(text)
    if len(raw) > MAX_PARTY_BYTES:
        raise ValueError(f"'apu' or 'apv' longer than {MAX_PARTY_BYTES} bytes")
    return raw

"""The one form of every credential: a compact JWS by ES256 whose header says its type and its issuer's key.

The type is in the header, where it is covered by the signature, and each reader demands its own: what was
signed as one kind can never be read as another. The header has exactly three members, so nothing in it can
name a key, an address or an extension.

Source: RFC 7515 section 3.1, RFC 7519, RFC 8725 sections 3.1 and 3.11 (explicit typing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridge.errors import SignatureError
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.key import Jwk
from bridge.jose.signature import sign_raw, verify_raw

MAX_CREDENTIAL_BYTES: Final = 4_096
"""Characters of a credential, unless its kind says otherwise; a certificate takes about 700."""
MAX_CREDENTIAL_HEADER_BYTES: Final = 256
"""Of the header; it takes about 110."""

ALGORITHM: Final = "ES256"
CURVE: Final = "P-256"
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})

Keyring = Mapping[str, Jwk]
"""Public keys by thumbprint: those whose signatures hold at the moment."""


def keyring(keys: Iterable[Jwk]) -> dict[str, Jwk]:
    """Public keys by thumbprint.

    Raises:
        SignatureError: a key that is not on P-256.
    """
    ring = {}
    for key in keys:
        if key.curve != CURVE:
            raise SignatureError(f"credentials are signed with keys on {CURVE}")
        ring[key.thumbprint()] = key.public()
    return ring


def encode_token(
    typ: str, claims: Mapping[str, object], private: Jwk, *, max_bytes: int = MAX_CREDENTIAL_BYTES
) -> str:
    """Sign claims as they are.

    Raises:
        SignatureError: a key that is not a private one on P-256, claims that are no JSON, or too long.
    """
    if private.curve != CURVE:
        raise SignatureError(f"credentials are signed with keys on {CURVE}")
    header = {"alg": ALGORITHM, "kid": private.thumbprint(), "typ": typ}
    try:
        payload = json_encode(claims)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SignatureError(f"these claims are no JSON: {error}") from error
    covered = f"{base64url_encode(json_encode(header))}.{base64url_encode(payload)}"
    token = f"{covered}.{base64url_encode(sign_raw(covered.encode('ascii'), private, ALGORITHM))}"
    if len(token) > max_bytes:
        raise SignatureError(f"a {typ} of {len(token)} characters, where {max_bytes} are the most")
    return token


def decode_token_untrusted(
    token: str, *, typ: str, keys: Keyring, max_bytes: int = MAX_CREDENTIAL_BYTES
) -> dict[str, Any]:
    """Check form, type, issuer and signature, in this order, and only then read the claims.

    Raises:
        SignatureError: the only one.
    """
    header, payload, signature, covered = _split(token, typ, max_bytes)
    key = keys.get(header["kid"])
    if key is None:
        raise SignatureError(f"the {typ} is by a key that is not one of its issuers")
    if key.curve != CURVE:
        raise SignatureError(f"credentials are signed with keys on {CURVE}")
    verify_raw(signature, covered, key, ALGORITHM)
    return _claims(payload)


def peek_token_untrusted(token: str, *, typ: str, max_bytes: int = MAX_CREDENTIAL_BYTES) -> dict[str, Any]:
    """Read claims to learn under which key to check them. Nothing of them is proven.

    Raises:
        SignatureError: the only one.
    """
    _, payload, _, _ = _split(token, typ, max_bytes)
    return _claims(payload)


def _split(token: str, typ: str, max_bytes: int) -> tuple[dict[str, str], bytes, bytes, bytes]:
    if not isinstance(token, str) or len(token) > max_bytes:
        raise SignatureError(f"a {typ} is text of at most {max_bytes} characters")
    segments = token.split(".", 3)
    if len(segments) != 3:
        raise SignatureError(f"no {typ}: three segments are needed")
    try:
        raw_header, payload, signature = map(base64url_decode_untrusted, segments)
        if len(raw_header) > MAX_CREDENTIAL_HEADER_BYTES:
            raise ValueError(f"header longer than {MAX_CREDENTIAL_HEADER_BYTES} bytes")
        header = json_object_untrusted(raw_header)
    except ValueError as error:
        raise SignatureError(f"no {typ}: {error}") from error
    if header.keys() != _HEADER_MEMBERS or not all(isinstance(value, str) for value in header.values()):
        raise SignatureError(
            f"the header of a {typ} has exactly the texts {', '.join(sorted(_HEADER_MEMBERS))}"
        )
    if header["alg"] != ALGORITHM:
        raise SignatureError(f"a {typ} is signed with {ALGORITHM}, nothing else")
    if header["typ"] != typ:
        raise SignatureError(f"this is no {typ}")
    return header, payload, signature, f"{segments[0]}.{segments[1]}".encode("ascii")


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        return json_object_untrusted(payload)
    except ValueError as error:
        raise SignatureError(f"the claims are no JSON object: {error}") from error

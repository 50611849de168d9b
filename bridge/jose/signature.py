"""Signatures: ``sign`` and ``verify``. The key decides the algorithm, a token can only agree.

Source: RFC 7515 (JWS), RFC 7518 section 3, RFC 8037 section 3.1, RFC 9864 (``Ed25519``, ``Ed448``).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from bridge.errors import KeyFormatError, SignatureError
from bridge.jose.curves import EC_CURVES
from bridge.jose.encoding import (
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)
from bridge.jose.key import Jwk

MAX_TOKEN_BYTES = 1_048_576
"""Characters of a token; as for boxes, since a token may carry one."""
MAX_TOKEN_HEADER_BYTES = 4096

# "crit" and "b64" change what a signature covers, "zip" (erlang-jose has it) what the payload means.
_HEADER_REFUSED = frozenset({"b64", "crit", "zip"})
_FLATTENED = frozenset({"payload", "protected", "signature"})
_HMAC = {"HS256": ("sha256", 32), "HS384": ("sha384", 48), "HS512": ("sha512", 64)}
_EDWARDS_SIGNATURE_BYTES = {"Ed25519": 64, "Ed448": 114}


def sign(payload: bytes, private: Jwk) -> str:
    """Sign, with the algorithm of the key: ES256, ES384, ES512, EdDSA; HS256 for a shared secret.

    Returns:
        Compact JWS: header, payload and signature in base64url, joined by dots.

    Raises:
        SignatureError: the key cannot sign, or the payload is too long.
    """
    algorithm = _algorithms(private)[0]
    if len(payload) * 4 // 3 > MAX_TOKEN_BYTES - 2 * MAX_TOKEN_HEADER_BYTES:
        raise SignatureError(f"payload too long for a token of {MAX_TOKEN_BYTES} bytes")
    covered = f"{base64url_encode(json_encode({'alg': algorithm}))}.{base64url_encode(bytes(payload))}"
    return f"{covered}.{base64url_encode(sign_raw(covered.encode('ascii'), private, algorithm))}"


def token_flattened(token: str) -> dict[str, str]:
    """Return a compact token as a flattened one: ``payload``, ``protected``, ``signature``.

    Raises:
        SignatureError: it is none.
    """
    protected, payload, signature = _segments(token)
    return {"payload": payload, "protected": protected, "signature": signature}


def verify(token: Mapping[str, str] | str, public: Jwk) -> bytes:
    """Check a token against a key that the caller got from elsewhere.

    Keys that a token carries (``jwk``, ``x5c``, addresses of keys) are never looked at.

    Args:
        token: compact JWS, a flattened one, or the flattened one as JSON text.
        public: whose signature it must be; private keys do as well.

    Returns:
        The payload.

    Raises:
        SignatureError: the token is malformed, was altered, is by another key or by another algorithm than
            the key's, or has a critical extension.
    """
    protected, payload, signature = _segments(token)
    try:
        raw_header = base64url_decode_untrusted(protected)
        if len(raw_header) > MAX_TOKEN_HEADER_BYTES:
            raise ValueError(f"header longer than {MAX_TOKEN_HEADER_BYTES} bytes")
        header = json_object_untrusted(raw_header)
        raw_payload = base64url_decode_untrusted(payload)
        raw_signature = base64url_decode_untrusted(signature)
    except ValueError as error:
        raise SignatureError(f"no token: {error}") from error
    refused = _HEADER_REFUSED & header.keys()
    if refused:
        raise SignatureError(f"header member {min(refused)!r} is not allowed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _algorithms(public):
        raise SignatureError(
            f"the token is not signed by {' or '.join(_algorithms(public))}, as the key demands"
        )
    verify_raw(raw_signature, f"{protected}.{payload}".encode("ascii"), public, algorithm)
    return raw_payload


def sign_raw(covered: bytes, private: Jwk, algorithm: str) -> bytes:
    """Sign bytes; ECDSA signatures are r and s of full length, not DER (RFC 7518 section 3.4).

    Raises:
        SignatureError: the key has no private half.
    """
    try:
        if algorithm in _HMAC:
            return hmac.digest(private.secret, covered, _HMAC[algorithm][0])
        key = private.private_key
    except KeyFormatError as error:
        raise SignatureError(f"cannot sign: {error}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey):
        curve = EC_CURVES[private.curve or ""]
        r, s = decode_dss_signature(key.sign(covered, ec.ECDSA(curve.digest)))
        return r.to_bytes(curve.size) + s.to_bytes(curve.size)
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key.sign(covered)
    raise SignatureError(f"{private.curve} keys do not sign")


def verify_raw(signature: bytes, covered: bytes, public: Jwk, algorithm: str) -> None:
    """Check a signature over bytes.

    ECDSA signatures with s in the upper half hold too, as everywhere in JOSE: so a signature is no
    identity of what it signs.

    Raises:
        SignatureError: it does not hold.
    """
    if algorithm in _HMAC:
        if not hmac.compare_digest(hmac.digest(public.secret, covered, _HMAC[algorithm][0]), signature):
            raise SignatureError("the signature does not hold")
        return
    key = public.public_key
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(
                _der(signature, public.curve or ""), covered, ec.ECDSA(EC_CURVES[public.curve or ""].digest)
            )
            return
        if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            if len(signature) != _EDWARDS_SIGNATURE_BYTES[public.curve or ""]:
                raise SignatureError("the signature is of the wrong length")
            key.verify(signature, covered)
            return
    except InvalidSignature as error:
        raise SignatureError("the signature does not hold") from error
    raise SignatureError(f"{public.curve} keys do not sign")


def _der(signature: bytes, name: str) -> bytes:
    curve = EC_CURVES[name]
    if len(signature) != 2 * curve.size:
        raise SignatureError(f"the signature has {len(signature)} bytes where {2 * curve.size} are needed")
    r, s = int.from_bytes(signature[: curve.size]), int.from_bytes(signature[curve.size :])
    if not 1 <= r < curve.order or not 1 <= s < curve.order:
        raise SignatureError("the signature is out of range")
    return encode_dss_signature(r, s)


def _algorithms(key: Jwk) -> tuple[str, ...]:
    """Return what a key signs with, the one for new tokens first."""
    match key.kty, key.curve:
        case "EC", str(curve):
            return (EC_CURVES[curve].algorithm,)
        case "OKP", ("Ed25519" | "Ed448") as curve:
            return ("EdDSA", curve)
        case "oct", _:
            # A shorter secret is weaker than its hash (RFC 7518 section 3.2).
            allowed = tuple(name for name, (_, size) in _HMAC.items() if len(key.secret) >= size)
            if allowed:
                return allowed
            raise SignatureError("a shared secret for signatures has 32 bytes or more")
        case _:
            raise SignatureError(f"{key.curve or key.kty} keys do not sign")


def _segments(token: Mapping[str, str] | str) -> tuple[str, str, str]:
    if isinstance(token, str):
        if len(token) > MAX_TOKEN_BYTES:
            raise SignatureError(f"token longer than {MAX_TOKEN_BYTES} bytes")
        if not token.startswith("{"):
            segments = token.split(".", 3)
            if len(segments) != 3:
                raise SignatureError("no token: three segments are needed")
            return segments[0], segments[1], segments[2]
        try:
            token = json_object_untrusted(token.encode("utf-8"))
        except ValueError as error:
            raise SignatureError(f"no token: {error}") from error
    if not isinstance(token, Mapping):
        raise SignatureError("no token: neither text nor an object")
    if token.keys() != _FLATTENED:
        raise SignatureError(f"a token has exactly the members {', '.join(sorted(_FLATTENED))}")
    if not all(isinstance(value, str) for value in token.values()):
        raise SignatureError("the members of a token are texts")
    if sum(map(len, token.values())) > MAX_TOKEN_BYTES:
        raise SignatureError(f"token longer than {MAX_TOKEN_BYTES} bytes")
    return token["protected"], token["payload"], token["signature"]

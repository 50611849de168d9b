"""Key agreement and key derivation of boxes.

Source: RFC 7518 section 4.6 (ECDH-ES, Concat KDF of NIST SP 800-56A), RFC 8037 section 3.2.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519

from bridge.errors import KeyFormatError
from bridge.jose.curves import AGREEMENT_CURVES
from bridge.jose.key import Jwk


def shared_secret(private: Jwk, public: Jwk) -> bytes:
    """Agree on a secret (Diffie-Hellman).

    Returns:
        The x coordinate, of the curve's full length; never all zero.

    Raises:
        KeyFormatError: different curves, a curve that signs only, no private key, a key of small order.
    """
    # Before any arithmetic: erlang-jose hands a key of another curve to the exchange and never returns.
    if private.curve != public.curve or private.curve not in AGREEMENT_CURVES:
        raise KeyFormatError(f"no key agreement between {private.curve} and {public.curve}")
    ours, theirs = private.private_key, public.public_key
    try:
        if isinstance(ours, ec.EllipticCurvePrivateKey) and isinstance(theirs, ec.EllipticCurvePublicKey):
            return ours.exchange(ec.ECDH(), theirs)
        if isinstance(ours, x25519.X25519PrivateKey) and isinstance(theirs, x25519.X25519PublicKey):
            return ours.exchange(theirs)
        if isinstance(ours, x448.X448PrivateKey) and isinstance(theirs, x448.X448PublicKey):
            return ours.exchange(theirs)
    except ValueError as error:
        raise KeyFormatError("the key agreement gives no secret") from error
    raise AssertionError("unreachable: both keys are of one agreement curve")


def concat_kdf(secret: bytes, *, algorithm: str, apu: bytes, apv: bytes, size: int) -> bytes:
    """Derive a content key (one-step KDF with SHA-256).

    Args:
        secret: what ``shared_secret`` gave.
        algorithm: name of the content encryption, ASCII.
        apu: producer's identity, as in the header after base64url.
        apv: consumer's identity, likewise.
        size: bytes wanted, 1 to 64.
    """
    info = b"".join(len(part).to_bytes(4) + part for part in (algorithm.encode("ascii"), apu, apv))
    info += (size * 8).to_bytes(4)
    rounds = range(1, -(-size // 32) + 1)
    return b"".join(hashlib.sha256(n.to_bytes(4) + secret + info).digest() for n in rounds)[:size]

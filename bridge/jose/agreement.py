"""Key agreement and key derivation of boxes.

Source: RFC 7518 section 4.6 (ECDH-ES, Concat KDF of NIST SP 800-56A), RFC 8037 section 3.2.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from bridge.errors import KeyFormatError
from bridge.jose.curves import AGREEMENT_CURVES, EC_CURVES
from bridge.jose.key import Jwk

_ECDH: Final = ec.ECDH()
_HASH_BYTES: Final = 32


def shared_secret(private: Jwk, public: Jwk) -> bytes:
    """Agree on a secret (Diffie-Hellman).

    Returns:
        The x coordinate, of the curve's full length; never all zero.

    Raises:
        KeyFormatError: different curves, a curve that signs only, no private key, a key of small order.
    """
    curve = private.curve
    # Before any arithmetic: erlang-jose hands a key of another curve to the exchange and never returns.
    if curve != public.curve or curve not in AGREEMENT_CURVES:
        raise KeyFormatError(f"no key agreement between {curve} and {public.curve}")
    # Both are of one curve, so of one kind; looking at their classes takes longer than all else here.
    ours: Any = private.private_key
    theirs: Any = public.public_key
    try:
        secret: bytes = ours.exchange(_ECDH, theirs) if curve in EC_CURVES else ours.exchange(theirs)
    except ValueError as error:
        raise KeyFormatError("the key agreement gives no secret") from error
    return secret


def concat_kdf(secret: bytes, *, algorithm: str, apu: bytes, apv: bytes, size: int) -> bytes:
    """Derive a content key (one-step KDF with SHA-256).

    Args:
        secret: what ``shared_secret`` gave.
        algorithm: name of the content encryption, ASCII.
        apu: producer's identity, as in the header after base64url.
        apv: consumer's identity, likewise.
        size: bytes wanted, 1 to 64.
    """
    name = algorithm.encode("ascii")
    info = b"%b%b%b%b%b%b%b" % (
        len(name).to_bytes(4),
        name,
        len(apu).to_bytes(4),
        apu,
        len(apv).to_bytes(4),
        apv,
        (size * 8).to_bytes(4),
    )
    if size <= _HASH_BYTES:
        return hashlib.sha256(b"\0\0\0\1" + secret + info).digest()[:size]
    rounds = range(1, -(-size // _HASH_BYTES) + 1)
    return b"".join(hashlib.sha256(n.to_bytes(4) + secret + info).digest() for n in rounds)[:size]

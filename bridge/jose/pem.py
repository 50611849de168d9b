"""PEM in and out: SEC1, PKCS#8 and SubjectPublicKeyInfo.

Source: RFC 7468 (textual encodings), RFC 5915 (SEC1), RFC 5208 (PKCS#8), RFC 5480 and RFC 8410 (public keys).
"""

from __future__ import annotations

import re

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x448, x25519

from bridge.errors import KeyFormatError

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | x25519.X25519PrivateKey
    | x448.X448PrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
PublicKey = (
    ec.EllipticCurvePublicKey
    | x25519.X25519PublicKey
    | x448.X448PublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
)

MAX_PEM_BYTES = 16_384
"""A P-521 key takes under 500; the rest is room for the text that tools write around a key."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)


def load_pem_untrusted(pem: bytes) -> PrivateKey | PublicKey:
    """Read the one key of a PEM text; ``EC PARAMETERS`` before it, as openssl writes them, are skipped.

    Raises:
        KeyFormatError: no key or several, an encrypted key, a certificate, a key type or curve not used here.
    """
    if len(pem) > MAX_PEM_BYTES:
        raise KeyFormatError(f"PEM text longer than {MAX_PEM_BYTES} bytes")
    blocks = [match for match in _BLOCK.finditer(pem) if match.group(1) != b"EC PARAMETERS"]
    if len(blocks) != 1:
        raise KeyFormatError(f"PEM text holds {len(blocks)} keys; exactly one is needed")
    label, block = blocks[0].group(1), blocks[0].group(0) + b"\n"
    if label == b"ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in block:
        raise KeyFormatError("the PEM key is encrypted; decrypt it first, for example with 'openssl pkey'")
    try:
        match label:
            case b"EC PRIVATE KEY" | b"PRIVATE KEY":
                private = serialization.load_pem_private_key(block, password=None)
                if isinstance(private, PrivateKey):
                    return private
            case b"PUBLIC KEY":
                public = serialization.load_pem_public_key(block)
                if isinstance(public, PublicKey):
                    return public
            case _:
                raise KeyFormatError(f"PEM block {label.decode('ascii')!r} is no elliptic-curve key")
    # A seed of Ed25519 under the name of Ed448 is, to cryptography, an error of its own (found by fuzzing).
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise KeyFormatError("PEM block does not hold a usable key") from error
    raise KeyFormatError("PEM key is of a type that is not used here")


def private_pem(key: PrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """Write a public key as SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

"""PEM in and out: SEC1, PKCS#8 and SubjectPublicKeyInfo.

Source: RFC 7468 (textual encodings), RFC 5915 (SEC1), RFC 5208 (PKCS#8), RFC 5480 and RFC 8410 (public keys).
"""

from __future__ import annotations

import binascii
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

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)

# How the DER of a key used here begins: a sequence of any length, then as the label says. What else there is
# in PEM is not handed on: of a private RSA key OpenSSL would check the primes, for a minute and more.
_SEQUENCE = rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)"
# ecPublicKey (RFC 5480), then X25519, X448, Ed25519, Ed448 (RFC 8410).
_ALGORITHM = _SEQUENCE + rb"\x06(?:\x07\x2a\x86\x48\xce\x3d\x02\x01|\x03\x2b\x65[\x6e-\x71])"
_BEGINNINGS = {
    b"EC PRIVATE KEY": re.compile(_SEQUENCE + rb"\x02\x01\x01\x04", re.DOTALL),
    b"PRIVATE KEY": re.compile(_SEQUENCE + rb"\x02\x01[\x00\x01]" + _ALGORITHM, re.DOTALL),
    b"PUBLIC KEY": re.compile(_SEQUENCE + _ALGORITHM, re.DOTALL),
}


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
    beginning = _BEGINNINGS.get(label)
    if beginning is None:
        raise KeyFormatError(f"PEM block {label.decode('ascii')!r} is no elliptic-curve key")
    try:
        der = binascii.a2b_base64(b"".join(blocks[0].group(2).split()), strict_mode=True)
        if beginning.match(der) is None:
            raise KeyFormatError("PEM key is of a type that is not used here")
        if label == b"PUBLIC KEY":
            public = serialization.load_pem_public_key(block)
            if isinstance(public, PublicKey):
                return public
        else:
            private = serialization.load_pem_private_key(block, password=None)
            if isinstance(private, PrivateKey):
                return private
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

"""The curves a key may be on: sizes, orders, and the public keys that no honest party has.

Source: RFC 7518 section 6.2 (EC), RFC 8037 (OKP); orders from SEC 2; small-order points from RFC 7748
section 6 and RFC 8032 section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True, kw_only=True)
class EcCurve:
    """A Weierstrass curve: ``size`` is the length of a coordinate and of ``d`` in bytes."""

    name: str
    curve: ec.EllipticCurve
    size: int
    order: int
    algorithm: str
    digest: hashes.HashAlgorithm


EC_CURVES = {
    curve.name: curve
    for curve in (
        EcCurve(
            name="P-256",
            curve=ec.SECP256R1(),
            size=32,
            order=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
            algorithm="ES256",
            digest=hashes.SHA256(),
        ),
        EcCurve(
            name="P-384",
            curve=ec.SECP384R1(),
            size=48,
            order=int(
                "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
                "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
                16,
            ),
            algorithm="ES384",
            digest=hashes.SHA384(),
        ),
        EcCurve(
            name="P-521",
            curve=ec.SECP521R1(),
            size=66,
            order=int(
                "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA"
                "51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
                16,
            ),
            algorithm="ES512",
            digest=hashes.SHA512(),
        ),
    )
}

OKP_SIZES = {"X25519": 32, "X448": 56, "Ed25519": 32, "Ed448": 57}
"""Bytes of a public key and of ``d``."""

AGREEMENT_CURVES = frozenset({"P-256", "P-384", "P-521", "X25519", "X448"})
"""Curves of keys that a box may be sealed to."""

_P25519 = 2**255 - 19
_P448 = 2**448 - 2**224 - 1

# y of the points whose order divides the cofactor. Whoever "signs" with such a key can make one signature
# hold for many messages, and OpenSSL does not look.
_ED25519_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_ED25519_SMALL_ORDER = {0, 1, _P25519 - 1, _ED25519_ORDER_8, _P25519 - _ED25519_ORDER_8}
_ED448_SMALL_ORDER = {0, 1, _P448 - 1}

# u of the points whose order divides the cofactor, on the curve and on its twist: every exchange gives zero.
_X25519_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_X25519_SMALL_ORDER = {0, 1, _P25519 - 1, *_X25519_ORDER_8}
_X448_SMALL_ORDER = {0, 1, _P448 - 1}


def is_weak_okp(curve: str, public: bytes) -> bool:
    """Tell whether a public key is of small order, or an edwards coordinate not below the field's prime.

    The sign bit of an edwards key and the unused bit of an X25519 key do not matter to the question.
    """
    number = int.from_bytes(public, "little")
    match curve:
        case "Ed25519":
            y = number & (2**255 - 1)
            return y >= _P25519 or y in _ED25519_SMALL_ORDER
        case "Ed448":
            y = number & (2**455 - 1)
            return y >= _P448 or y in _ED448_SMALL_ORDER
        case "X25519":
            return (number & (2**255 - 1)) % _P25519 in _X25519_SMALL_ORDER
        case "X448":
            return number % _P448 in _X448_SMALL_ORDER
        case _:
            raise AssertionError(curve)

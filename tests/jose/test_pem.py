from __future__ import annotations

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import KeyFormatError
from bridge.jose import Jwk
from bridge.jose.curves import EC_CURVES
from bridge.jose.encoding import base64url_decode_untrusted
from bridge.jose.pem import MAX_PEM_BYTES, load_pem_untrusted
from tests.support.jose_keys import CURVES

PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


def _private(key: ec.EllipticCurvePrivateKey, password: bytes | None = None, *, sec1: bool = False) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL if sec1 else serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


@pytest.mark.parametrize("curve", CURVES)
def test_keys_read_back_as_they_were_written(curve: str) -> None:
    key = Jwk.generate(curve)
    assert Jwk.from_pem(key.to_pem()) == key
    assert Jwk.from_pem(key.public().to_pem().decode()) == key.public()


def test_sec1_is_read_with_the_parameters_that_openssl_writes_before_it() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert Jwk.from_pem(PARAMETERS + _private(key, sec1=True)) == Jwk.from_pem(_private(key))


@pytest.mark.parametrize("sec1", [False, True])
def test_an_encrypted_key_is_refused_and_the_text_says_what_to_do(sec1: bool) -> None:
    pem = _private(ec.generate_private_key(ec.SECP256R1()), b"secret", sec1=sec1)
    with pytest.raises(KeyFormatError, match="decrypt it first"):
        Jwk.from_pem(pem)


def _armoured(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return f"-----BEGIN {label}-----\n".encode() + body + f"-----END {label}-----\n".encode()


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def test_a_private_half_beside_anothers_public_half_is_refused() -> None:
    one, other = (_der(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    assert Jwk.from_pem(_armoured("EC PRIVATE KEY", one)).is_private
    with pytest.raises(KeyFormatError):
        Jwk.from_pem(_armoured("EC PRIVATE KEY", one[:-64] + other[-64:]))


def _item(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    size = len(body).to_bytes(1 if len(body) < 256 else 2)
    return bytes([tag]) + (size if len(body) < 128 else bytes([0x80 + len(size)]) + size) + body


def _explicit(generator: bytes, point: bytes) -> bytes:
    """A public key that brings the numbers of its curve along (RFC 3279 section 2.3.5): P-256 but for G."""
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = bytes.fromhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b")

    item = _item
    field = item(0x30, bytes.fromhex("06072a8648ce3d0101"), item(2, b"\0", prime.to_bytes(32)))
    curve = item(0x30, item(4, (prime - 3).to_bytes(32)), item(4, b))
    order = item(2, b"\0", EC_CURVES["P-256"].order.to_bytes(32))
    parameters = item(0x30, b"\x02\x01\x01", field, curve, item(4, b"\4", generator), order, b"\x02\x01\x01")
    algorithm = item(0x30, bytes.fromhex("06072a8648ce3d0201"), parameters)
    return _armoured("PUBLIC KEY", item(0x30, algorithm, item(3, b"\0\4", point)))


def test_a_key_on_a_curve_of_its_own_is_refused() -> None:
    """With the point itself for G, its private number is one: anybody signs for it (CVE-2020-0601)."""
    key = Jwk.generate()
    point = base64url_decode_untrusted(key.to_dict()["x"]) + base64url_decode_untrusted(key.to_dict()["y"])
    honest = bytes.fromhex(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    assert Jwk.from_pem(_explicit(honest, point)) == key.public()
    with pytest.raises(KeyFormatError):
        Jwk.from_pem(_explicit(point, point))


def test_a_raw_key_under_the_name_of_another_curve_is_refused() -> None:
    """RFC 8410: the names differ in their last byte, 110 to 113; the sizes do too, or only the name."""
    for curve in ("X25519", "X448", "Ed25519", "Ed448"):
        for key in (Jwk.generate(curve), Jwk.generate(curve).public()):
            label, body = ("PRIVATE KEY" if key.is_private else "PUBLIC KEY"), key.to_pem().split(b"\n")[1:-2]
            der = base64.b64decode(b"".join(body))
            at = der.index(b"\x06\x03\x2b\x65") + 4
            for name in range(110, 114):
                bent = der[:at] + bytes([name]) + der[at + 1 :]
                with contextlib.suppress(KeyFormatError):
                    assert Jwk.from_pem(_armoured(label, bent)).curve is not None


def test_two_keys_in_one_text_are_refused() -> None:
    pem = _private(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(KeyFormatError, match="2 keys"):
        Jwk.from_pem(pem + pem)


def test_keys_of_other_kinds_are_refused() -> None:
    with pytest.raises(KeyFormatError, match="not used here"):
        Jwk.from_pem(_private(ec.generate_private_key(ec.SECP256K1())))
    rsa_key = rsa.generate_private_key(65537, 2048)
    for pem in (
        rsa_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        rsa_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
        rsa_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"",
        b"no key",
    ):
        with pytest.raises(KeyFormatError):
            Jwk.from_pem(pem)


def test_a_key_of_another_kind_is_never_handed_to_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would check the primes of a private RSA key: with Mersenne's of some 4,000 bits, a minute."""
    numbers = [0, 3, 65537, 5, 2**4423 - 1, 2**4253 - 1, 7, 7, 7]
    integers = [number.to_bytes(number.bit_length() // 8 + 1) for number in numbers]
    key = _item(0x30, *(_item(2, integer) for integer in integers))
    rsa_encryption = _item(0x30, bytes.fromhex("06092a864886f70d0101010500"))
    named_curve = _item(0x30, bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107"))

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("handed on")

    for name in ("load_pem_private_key", "load_pem_public_key"):
        monkeypatch.setattr(serialization, name, reached)
    for label, der in (
        ("PRIVATE KEY", _item(0x30, _item(2, b"\0"), rsa_encryption, _item(4, key))),
        ("PRIVATE KEY", key),
        ("EC PRIVATE KEY", key),
        ("PUBLIC KEY", _item(0x30, rsa_encryption, _item(3, b"\0", key))),
        ("PUBLIC KEY", _item(0x30, _item(2, b"\0"), named_curve)),
        ("PRIVATE KEY", _item(0x30, named_curve)),
    ):
        with pytest.raises(KeyFormatError, match="not used here"):
            Jwk.from_pem(_armoured(label, der))
    with pytest.raises(AssertionError, match="handed on"):
        Jwk.from_pem(Jwk.generate().to_pem())


@pytest.mark.parametrize("between", ["", "\n", "=\n", "Key: value\n\n", "é", "-\n"])
def test_what_is_no_base64_is_no_key(between: str) -> None:
    first, *rest = Jwk.generate().public().to_pem().decode().splitlines(keepends=True)
    text = "".join([first, rest[0][:-1], between, *rest[1:]])
    if between.strip():
        with pytest.raises(KeyFormatError, match="usable key"):
            Jwk.from_pem(text)
    else:
        assert Jwk.from_pem(text.replace("\n", "\r\n")).curve == "P-256"


def test_a_public_key_of_small_order_is_refused() -> None:
    pem = ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31)).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(KeyFormatError, match="small order"):
        Jwk.from_pem(pem)


def test_the_size_of_a_text_is_bounded() -> None:
    pem = _private(ec.generate_private_key(ec.SECP256R1()))
    padding = MAX_PEM_BYTES - len(pem)
    Jwk.from_pem(b" " * padding + pem)
    with pytest.raises(KeyFormatError, match="longer"):
        Jwk.from_pem(b" " * (padding + 1) + pem)


_PEMS = [Jwk.generate(curve).to_pem() for curve in CURVES] + [
    Jwk.generate(curve).public().to_pem() for curve in CURVES
]


@given(st.sampled_from(_PEMS), st.integers(0, 200), st.binary(max_size=4))
def test_an_altered_text_is_a_key_or_a_key_format_error(pem: bytes, at: int, patch: bytes) -> None:
    with contextlib.suppress(KeyFormatError):
        load_pem_untrusted(pem[:at] + patch + pem[at + len(patch) :])

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import KeyFormatError
from bridge.jose import Jwk
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

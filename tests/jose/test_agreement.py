from __future__ import annotations

import pytest

from bridge.errors import KeyFormatError
from bridge.jose import Jwk, shared_secret
from bridge.jose.agreement import concat_kdf
from bridge.jose.encoding import base64url_encode
from tests.support.jose_keys import KEYS

# RFC 7518 appendix C.
ALICE = Jwk.from_dict(
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
        "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
        "d": "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo",
    }
)
BOB = Jwk.from_dict(
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
        "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
        "d": "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
    }
)


def test_the_example_of_the_standard_gives_its_key() -> None:
    secret = shared_secret(ALICE, BOB.public())
    assert secret == shared_secret(BOB, ALICE.public())
    key = concat_kdf(secret, algorithm="A128GCM", apu=b"Alice", apv=b"Bob", size=16)
    assert base64url_encode(key) == "VqqN6vgjbSBcIijNcacQGg"


def test_a_longer_key_starts_with_a_hash_of_its_own_length() -> None:
    keys = {
        size: concat_kdf(b"z" * 32, algorithm="A256CBC-HS512", apu=b"", apv=b"", size=size)
        for size in (32, 48, 64)
    }
    assert {size: len(key) for size, key in keys.items()} == {32: 32, 48: 48, 64: 64}
    assert not keys[64].startswith(keys[32])


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521", "X25519", "X448"])
def test_both_sides_agree(curve: str) -> None:
    other = Jwk.generate(curve)
    assert shared_secret(KEYS[curve], other.public()) == shared_secret(other, KEYS[curve].public())


@pytest.mark.parametrize(
    ("private", "public"),
    [("P-256", "X25519"), ("X25519", "P-256"), ("P-256", "P-384"), ("Ed25519", "Ed25519")],
)
def test_keys_of_other_curves_never_reach_the_exchange(private: str, public: str) -> None:
    with pytest.raises(KeyFormatError, match="no key agreement"):
        shared_secret(KEYS[private], KEYS[public].public())


def test_a_public_key_agrees_on_nothing() -> None:
    with pytest.raises(KeyFormatError, match="private"):
        shared_secret(KEYS["P-256"].public(), KEYS["P-256"].public())

from __future__ import annotations

import pytest

from bridge.errors import KeyFormatError
from bridge.jose import Jwk, box_decrypt, shared_secret
from bridge.jose.agreement import concat_kdf
from bridge.jose.content import CONTENT_ENCRYPTIONS
from bridge.jose.encoding import base64url_encode, json_encode
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


# draft-madden-jose-ecdh-1pu-04 appendix A: the same recipient and ephemeral key, and a sender's static one.
SENDER = Jwk.from_dict(
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis",
        "y": "y77t-RvAHRKTsSGdIYUfweuOvwrvDD-Q3Hv5J0fSKbE",
        "d": "Hndv7ZZjs_ke8o9zXYo3iq-Yr8SewI5vrqd0pAvEPqg",
    }
)
ONE_PASS_KEY = bytes.fromhex("6caf13723d14850ad4b42cd6dde935bffd2fff00a9ba70de05c203a5e1722ca7")


def test_the_example_of_the_one_pass_draft_gives_its_key() -> None:
    ephemeral, static = shared_secret(BOB, ALICE.public()), shared_secret(BOB, SENDER.public())
    assert ephemeral.hex() == "9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4"
    assert static.hex() == "e3ca3474384c9f62b30bfd4c688b3e7d4110a1b4badc3cc54ef7b81241efd50d"
    key = concat_kdf(ephemeral + static, algorithm="A256GCM", apu=b"Alice", apv=b"Bob", size=32)
    assert key == ONE_PASS_KEY


def test_a_box_under_the_key_of_the_one_pass_draft_opens() -> None:
    protected = base64url_encode(
        json_encode(
            {
                "alg": "ECDH-1PU",
                "enc": "A256GCM",
                "apu": "QWxpY2U",
                "apv": "Qm9i",
                "epk": ALICE.public().to_dict(),
            }
        )
    )
    ciphertext, tag = CONTENT_ENCRYPTIONS["A256GCM"].seal(ONE_PASS_KEY, bytes(12), b"x", protected.encode())
    segments = (protected, "", *map(base64url_encode, (bytes(12), ciphertext, tag)))
    assert box_decrypt(".".join(segments), BOB, SENDER.public()) == b"x"


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

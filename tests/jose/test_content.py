from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BoxError
from bridge.jose.content import CONTENT_ENCRYPTIONS

NAMES = sorted(CONTENT_ENCRYPTIONS)


@given(st.sampled_from(NAMES), st.binary(max_size=100), st.binary(max_size=20))
def test_what_was_sealed_opens(name: str, plaintext: bytes, aad: bytes) -> None:
    enc = CONTENT_ENCRYPTIONS[name]
    key, iv = bytes(range(enc.key_size)), bytes(enc.iv_size)
    ciphertext, tag = enc.seal(key, iv, plaintext, aad)
    assert len(tag) == enc.tag_size
    assert enc.open(key, iv, ciphertext, tag, aad) == plaintext


@given(st.sampled_from(NAMES), st.data())
def test_any_flipped_bit_is_refused(name: str, data: st.DataObject) -> None:
    enc = CONTENT_ENCRYPTIONS[name]
    key, iv, aad = bytes(range(enc.key_size)), bytes(enc.iv_size), b"header"
    ciphertext, tag = enc.seal(key, iv, b"plaintext", aad)
    parts = [iv, ciphertext, tag, aad]
    which = data.draw(st.integers(0, 3))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    altered = bytearray(parts[which])
    altered[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(altered)
    with pytest.raises(BoxError, match="altered"):
        enc.open(key, *parts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("off", [-1, 1])
def test_iv_and_tag_have_one_length(name: str, off: int) -> None:
    enc = CONTENT_ENCRYPTIONS[name]
    key, iv = bytes(enc.key_size), bytes(enc.iv_size)
    ciphertext, tag = enc.seal(key, iv, b"", b"")
    for iv_size, tag_size in ((enc.iv_size + off, enc.tag_size), (enc.iv_size, enc.tag_size + off)):
        with pytest.raises(BoxError, match="needs"):
            enc.open(key, bytes(iv_size), ciphertext, (tag + b"\0")[:tag_size], b"")


def test_a_cbc_box_by_a_holder_of_the_key_without_whole_blocks_is_refused() -> None:
    enc = CONTENT_ENCRYPTIONS["A128CBC-HS256"]
    key, iv = bytes(32), bytes(16)
    for ciphertext in (b"", b"x" * 15, bytes(16)):
        with pytest.raises(BoxError, match="whole blocks"):
            enc.open(key, iv, ciphertext, enc._cbc_tag(key, iv, ciphertext, b""), b"")


def test_aes_128_cbc_hmac_gives_the_tag_of_the_standard() -> None:
    """RFC 7518 appendix B.1."""
    enc = CONTENT_ENCRYPTIONS["A128CBC-HS256"]
    plaintext = (
        b"A cipher system must not be required to be secret, and it must be able to fall into the hands of "
        b"the enemy without inconvenience"
    )
    iv = bytes.fromhex("1af38c2dc2b96ffdd86694092341bc04")
    ciphertext, tag = enc.seal(bytes(range(32)), iv, plaintext, b"The second principle of Auguste Kerckhoffs")
    assert ciphertext.hex().startswith("c80edfa32ddf39d5ef00c0b468834279")
    assert tag.hex() == "652c3fa36b0a7c5b3219fab3a30bc1c4"

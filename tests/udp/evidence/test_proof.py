from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError
from bridge.udp.evidence.proof import (
    DEPTH_AT,
    PATH_AT,
    SALT_AT,
    SIGNATURE_AT,
    ProofFields,
    parse_proof_untrusted,
    root_message,
)
from bridge.udp.evidence.tree import path_length
from bridge.udp.frames import (
    MAX_PROOF_BYTES,
)
from tests.support.proofs import encode_proof


@st.composite
def proofs(draw: st.DrawFn) -> ProofFields:
    size = draw(st.integers(1, 1024))
    index = draw(st.integers(0, size - 1))
    length = 32 * path_length(index, size)
    return ProofFields(
        size,
        index,
        draw(st.integers(0, 2**64 - 1)),
        draw(st.binary(min_size=16, max_size=16)),
        draw(st.binary(min_size=64, max_size=64)),
        draw(st.binary(min_size=length, max_size=length)),
    )


@given(proofs())
def test_what_was_written_is_read(proof: ProofFields) -> None:
    frame = encode_proof(proof)
    assert parse_proof_untrusted(frame) == proof
    assert len(frame) <= MAX_PROOF_BYTES == 414


def test_the_frame_has_the_bytes_that_the_protocol_states() -> None:
    frame = encode_proof(ProofFields(3, 2, 0x0102030405060708, b"s" * 16, b"g" * 64, b"p" * 32))
    assert frame == b"\x0b\0\x03\0\x02" + bytes(range(1, 9)) + b"s" * 16 + b"g" * 64 + b"\x01" + b"p" * 32
    assert (frame[SALT_AT], frame[SIGNATURE_AT], frame[DEPTH_AT], frame[PATH_AT]) == (115, 103, 1, 112)


@given(proofs(), st.integers(0, MAX_PROOF_BYTES))
def test_a_frame_cut_short_or_with_more_behind_it_is_refused(proof: ProofFields, size: int) -> None:
    frame = encode_proof(proof)
    for altered in (frame[: min(size, len(frame) - 1)], frame + b"\0", frame + bytes(32)):
        with pytest.raises(DecodeError):
            parse_proof_untrusted(altered)


@pytest.mark.parametrize(
    ("size", "index", "hashes"),
    [(0, 0, 0), (1, 1, 0), (1025, 0, 11), (2, 0, 0), (2, 0, 2), (3, 2, 2), (4, 3, 1)],
)
def test_a_leaf_that_the_tree_does_not_have_is_refused(size: int, index: int, hashes: int) -> None:
    frame = encode_proof(ProofFields(size, index, 0, bytes(16), bytes(64), bytes(32 * hashes)))
    with pytest.raises(DecodeError, match="leaf that its tree does not have"):
        parse_proof_untrusted(frame)


def test_another_frame_is_no_proof() -> None:
    with pytest.raises(DecodeError):
        parse_proof_untrusted(b"\x03" + encode_proof(ProofFields(1, 0, 0, bytes(16), bytes(64), b""))[1:])


@given(st.binary(max_size=500))
def test_any_bytes_are_a_proof_or_refused(frame: bytes) -> None:
    try:
        proof = parse_proof_untrusted(b"\x0b" + frame)
    except DecodeError:
        return
    assert encode_proof(proof) == b"\x0b" + frame


def test_the_root_message_is_the_one_that_the_protocol_states() -> None:
    assert root_message(b"t" * 32, 3, 5, b"r" * 32) == (
        b"khepri-bridge evidence v1\0" + b"t" * 32 + b"\x01" + b"\0\x03" + b"\0" * 7 + b"\x05" + b"r" * 32
    )

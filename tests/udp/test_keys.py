from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from bridge.errors import BoxError
from bridge.udp.keys import Aead, derive_session_keys, transcript_hash

LABEL = b"khepri-bridge udp v2 "


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, LABEL + label).derive(secret)


def test_the_schedule_is_hkdf_of_rfc_5869() -> None:
    secret, transcript = bytes(range(32)), bytes(range(32, 64))
    keys = derive_session_keys(shared_secret=secret, transcript=transcript)
    for name, direction in (("initiator", keys.initiator), ("responder", keys.responder)):
        traffic = HKDF(hashes.SHA256(), 32, transcript, LABEL + name.encode() + b" secret 0").derive(secret)
        assert direction.key == expand(traffic, b"key", 16)
        assert direction.iv == expand(traffic, b"iv", 12)


def test_directions_transcripts_and_secrets_all_give_other_keys() -> None:
    schedules = [
        derive_session_keys(shared_secret=secret, transcript=transcript)
        for secret in (bytes(32), bytes(31) + b"\1")
        for transcript in (bytes(32), bytes(31) + b"\1")
    ]
    keys = {direction.key for schedule in schedules for direction in (schedule.initiator, schedule.responder)}
    assert len(keys) == 8


def test_the_transcript_binds_both_boxes_and_where_one_ends() -> None:
    assert (
        len({transcript_hash(b"a", b"bc"), transcript_hash(b"ab", b"c"), transcript_hash(b"c", b"ab")}) == 3
    )


def test_what_is_sealed_opens_only_under_its_sequence_and_header() -> None:
    aead = Aead(derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator)
    sealed = aead.seal(5, b"plain", b"header")
    assert aead.open(5, sealed, b"header") == b"plain"
    for sequence, header in ((6, b"header"), (5, b"Header")):
        with pytest.raises(BoxError):
            aead.open(sequence, sealed, header)


def test_the_nonce_takes_all_64_bits_of_a_sequence() -> None:
    aead = Aead(derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator)
    last = (1 << 64) - 1
    assert aead.open(last, aead.seal(last, b"x", b""), b"") == b"x"

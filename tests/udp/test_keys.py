from __future__ import annotations

from random import Random

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BoxError
from bridge.udp.keys import (
    Aead,
    DirectionKeys,
    OpeningPhases,
    SealingPhases,
    derive_session_keys,
    open_by_copy,
    seal_by_copy,
    transcript_hash,
)
from bridge.udp.wire import (
    DATA,
    DATA_HEADER,
)

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


def phase_zero() -> DirectionKeys:
    return derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator


def test_each_secret_gives_the_next_by_hkdf() -> None:
    keys = phase_zero()
    after = keys.next_phase()
    assert after.secret == expand(keys.secret, b"next secret", 32)
    assert after.key == expand(after.secret, b"key", 16)
    assert after.iv == expand(after.secret, b"iv", 12)


def test_keys_do_not_show_when_printed() -> None:
    assert repr(phase_zero()) == "DirectionKeys()"


class End:
    """One end of a session, as far as keys go: seals, opens, and acknowledges all it opened."""

    def __init__(self, sending: DirectionKeys, receiving: DirectionKeys, *, every: int) -> None:
        self.sealing = SealingPhases(sending, after_datagrams=every, after_seconds=1e9, now=0.0)
        self.opening = OpeningPhases(receiving)
        self.next_sequence = 0
        self.largest = -1
        self.opened: set[int] = set()

    def seal(self, *, now: float = 0.0) -> bytes:
        self.sealing.prepare(self.next_sequence, follow=self.opening.phase, now=now)
        header = DATA_HEADER.pack(self.sealing.first_byte, 0, self.next_sequence)
        self.next_sequence += 1
        plaintext = self.largest.to_bytes(8, "big", signed=True)
        return header + self.sealing.aead.seal(self.next_sequence - 1, plaintext, header)

    def open(self, datagram: bytes, *, now: float = 0.0, keep: float = 1e9) -> None:
        header, ciphertext = datagram[: DATA_HEADER.size], datagram[DATA_HEADER.size :]
        first, _, sequence = DATA_HEADER.unpack(header)
        if first == self.opening.first_byte:
            plaintext = self.opening.aead.open(sequence, ciphertext, header)
        else:
            plaintext = self.opening.open_other(
                sequence, ciphertext, header, sealing_phase=self.sealing.phase, now=now, keep=keep
            )
        self.opened.add(sequence)
        self.largest = max(self.largest, sequence)
        self.sealing.acknowledge(int.from_bytes(plaintext, "big", signed=True))


def ends(*, every: int = 3) -> tuple[End, End]:
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32))
    return (
        End(keys.initiator, keys.responder, every=every),
        End(keys.responder, keys.initiator, every=1 << 40),
    )


def round_trip(a: End, b: End) -> None:
    b.open(a.seal())
    a.open(b.seal())


def test_a_phase_ends_after_its_datagrams_and_the_peer_follows() -> None:
    a, b = ends(every=3)
    for _ in range(30):
        round_trip(a, b)
    assert a.sealing.phase == b.opening.phase == 9
    assert b.sealing.phase == a.opening.phase == 9


def test_a_phase_ends_after_its_time() -> None:
    sealing = SealingPhases(phase_zero(), after_datagrams=1 << 40, after_seconds=60.0, now=5.0)
    sealing.acknowledge(0)
    sealing.prepare(1, follow=0, now=64.9)
    assert sealing.phase == 0
    sealing.prepare(1, follow=0, now=65.0)
    assert (sealing.phase, sealing.first_byte, sealing.first_sequence) == (1, DATA | 1, 1)
    sealing.prepare(2, follow=0, now=200.0)
    assert sealing.phase == 1


def test_nobody_moves_on_before_the_peer_opened_something_of_the_phase() -> None:
    a, b = ends(every=1)
    datagrams = [a.seal() for _ in range(5)]
    assert a.sealing.phase == 0
    b.open(datagrams[-1])
    a.open(b.seal())
    a.seal()
    a.seal()
    assert a.sealing.phase == 1


def test_all_that_is_reordered_across_a_change_opens() -> None:
    a, b = ends(every=3)
    round_trip(a, b)
    datagrams = [a.seal() for _ in range(6)]
    assert {datagram[0] for datagram in datagrams} == {DATA, DATA | 1}
    for datagram in reversed(datagrams):
        b.open(datagram)
    assert b.opened == set(range(7))
    assert b.opening.phase == 1


@given(st.integers(0, 1 << 32), st.integers(1, 4))
def test_any_order_within_a_round_trip_opens_all_and_never_more_than_one_phase_apart(
    seed: int, every: int
) -> None:
    random = Random(seed)
    a, b = ends(every=every)
    b.sealing = SealingPhases(b.sealing._keys, after_datagrams=every + 1, after_seconds=1e9, now=0.0)
    for _ in range(20):
        batches = [[end.seal() for _ in range(random.randrange(1, 6))] for end in (a, b)]
        for batch, target in zip(batches, (b, a), strict=True):
            random.shuffle(batch)
            for datagram in batch:
                target.open(datagram)
        assert abs(a.sealing.phase - b.sealing.phase) <= 1
    assert len(b.opened) == a.next_sequence
    assert len(a.opened) == b.next_sequence
    assert a.sealing.phase > 1


def test_the_keys_before_are_kept_for_their_time_and_no_longer() -> None:
    a, b = ends(every=2)
    round_trip(a, b)
    late = a.seal()
    changed = [a.seal() for _ in range(2)][-1]
    b.open(changed, now=10.0, keep=3.0)
    assert b.opening.phase == 1
    b.opening.forget_previous(now=12.9)
    b.open(late, now=12.9)
    b.opening.forget_previous(now=13.0)
    with pytest.raises(BoxError, match="over"):
        b.open(late, now=13.0)


def test_a_forged_phase_bit_changes_nothing() -> None:
    a, b = ends()
    honest = a.seal()
    with pytest.raises(BoxError):
        b.open(bytes([DATA | 1]) + honest[1:])
    assert b.opening.phase == 0
    b.open(honest)


def test_the_next_keys_displace_the_present_ones_only_once_they_opened_something() -> None:
    a, b = ends(every=1)
    round_trip(a, b)
    changed = a.seal()
    assert changed[0] == DATA | 1
    with pytest.raises(BoxError):
        b.open(changed[:-1] + bytes([changed[-1] ^ 1]))
    assert (b.opening.phase, b.opening.first_byte) == (0, DATA)
    b.open(changed)
    assert (b.opening.phase, b.opening.first_byte) == (1, DATA | 1)


def test_a_peer_two_phases_ahead_of_our_own_sealing_is_refused() -> None:
    a, b = ends(every=1)
    while a.sealing.phase < 2:
        a.sealing.acknowledge(a.next_sequence)
        changed = a.seal()
        if a.sealing.phase == 1:
            b.open(changed)
    assert (a.sealing.phase, b.opening.phase, b.sealing.phase) == (2, 1, 0)
    with pytest.raises(BoxError, match="cannot have been reached"):
        b.open(changed)
    b.seal()
    b.open(changed)
    assert b.opening.phase == 2


def test_the_room_in_a_phase_is_counted_from_its_first_datagram() -> None:
    a, b = ends(every=2)
    round_trip(a, b)
    round_trip(a, b)
    a.seal()
    assert a.sealing.phase == 1
    assert a.sealing.room(a.next_sequence, 10) == 9


@pytest.mark.parametrize("sealing", ["library", "copy"])
@pytest.mark.parametrize("opening", ["library", "copy"])
def test_a_run_is_the_same_with_and_without_a_library_that_seals_into_given_memory(
    monkeypatch: pytest.MonkeyPatch, sealing: str, opening: str
) -> None:
    """Debian 13's cryptography is older than 47."""
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32)).initiator
    aead = Aead(keys)
    sequences = np.arange(5, 8, dtype=np.uint64)
    plaintexts = [memoryview(bytes([n]) * 40) for n in range(3)]
    headers = [memoryview(bytes([n]) * 13) for n in range(3)]
    sealed = [memoryview(bytearray(56)) for _ in range(3)]
    opened = [memoryview(bytearray(40)) for _ in range(3)]
    with monkeypatch.context() as patched:
        if sealing == "copy":
            patched.setattr("bridge.udp.keys._SEAL_INTO", seal_by_copy)
        if opening == "copy":
            patched.setattr("bridge.udp.keys._OPEN_INTO", open_by_copy)
        aead.seal_run(sequences, plaintexts, headers, sealed)
        aead.open_run(sequences, sealed, headers, opened)
        assert [bytes(one) for one in opened] == [bytes(one) for one in plaintexts]
        sealed[1][0] ^= 1
        with pytest.raises(BoxError):
            aead.open_run(sequences, sealed, headers, opened)
    assert bytes(sealed[2]) == aead.seal(7, bytes(plaintexts[2]), bytes(headers[2]))

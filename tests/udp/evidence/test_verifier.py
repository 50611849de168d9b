from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import SignatureError
from bridge.jose import Jwk
from bridge.udp.bucket import TokenBucket
from bridge.udp.evidence.proof import DEPTH_AT, PATH_AT, SIGNATURE_AT
from bridge.udp.evidence.signer import TickSigner, Unsigned
from bridge.udp.evidence.tree import Matrix
from bridge.udp.evidence.verifier import ProofVerifier, verify_datagram

SENDER = Jwk.generate()
PUBLIC = SENDER.public()
OTHER = Jwk.generate().public()
RECIPIENT = bytes(range(32))
SESSION = b"session id 16 by"
WIDTH = 40


class Tick(NamedTuple):
    """Rows of one size: sequences, and plaintexts with their PROOF frames."""

    sequences: npt.NDArray[np.uint64]
    rows: Matrix


def tick(count: int, *, before: int = 0, after: int = 0, first: int = 0, moment: int = 1) -> list[Tick]:
    """``count`` datagrams of our session among those of others, in ticks of one row size."""
    chance = random.Random(count)
    plaintexts = np.frombuffer(chance.randbytes(count * WIDTH), dtype=np.uint8).reshape(count, WIDTH)
    waiting = [
        Unsigned(bytes(32), bytes(16), 0, np.zeros((before, 30), dtype=np.uint8)),
        Unsigned(RECIPIENT, SESSION, first, plaintexts),
        *[Unsigned(bytes(32), bytes(16), number, b"single") for number in range(after)],
    ]
    salts = chance.randbytes(16 * (before + count + after))
    parts = TickSigner(SENDER).sign(waiting, sealed_at_ms=moment, salts=salts)[1]
    ticks = []
    done = 0
    for part in parts:
        sequences = np.arange(first + done, first + done + len(part), dtype=np.uint64)
        ticks.append(Tick(sequences, np.hstack([plaintexts[done : done + len(part)], part])))
        done += len(part)
    return ticks


def verifier(
    *, sender: Jwk = PUBLIC, recipient: bytes = RECIPIENT, session_id: bytes = SESSION, burst: int = 10_000
) -> ProofVerifier:
    return ProofVerifier(
        sender=sender,
        recipient=recipient,
        session_id=session_id,
        checks=TokenBucket(rate=1.0, burst=burst),
    )


def flat(ticks: list[Tick]) -> list[tuple[int, bytes]]:
    return [
        (int(sequence), row.tobytes())
        for part in ticks
        for sequence, row in zip(part.sequences, part.rows, strict=True)
    ]


def check(sequence: int, row: bytes, **changed: bytes | Jwk) -> None:
    named: dict[str, object] = {"sender": PUBLIC, "recipient": RECIPIENT, "session_id": SESSION, **changed}
    verify_datagram(sequence=sequence, plaintext=row[:WIDTH], proof=row[WIDTH:], **named)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 1100), st.integers(0, 40), st.integers(0, 40))
def test_what_was_signed_is_proven_with_one_check_for_each_tree(count: int, before: int, after: int) -> None:
    ours = verifier()
    for part in tick(count, before=before, after=after):
        assert ours.verify(part.sequences, part.rows, WIDTH, now=0.0).all()
    assert ours.signatures_checked == (1 if before + count <= 1024 else 2)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(0, 40), st.randoms(use_true_random=False))
def test_any_of_them_in_any_order_are_proven_whatever_was_lost(
    count: int, before: int, chance: random.Random
) -> None:
    ours = verifier()
    for sequences, rows in tick(count, before=before):
        arrived = [place for place in range(len(rows)) if chance.random() < 0.7]
        for _ in range(3):
            a, b = chance.randrange(len(rows)), chance.randrange(len(rows))
            if a in arrived and b in arrived:
                arrived[arrived.index(a)], arrived[arrived.index(b)] = b, a
        while arrived:
            cut = chance.randint(1, len(arrived))
            run, arrived = arrived[:cut], arrived[cut:]
            assert ours.verify(sequences[run], rows[run], WIDTH, now=0.0).all()
    assert ours.signatures_checked <= 1


@pytest.mark.parametrize(("count", "before"), [(1, 0), (1, 1), (5, 3)])
def test_every_bit_of_a_datagram_and_its_proof_matters(count: int, before: int) -> None:
    part = tick(count, before=before)[0]
    genuine = part.rows[0].tobytes()
    ours = verifier(burst=1 << 20)
    for position in range(len(genuine)):
        for bit in range(8):
            altered = bytearray(genuine)
            altered[position] ^= 1 << bit
            row = np.frombuffer(bytes(altered), dtype=np.uint8).reshape(1, -1)
            assert not ours.verify_one(int(part.sequences[0]), bytes(altered), WIDTH, now=0.0)
            assert not ours.verify(part.sequences[:1], row, WIDTH, now=0.0).any()
            with pytest.raises(SignatureError):
                check(int(part.sequences[0]), bytes(altered))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.integers(0, 40))
def test_one_by_one_they_are_proven_with_one_check_too(count: int, before: int) -> None:
    ours = verifier()
    for sequence, row in flat(tick(count, before=before)):
        assert ours.verify_one(sequence, row, WIDTH, now=0.0)
        assert not ours.verify_one(sequence + 1, row, WIDTH, now=0.0)
    assert ours.signatures_checked == 1


@settings(deadline=None)
@given(st.integers(2, 100), st.integers(0, 20), st.data())
def test_an_altered_datagram_takes_none_of_its_neighbours_with_it(
    count: int, before: int, data: st.DataObject
) -> None:
    part = tick(count, before=before)[0]
    rows = part.rows.copy()
    altered = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    for row in altered:
        position = data.draw(st.integers(0, rows.shape[1] - 1))
        rows[row, position] ^= 1 << data.draw(st.integers(0, 7))
    proven = verifier().verify(part.sequences, rows, WIDTH, now=0.0)
    assert set(np.flatnonzero(~proven).tolist()) == altered


@pytest.mark.parametrize(
    "changed",
    [
        {"sender": OTHER},
        {"recipient": bytes(32)},
        {"session_id": bytes(16)},
        {"sender": Jwk.generate("Ed25519")},
    ],
    ids=["sender", "recipient", "session", "kind of key"],
)
def test_another_sender_recipient_or_session_proves_nothing(changed: dict[str, object]) -> None:
    for sequence, row in flat(tick(5)):
        check(sequence, row)
        with pytest.raises(SignatureError):
            check(sequence, row, **changed)  # type: ignore[arg-type]


def test_another_recipient_or_session_is_refused_on_the_data_path_too() -> None:
    part = tick(4)[0]
    for ours in (verifier(sender=OTHER), verifier(recipient=bytes(32)), verifier(session_id=bytes(16))):
        assert not ours.verify(part.sequences, part.rows, WIDTH, now=0.0).any()


def test_another_sequence_proves_nothing() -> None:
    part = tick(4)[0]
    assert not verifier().verify(part.sequences + np.uint64(1), part.rows, WIDTH, now=0.0).any()
    with pytest.raises(SignatureError):
        check(1, flat([part])[0][1])


def test_the_path_of_one_tick_proves_nothing_of_another() -> None:
    one, other = tick(8, moment=1)[0], tick(8, moment=2)[0]
    mixed = one.rows.copy()
    mixed[:, WIDTH + SIGNATURE_AT : WIDTH + DEPTH_AT] = other.rows[:, WIDTH + SIGNATURE_AT : WIDTH + DEPTH_AT]
    ours = verifier()
    assert ours.verify(other.sequences, other.rows, WIDTH, now=0.0).all()
    assert not ours.verify(one.sequences, mixed, WIDTH, now=0.0).any()


def test_ticks_that_arrive_mixed_are_proven_with_one_check_each() -> None:
    one, other = tick(8, moment=1)[0], tick(8, moment=2)[0]
    rows = np.stack([one.rows, other.rows], axis=1).reshape(16, -1)
    ours = verifier()
    assert ours.verify(np.repeat(one.sequences, 2), rows, WIDTH, now=0.0).all()
    assert ours.signatures_checked == 2


def test_a_path_that_is_only_its_neighbours_does_not_pass_as_ones_own() -> None:
    """The first row's path is what the run is climbed with; the others' must hold as well."""
    part = tick(4)[0]
    rows = part.rows.copy()
    rows[1, WIDTH + PATH_AT :] = rows[0, WIDTH + PATH_AT :]
    assert verifier().verify(part.sequences, rows, WIDTH, now=0.0).tolist() == [True, False, True, True]


def test_a_node_is_not_taken_for_a_leaf() -> None:
    """A tree of four shown as one of two, with the inner nodes as leaves: the size is signed."""
    part = tick(4)[0]
    row = part.rows[:1].copy()
    shortened = row[:, :-32].copy()
    shortened[0, WIDTH + 2] = 2
    shortened[0, WIDTH + DEPTH_AT] = 1
    assert not verifier().verify(part.sequences[:1], shortened, WIDTH, now=0.0).any()


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 64, PATH_AT, PATH_AT + 64])
def test_a_frame_of_an_impossible_length_proves_nothing(cut: int) -> None:
    part = tick(4)[0]
    rows = part.rows[:, : part.rows.shape[1] - cut].copy()
    proven = verifier().verify(part.sequences, rows, WIDTH, now=0.0)
    assert proven.tolist() == [cut == 0] * 4


def test_a_path_deeper_than_any_tree_proves_nothing() -> None:
    rows = np.zeros((1, WIDTH + PATH_AT + 11 * 32), dtype=np.uint8)
    assert not verifier().verify(np.zeros(1, dtype=np.uint64), rows, WIDTH, now=0.0).any()


def test_one_forged_tree_costs_one_check() -> None:
    part = tick(64)[0]
    rows = part.rows.copy()
    rows[:, WIDTH + SIGNATURE_AT + 40] ^= 1
    ours = verifier()
    for _ in range(3):
        assert not ours.verify(part.sequences, rows, WIDTH, now=0.0).any()
    assert ours.signatures_checked == 1


def test_checks_are_bounded_and_known_roots_cost_none() -> None:
    ours = verifier(burst=2)
    known, second, third = (tick(4, moment=moment)[0] for moment in range(3))
    assert ours.verify(known.sequences, known.rows, WIDTH, now=0.0).all()
    assert ours.verify(second.sequences, second.rows, WIDTH, now=0.0).all()
    assert not ours.verify(third.sequences, third.rows, WIDTH, now=0.5).any()
    assert ours.verify(known.sequences, known.rows, WIDTH, now=0.5).all()
    assert ours.verify(third.sequences, third.rows, WIDTH, now=1.0).all()
    assert ours.signatures_checked == 3


def test_what_is_remembered_of_roots_is_bounded() -> None:
    ours = verifier()
    ticks = [tick(1, moment=moment)[0] for moment in range(70)]
    for part in ticks:
        assert ours.verify(part.sequences, part.rows, WIDTH, now=0.0).all()
        forged = part.rows.copy()
        forged[:, WIDTH + SIGNATURE_AT + 40] ^= 1
        assert not ours.verify(part.sequences, forged, WIDTH, now=0.0).any()
    assert ours.signatures_checked == 140
    assert ours.verify(ticks[-1].sequences, ticks[-1].rows, WIDTH, now=0.0).all()
    assert ours.signatures_checked == 140
    assert ours.verify(ticks[0].sequences, ticks[0].rows, WIDTH, now=0.0).all()
    assert ours.signatures_checked == 141


def test_an_offline_check_tells_what_is_wrong() -> None:
    sequence, row = flat(tick(2))[0]
    with pytest.raises(SignatureError, match="no proof"):
        check(sequence, row[:-1])

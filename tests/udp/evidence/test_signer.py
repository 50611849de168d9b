from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.jose import Jwk
from bridge.udp.evidence.proof import parse_proof_untrusted
from bridge.udp.evidence.signer import TickSigner, Unsigned
from bridge.udp.evidence.verifier import verify_datagram

SENDER = Jwk.generate()
PEERS = [Jwk.generate().thumbprint_bytes() for _ in range(3)]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 300), st.integers(0, 50))), max_size=8),
    st.randoms(use_true_random=False),
)
def test_every_datagram_of_every_peer_is_provable_alone(
    shapes: list[tuple[int, int] | None], chance: random.Random
) -> None:
    waiting = []
    for number, shape in enumerate(shapes):
        plaintexts = (
            chance.randbytes(number)
            if shape is None
            else np.frombuffer(chance.randbytes(shape[0] * shape[1]), dtype=np.uint8).reshape(shape)
        )
        waiting.append(Unsigned(PEERS[number % 3], bytes([number]) * 16, chance.getrandbits(63), plaintexts))
    total = sum(unsigned.datagrams for unsigned in waiting)
    signer = TickSigner(SENDER)
    frames = signer.sign(waiting, sealed_at_ms=1_700_000_000_000, salts=chance.randbytes(16 * total))
    assert signer.signatures_made == -(-total // 1024)
    places = []
    for unsigned, parts in zip(waiting, frames, strict=True):
        rows = [row.tobytes() for part in parts for row in part]
        assert len(rows) == unsigned.datagrams
        places += [(parse_proof_untrusted(row).size, parse_proof_untrusted(row).leaf) for row in rows]
        for number in {0, unsigned.datagrams // 2, unsigned.datagrams - 1} if rows else ():
            plaintexts = unsigned.plaintexts
            verify_datagram(
                sender=SENDER.public(),
                recipient=unsigned.recipient,
                session_id=unsigned.session_id,
                sequence=unsigned.first_sequence + number,
                plaintext=plaintexts if isinstance(plaintexts, bytes) else plaintexts[number].tobytes(),
                proof=rows[number],
            )
    # The order of the leaves is that of sealing, a tree ends where the next begins.
    expected = [
        (min(1024, total - start), index)
        for start in range(0, total, 1024)
        for index in range(min(1024, total - start))
    ]
    assert places == expected


def test_every_datagram_has_a_salt_of_its_own() -> None:
    salts = bytes(range(160))
    waiting = [Unsigned(PEERS[0], bytes(16), 0, np.zeros((10, 5), dtype=np.uint8))]
    ((block, rest),) = TickSigner(SENDER).sign(waiting, sealed_at_ms=0, salts=salts)
    rows = [*block, *rest]
    assert b"".join(parse_proof_untrusted(row.tobytes()).salt for row in rows) == salts


def test_a_sibling_is_not_told_by_its_hash_what_another_peer_was_sent() -> None:
    """Two ticks with the same state for the first peer: nothing the second peer gets is the same."""
    waiting = [Unsigned(peer, bytes(16), 0, b"the same guessable state") for peer in PEERS[:2]]
    seen = []
    for tick in range(2):
        _, (frames,) = TickSigner(SENDER).sign(waiting, sealed_at_ms=0, salts=bytes([tick]) * 16 + bytes(16))
        seen.append(parse_proof_untrusted(frames[0].tobytes()).path)
    assert seen[0] != seen[1]


def test_nothing_to_sign_makes_no_signature() -> None:
    signer = TickSigner(SENDER)
    assert signer.sign([], sealed_at_ms=0, salts=b"") == []
    assert signer.signatures_made == 0

"""Signs all the state of a tick at once: one signature for up to 1024 datagrams, whomever they go to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from bridge.jose import Jwk
from bridge.jose.signature import sign_raw
from bridge.udp.evidence.proof import (
    DEPTH_AT,
    MOMENT_AT,
    PATH_AT,
    PLACE_AT,
    SALT_AT,
    SIGNATURE_ALGORITHM,
    SIGNATURE_AT,
    root_message,
)
from bridge.udp.evidence.tree import (
    HASH_BYTES,
    MAX_LEAVES,
    SALT_BYTES,
    LeafHasher,
    Matrix,
    climb,
    leaf_hash,
    paths,
)
from bridge.udp.frames import (
    PROOF,
)


class Unsigned(NamedTuple):
    """Datagrams of one session that wait for their proofs, complete but for them.

    Attributes:
        recipient: thumbprint of the peer's key, 32 bytes.
        session_id: 16 bytes.
        first_sequence: of the first datagram; the others count on from it.
        plaintexts: one plaintext, or several of one size, shape (n, size).
    """

    recipient: bytes
    session_id: bytes
    first_sequence: int
    plaintexts: bytes | Matrix

    @property
    def datagrams(self) -> int:
        """How many."""
        return 1 if isinstance(self.plaintexts, bytes) else len(self.plaintexts)


class TickSigner:
    """Makes the PROOF frames of one identity.

    Attributes:
        signatures_made: since the beginning.
    """

    __slots__ = ("_hasher", "_identity", "_thumbprint", "signatures_made")

    def __init__(self, identity: Jwk, hasher: LeafHasher | None = None) -> None:
        """Sign with a private key on P-256."""
        self._hasher = hasher or LeafHasher()
        self._identity = identity
        self._thumbprint = identity.thumbprint_bytes()
        self.signatures_made = 0

    def sign(self, waiting: Sequence[Unsigned], *, sealed_at_ms: int, salts: bytes) -> list[list[Matrix]]:
        """Prove everything that is sealed at one moment.

        Args:
            waiting: in the order of sealing, which is that of the leaves.
            sealed_at_ms: Unix time in milliseconds.
            salts: fresh random bytes, ``SALT_BYTES`` for each datagram. One that is used again lets a sibling
                compare two datagrams of other peers.

        Returns:
            For each of ``waiting`` matrices of PROOF frames, shape (m, frame bytes), whose rows together
            are the frames of its datagrams. There is a second matrix only where frames of another length
            follow: at the end of a tree.
        """
        columns = np.frombuffer(salts, dtype=np.uint8).reshape(-1, SALT_BYTES)
        leaves = self._leaves(waiting, salts, columns)
        blocks: list[Matrix] = []
        for start in range(0, len(leaves), MAX_LEAVES):
            end = start + MAX_LEAVES
            blocks += self._tree(leaves[start:end], columns[start:end], sealed_at_ms)
        return _deal(blocks, [unsigned.datagrams for unsigned in waiting])

    def _leaves(self, waiting: Sequence[Unsigned], salts: bytes, columns: Matrix) -> list[bytes]:
        leaves: list[bytes] = []
        for recipient, session_id, first_sequence, plaintexts in waiting:
            context = self._thumbprint + recipient + session_id
            done = len(leaves)
            if isinstance(plaintexts, bytes):
                salt = salts[done * SALT_BYTES : (done + 1) * SALT_BYTES]
                leaves.append(leaf_hash(context, salt, first_sequence, plaintexts))
            else:
                count = len(plaintexts)
                sequences = np.arange(first_sequence, first_sequence + count, dtype=np.uint64)
                leaves += self._hasher.hashes(context, columns[done : done + count], sequences, plaintexts)
        return leaves

    def _tree(self, leaves: list[bytes], salts: Matrix, sealed_at_ms: int) -> list[Matrix]:
        """The frames of one tree, as blocks of one frame length each."""
        size = len(leaves)
        root, levels = climb(leaves, 0, size)
        covered = root_message(self._thumbprint, size, sealed_at_ms, root)
        signature = sign_raw(covered, self._identity, SIGNATURE_ALGORITHM)
        self.signatures_made += 1
        blocks = []
        start = 0
        for length, group in groupby(paths(levels, 0, size), len):
            block = list(group)
            end = start + len(block)
            places = np.empty((len(block), 2), dtype=">u2")
            places[:, 0] = size
            places[:, 1] = np.arange(start, end)
            frames = np.empty((len(block), PATH_AT + length), dtype=np.uint8)
            frames[:, 0] = PROOF
            frames[:, PLACE_AT:MOMENT_AT] = places.view(np.uint8)
            frames[:, MOMENT_AT:SALT_AT] = np.frombuffer(sealed_at_ms.to_bytes(8, "big"), dtype=np.uint8)
            frames[:, SALT_AT:SIGNATURE_AT] = salts[start:end]
            frames[:, SIGNATURE_AT:DEPTH_AT] = np.frombuffer(signature, dtype=np.uint8)
            frames[:, DEPTH_AT] = length // HASH_BYTES
            frames[:, PATH_AT:] = np.frombuffer(b"".join(block), dtype=np.uint8).reshape(len(block), length)
            blocks.append(frames)
            start = end
        return blocks


def _deal(blocks: list[Matrix], counts: list[int]) -> list[list[Matrix]]:
    """Cut blocks of frames, one after the other, into lists of so many frames each."""
    dealt = []
    number = used = 0
    for count in counts:
        parts = []
        while count:
            part = blocks[number][used : used + count]
            parts.append(part)
            count -= len(part)
            used += len(part)
            if used == len(blocks[number]):
                number, used = number + 1, 0
        dealt.append(parts)
    return dealt

"""Checks that datagrams are under a root that their sender signed.

On the data path :class:`ProofVerifier` takes runs of datagrams: rows that are neighbours in their tree are
climbed together, and every row's path is compared with the one that came out, since each datagram must be
provable alone. A root is checked once: what the cache then keeps is 32 bytes for a tree, not its nodes,
because a run needs no more than two hashes a level beyond its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.errors import DecodeError, SignatureError
from bridge.jose import Jwk
from bridge.jose.signature import verify_raw
from bridge.udp.bucket import TokenBucket
from bridge.udp.evidence.proof import (
    DEPTH_AT,
    MOMENT_AT,
    PATH_AT,
    PLACE_AT,
    SALT_AT,
    SIGNATURE_ALGORITHM,
    SIGNATURE_AT,
    parse_proof_untrusted,
    root_message,
)
from bridge.udp.evidence.tree import (
    HASH_BYTES,
    MAX_LEAVES,
    LeafHasher,
    Matrix,
    climb,
    leaf_hash,
    path_length,
    paths,
)
from bridge.udp.frames import (
    MAX_PROOF_DEPTH,
    PROOF,
)

_KNOWN_ROOTS: Final = 64
"""Trees whose datagrams may arrive mixed: more than a second of a simulation's ticks."""
_REFUSED_ROOTS: Final = 64
"""Roots whose signature did not hold: the datagrams of one such tree cost one check."""

Mask = npt.NDArray[np.bool_]


_Tree = tuple[int, int, bytes]
"""Leaves, Unix milliseconds, signature."""


class ProofVerifier:
    """Checks the proofs of one session's incoming datagrams.

    Attributes:
        sender: whose key the proofs are checked with.
        recipient: our own thumbprint, 32 bytes.
        session_id: 16 bytes.
        signatures_checked: since the session began.
    """

    __slots__ = (
        "_checks",
        "_context",
        "_hasher",
        "_refused",
        "_roots",
        "recipient",
        "sender",
        "session_id",
        "signatures_checked",
    )

    def __init__(
        self,
        *,
        sender: Jwk,
        recipient: bytes,
        session_id: bytes,
        checks: TokenBucket,
        hasher: LeafHasher | None = None,
    ) -> None:
        """Check what ``sender`` signed for us.

        Args:
            checks: bounds how many signatures are checked; what comes under yet another root is refused.
            hasher: shared by the sessions of one endpoint.
        """
        self.sender = sender
        self.recipient = recipient
        self.session_id = session_id
        self._context = sender.thumbprint_bytes() + recipient + session_id
        self._checks = checks
        self._hasher = hasher or LeafHasher()
        self._roots: dict[_Tree, bytes] = {}
        self._refused: dict[tuple[_Tree, bytes], None] = {}
        self.signatures_checked = 0

    def verify_one(self, sequence: int, plaintext: bytes, proof_at: int, *, now: float) -> bool:
        """Like :meth:`verify`, for one datagram: a run of one would cost twice as much."""
        try:
            proof = parse_proof_untrusted(plaintext[proof_at:])
        except DecodeError:
            return False
        size, index, moment, salt, signature, path = proof
        leaf = leaf_hash(self._context, salt, sequence, plaintext[:proof_at])
        root, _ = climb([leaf], index, size, path, path)
        return self._is_signed((size, moment, signature), root, now)

    def verify(
        self, sequences: npt.NDArray[np.uint64], plaintexts: Matrix, proof_at: int, *, now: float
    ) -> Mask:
        """Which of n datagrams are proven.

        Args:
            sequences: shape (n,), n above zero.
            plaintexts: shape (n, size), whole: their PROOF frames reach to the end.
            proof_at: offset of the PROOF frames.
            now: monotonic seconds.

        Returns:
            Shape (n,).
        """
        proofs = plaintexts[:, proof_at:]
        count = len(proofs)
        proven = np.zeros(count, dtype=np.bool_)
        depth, excess = divmod(proofs.shape[1] - PATH_AT, HASH_BYTES)
        if excess or not 0 <= depth <= MAX_PROOF_DEPTH:
            return proven
        leaves = self._hasher.hashes(
            self._context, proofs[:, SALT_AT:SIGNATURE_AT], sequences, plaintexts[:, :proof_at]
        )
        well_formed = (proofs[:, 0] == PROOF) & (proofs[:, DEPTH_AT] == depth)
        places = np.ascontiguousarray(proofs[:, PLACE_AT:MOMENT_AT]).view(">u2").astype(np.intp)
        follows = well_formed[1:] & well_formed[:-1] & (places[1:, 1] == places[:-1, 1] + 1)
        for start, end in ((PLACE_AT, PLACE_AT + 2), (MOMENT_AT, SALT_AT), (SIGNATURE_AT, DEPTH_AT)):
            column = proofs[:, start:end]
            if not (column == column[0]).all():
                follows &= (column[1:] == column[:-1]).all(axis=1)
        edges = [0, *(np.flatnonzero(~follows) + 1).tolist(), count]
        for start, end in pairwise(edges):
            size, index = places[start].tolist()
            if (
                well_formed[start]
                and index + end - start <= size <= MAX_LEAVES
                and path_length(index, size) == path_length(index + end - start - 1, size) == depth
            ):
                proven[start:end] = self._proven(size, index, leaves[start:end], proofs[start:end], now)
        return proven

    def _proven(self, size: int, first: int, leaves: list[bytes], proofs: Matrix, now: float) -> Mask | bool:
        """Which of neighbouring leaves of one tree are proven."""
        count = len(leaves)
        claimed = proofs[:, PATH_AT:]
        root, levels = climb(leaves, first, size, claimed[0].tobytes(), claimed[-1].tobytes())
        head = proofs[0, :DEPTH_AT].tobytes()
        moment = int.from_bytes(head[MOMENT_AT:SALT_AT], "big")
        if not self._is_signed((size, moment, head[SIGNATURE_AT:]), root, now):
            # One false datagram spoils the root of its neighbours: each is asked alone.
            return count > 1 and np.array(
                [
                    self._proven(size, first + row, leaves[row : row + 1], proofs[row : row + 1], now)
                    for row in range(count)
                ],
                dtype=np.bool_,
            )
        if count == 1:
            return True
        true = paths(levels, first, count)
        joined = b"".join(true)
        if claimed.tobytes() == joined:
            return True
        return (claimed == np.frombuffer(joined, dtype=np.uint8).reshape(count, -1)).all(axis=1)  # type: ignore[no-any-return]

    def _is_signed(self, tree: _Tree, root: bytes, now: float) -> bool:
        known = self._roots.get(tree)
        if known is not None:
            return known == root
        refused = (tree, root)
        if refused in self._refused or not self._checks.take(now):
            return False
        self.signatures_checked += 1
        size, moment, signature = tree
        try:
            _check_root(self.sender, size, moment, root, signature)
        except SignatureError:
            if len(self._refused) >= _REFUSED_ROOTS:
                del self._refused[next(iter(self._refused))]
            self._refused[refused] = None
            return False
        if len(self._roots) >= _KNOWN_ROOTS:
            del self._roots[next(iter(self._roots))]
        self._roots[tree] = root
        return True


def verify_datagram(
    *, sender: Jwk, recipient: bytes, session_id: bytes, sequence: int, plaintext: bytes, proof: bytes
) -> None:
    """Check one datagram alone, as anybody can who was given it.

    Args:
        sender: whose signature it must be.
        recipient: thumbprint of the key it was sealed for, 32 bytes.
        plaintext: of the datagram, up to its PROOF frame.
        proof: that frame.

    Raises:
        SignatureError: the sender did not sign these bytes for this recipient, session and sequence.
    """
    if sender.curve != "P-256":
        raise SignatureError(f"datagrams are signed with keys on P-256, not {sender.curve or sender.kty}")
    try:
        size, index, sealed_at_ms, salt, signature, path = parse_proof_untrusted(proof)
    except DecodeError as error:
        raise SignatureError(f"no proof: {error}") from error
    context = sender.thumbprint_bytes() + recipient + session_id
    leaf = leaf_hash(context, salt, sequence, plaintext)
    root, _ = climb([leaf], index, size, path, path)
    _check_root(sender, size, sealed_at_ms, root, signature)


def _check_root(sender: Jwk, size: int, sealed_at_ms: int, root: bytes, signature: bytes) -> None:
    covered = root_message(sender.thumbprint_bytes(), size, sealed_at_ms, root)
    verify_raw(signature, covered, sender, SIGNATURE_ALGORITHM)

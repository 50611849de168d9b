"""The PROOF frame of a datagram, and the root that is signed: bytes of docs/protocol.md §5, "Signed mode"."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from bridge.errors import DecodeError
from bridge.udp.evidence.tree import HASH_BYTES, MAX_LEAVES, SALT_BYTES, Matrix, path_length
from bridge.udp.frames import (
    MAX_PROOF_DEPTH,
    PROOF,
)

SIGNATURE_BYTES: Final = 64
SIGNATURE_ALGORITHM: Final = "ES256"

PLACE_AT: Final = 1
"""Tree size and leaf index, 16 bits each."""
MOMENT_AT: Final = 5
SALT_AT: Final = 13
SIGNATURE_AT: Final = SALT_AT + SALT_BYTES
DEPTH_AT: Final = SIGNATURE_AT + SIGNATURE_BYTES
PATH_AT: Final = DEPTH_AT + 1

_PROOF: Final = struct.Struct(f">BHHQ{SALT_BYTES}s{SIGNATURE_BYTES}sB")
_ROOT_LABEL: Final = b"khepri-bridge evidence v1\0"
_PURPOSE_STATE: Final = 1
_ROOT: Final = struct.Struct(">BHQ")


class ProofFields(NamedTuple):
    """What makes one datagram provable to anybody.

    Attributes:
        size: leaves of its tree, 1 … 1024.
        leaf: its index in the tree, 0 … size - 1.
        sealed_at_ms: Unix time in milliseconds, as the sender claims.
        salt: 16 bytes.
        signature: over the root, r and s, 64 bytes.
        path: as many hashes as ``path_length(leaf, size)`` says.
    """

    size: int
    leaf: int
    sealed_at_ms: int
    salt: bytes
    signature: bytes
    path: bytes


def parse_proof_untrusted(frame: bytes | memoryview) -> ProofFields:
    """Read a PROOF frame, which reaches to the end of its datagram.

    Raises:
        DecodeError: anything but one whole frame, an index beyond the tree, or a path of another length than
            a leaf at that place has.
    """
    if len(frame) < PATH_AT:
        raise DecodeError("PROOF frame cut short")
    kind, size, leaf, sealed_at_ms, salt, signature, depth = _PROOF.unpack_from(frame)
    if kind != PROOF or len(frame) != PATH_AT + depth * HASH_BYTES:
        raise DecodeError("PROOF frame of another length than its depth says, or not the last")
    if not leaf < size <= MAX_LEAVES or depth != path_length(leaf, size):
        raise DecodeError("PROOF frame of a leaf that its tree does not have")
    return ProofFields(size, leaf, sealed_at_ms, salt, signature, bytes(frame[PATH_AT:]))


def are_proofs(frames: Matrix) -> bool:
    """Whether all rows have the type and length of PROOF frames: as much as the parser of frames looks at."""
    depth, excess = divmod(frames.shape[1] - PATH_AT, HASH_BYTES)
    return (
        not excess
        and 0 <= depth <= MAX_PROOF_DEPTH
        and bool(((frames[:, 0] == PROOF) & (frames[:, DEPTH_AT] == depth)).all())
    )


def root_message(sender: bytes, size: int, sealed_at_ms: int, root: bytes) -> bytes:
    """What the signature of a tree covers.

    Args:
        sender: thumbprint, 32 bytes.
        size: leaves of the tree.
        sealed_at_ms: Unix time in milliseconds.
        root: 32 bytes.
    """
    return _ROOT_LABEL + sender + _ROOT.pack(_PURPOSE_STATE, size, sealed_at_ms) + root

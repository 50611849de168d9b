"""Hash trees over the datagrams of a tick: leaves, roots, and the paths between them.

Level 0 is the leaves. Nodes at even places join with the one to their right; a last node without a
neighbour moves up unchanged, so a tree of n leaves has the shape of RFC 9162, section 2.1 (split at the
largest power of two below n). A path lists the neighbours of a leaf and of its ancestors from below to
above, and nothing for a level at which there is none.

Whoever makes a tree and whoever holds some neighbouring leaves of it climb in the same way: the maker has all
leaves, the holder has the first and the last leaf's path for what is missing at both ends. So a run of
datagrams costs one hash for each of them and a few for its ends, however deep the tree.
"""

from __future__ import annotations

from hashlib import sha256
from operator import add
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.udp.workspace import RUN_ROWS

Matrix = npt.NDArray[np.uint8]

MAX_LEAVES: Final = 1024
"""Of one tree: with more, a path leaves a datagram less than half of its room."""
HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
CONTEXT_BYTES: Final = 80
"""Thumbprints of sender and recipient, session id."""

_MAX_WIDTHS: Final = 4
"""Sizes of datagrams whose rows stay cut."""
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_SALT_AT: Final = 1
_CONTEXT_AT: Final = _SALT_AT + SALT_BYTES
_SEQUENCE_AT: Final = _CONTEXT_AT + CONTEXT_BYTES
_LENGTH_AT: Final = _SEQUENCE_AT + 8
_PLAINTEXT_AT: Final = _LENGTH_AT + 2


def leaf_hash(context: bytes, salt: bytes, sequence: int, plaintext: bytes) -> bytes:
    """The leaf of one datagram.

    Args:
        context: ``CONTEXT_BYTES``: thumbprint of the sender, of the recipient, session id.
        salt: ``SALT_BYTES`` that no sibling learns, so that nobody tells a guessed state by its hash.
        sequence: of the datagram, 64 bits.
        plaintext: of the datagram, up to its PROOF frame.
    """
    numbers = sequence.to_bytes(8, "big") + len(plaintext).to_bytes(2, "big")
    return sha256(b"".join((_LEAF, salt, context, numbers, plaintext))).digest()


class LeafHasher:
    """Puts the leaves of runs together in memory that it uses again and again.

    New memory and new views of it would cost a third of what the hashes do. One endpoint has one: two threads
    must not share it.
    """

    __slots__ = ("_memory", "_views")

    def __init__(self) -> None:
        self._memory: Matrix = np.empty(0, dtype=np.uint8)
        self._views: dict[int, list[memoryview]] = {}  # of rows from the first on, by their width

    def hashes(
        self, context: bytes, salts: Matrix, sequences: npt.NDArray[np.uint64], plaintexts: Matrix
    ) -> list[bytes]:
        """Like :func:`leaf_hash`, for n datagrams of one session and size.

        Args:
            salts: shape (n, ``SALT_BYTES``).
            sequences: shape (n,).
            plaintexts: shape (n, size).
        """
        leaves: list[bytes] = []
        for start in range(0, len(plaintexts), RUN_ROWS):
            end = start + RUN_ROWS
            leaves += self._run(context, salts[start:end], sequences[start:end], plaintexts[start:end])
        return leaves

    def _run(
        self, context: bytes, salts: Matrix, sequences: npt.NDArray[np.uint64], plaintexts: Matrix
    ) -> list[bytes]:
        count, size = plaintexts.shape
        width = _PLAINTEXT_AT + size
        if len(self._memory) < RUN_ROWS * width:
            self._memory = np.empty(RUN_ROWS * width, dtype=np.uint8)
            self._views.clear()
        covered = self._memory[: count * width].reshape(count, width)
        covered[:, 0] = 0
        covered[:, _SALT_AT:_CONTEXT_AT] = salts
        covered[:, _CONTEXT_AT:_SEQUENCE_AT] = np.frombuffer(context, dtype=np.uint8)
        covered[:, _SEQUENCE_AT:_LENGTH_AT] = sequences.astype(">u8").view(np.uint8).reshape(-1, 8)
        covered[:, _LENGTH_AT:_PLAINTEXT_AT] = np.frombuffer(size.to_bytes(2, "big"), dtype=np.uint8)
        covered[:, _PLAINTEXT_AT:] = plaintexts
        return [sha256(view).digest() for view in self._rows(width, count)]

    def _rows(self, width: int, count: int) -> list[memoryview]:
        views = self._views.get(width)
        if views is None:
            if len(self._views) >= _MAX_WIDTHS:
                del self._views[next(iter(self._views))]
            views = self._views[width] = []
        if len(views) < count:
            flat = self._memory.data
            views += [flat[row * width : (row + 1) * width] for row in range(len(views), count)]
        return views[:count]


def path_length(index: int, size: int) -> int:
    """Hashes in the path of a leaf; never more for a later leaf than for an earlier one."""
    length = 0
    while size > 1:
        length += index ^ 1 < size
        index >>= 1
        size = (size + 1) >> 1
    return length


def climb(
    leaves: list[bytes], first: int, size: int, left: bytes = b"", right: bytes = b""
) -> tuple[bytes, list[list[bytes]]]:
    """Hash from neighbouring leaves up to the root.

    Args:
        leaves: hashes of the leaves from ``first`` on, at least one.
        first: index of the first of them.
        size: leaves of the whole tree.
        left: path of the first leaf; not needed where ``first`` is 0.
        right: path of the last leaf; not needed where that is the last of the tree.

    Returns:
        The root, and for each level below it the nodes that were known or joined, from the first one
        at an even place.
    """
    levels = []
    nodes, at, end, width = leaves, first, first + len(leaves) - 1, size
    left_at = right_at = 0
    while width > 1:
        if at & 1:
            nodes = [left[left_at : left_at + HASH_BYTES], *nodes]
        if at ^ 1 < width:
            left_at += HASH_BYTES
        if not end & 1 and end + 1 < width:
            nodes = [*nodes, right[right_at : right_at + HASH_BYTES]]
        if end ^ 1 < width:
            right_at += HASH_BYTES
        levels.append(nodes)
        joined = [
            sha256(_NODE + one + other).digest() for one, other in zip(nodes[::2], nodes[1::2], strict=False)
        ]
        if len(nodes) & 1:
            joined.append(nodes[-1])
        nodes, at, end, width = joined, at >> 1, end >> 1, (width + 1) >> 1
    return nodes[0], levels


def paths(levels: list[list[bytes]], first: int, count: int) -> list[bytes]:
    """The paths of the leaves from which :func:`climb` went up.

    Args:
        levels: as it returned them.
        first: index of the first of those leaves.
        count: how many they were.
    """
    above = [b""]
    for level in range(len(levels) - 1, -1, -1):
        nodes = levels[level]
        if first >> (level + 1) & 1:
            del above[0]  # of the neighbour that came from a path: nothing of ours is below it
        paired = len(nodes) & ~1
        siblings, upward = [b""] * len(nodes), [b""] * len(nodes)
        siblings[:paired:2], siblings[1:paired:2] = nodes[1::2], nodes[:paired:2]
        upward[::2], upward[1::2] = above[: len(nodes) - paired // 2], above[: paired // 2]
        above = list(map(add, siblings, upward))
    start = first & 1 if levels else 0
    return above[start : start + count]

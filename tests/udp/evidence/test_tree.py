from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.udp.evidence.tree import (
    CONTEXT_BYTES,
    MAX_LEAVES,
    LeafHasher,
    climb,
    leaf_hash,
    path_length,
    paths,
)
from bridge.udp.frames import (
    MAX_PROOF_DEPTH,
)
from bridge.udp.workspace import RUN_ROWS

SIZES = st.one_of(st.integers(1, 40), st.integers(1, MAX_LEAVES))


def some_leaves(count: int) -> list[bytes]:
    return [sha256(b"leaf %d" % number).digest() for number in range(count)]


def rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + rfc_root(leaves[:split]) + rfc_root(leaves[split:])).digest()


def rfc_path(index: int, leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return b""
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return rfc_path(index, leaves[:split]) + rfc_root(leaves[split:])
    return rfc_path(index - split, leaves[split:]) + rfc_root(leaves[:split])


@settings(max_examples=40, deadline=None)
@given(SIZES)
def test_roots_and_paths_are_those_of_rfc_9162(size: int) -> None:
    leaves = some_leaves(size)
    root, levels = climb(leaves, 0, size)
    assert root == rfc_root(leaves)
    for index, path in enumerate(paths(levels, 0, size)):
        if index < 3 or index > size - 3:
            assert path == rfc_path(index, leaves)
        assert len(path) == 32 * path_length(index, size)


@given(SIZES, st.data())
def test_neighbouring_leaves_with_the_outer_paths_give_the_root_and_all_paths(
    size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    leaves = some_leaves(size)
    root, levels = climb(leaves, 0, size)
    whole = paths(levels, 0, size)
    part, part_levels = climb(leaves[first : last + 1], first, size, whole[first], whole[last])
    assert part == root
    assert paths(part_levels, first, last + 1 - first) == whole[first : last + 1]


def test_paths_get_no_longer_towards_the_end_of_a_tree() -> None:
    for size in range(1, MAX_LEAVES + 1):
        lengths = [path_length(index, size) for index in (0, size // 2, size - 1)]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] == (size - 1).bit_length() <= MAX_PROOF_DEPTH


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 5, RUN_ROWS, RUN_ROWS + 1]),
            st.integers(0, 300),
            st.binary(min_size=CONTEXT_BYTES, max_size=CONTEXT_BYTES),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_many_leaves_are_hashed_as_one_is(runs: list[tuple[int, int, bytes]]) -> None:
    hasher = LeafHasher()
    for count, size, context in runs:
        check_leaves(hasher, count, size, context)


def check_leaves(hasher: LeafHasher, count: int, size: int, context: bytes) -> None:
    chance = np.random.default_rng(size)
    salts = chance.integers(0, 256, (count, 16), dtype=np.uint8)
    plaintexts = chance.integers(0, 256, (count, size), dtype=np.uint8)
    sequences = np.arange(2**63, 2**63 + count, dtype=np.uint64)
    assert hasher.hashes(context, salts, sequences, plaintexts) == [
        leaf_hash(context, salt.tobytes(), int(sequence), plaintext.tobytes())
        for salt, sequence, plaintext in zip(salts, sequences, plaintexts, strict=True)
    ]


def test_a_leaf_is_the_hash_that_the_protocol_states() -> None:
    covered = b"\x00" + b"s" * 16 + b"c" * 80 + (7).to_bytes(8, "big") + (5).to_bytes(2, "big") + b"plain"
    assert leaf_hash(b"c" * 80, b"s" * 16, 7, b"plain") == sha256(covered).digest()


def test_no_plaintext_makes_a_leaf_that_is_a_node() -> None:
    one, other = some_leaves(2)
    node = climb([one, other], 0, 2)[0]
    # Even if the layout of a leaf could be that of two hashes, its first byte is another.
    assert node == sha256(b"\x01" + one + other).digest()
    assert node != sha256(b"\x00" + one + other).digest()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 200, 1023, 1024])
def test_every_leaf_counts(size: int) -> None:
    leaves = some_leaves(size)
    root = climb(leaves, 0, size)[0]
    for index in {0, size // 2, size - 1}:
        altered = [*leaves[:index], bytes(32), *leaves[index + 1 :]]
        assert climb(altered, 0, size)[0] != root

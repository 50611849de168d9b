import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.replication.quantise import (
    COMPACT_ROTATION_BITS,
    FULL_ROTATION_BITS,
    impossible_rotations,
    pack_rotations,
    split_rotations,
    steps,
    unpack_rotations,
)
from tests.support.states import degrees_between, rotations

BITS = st.sampled_from([COMPACT_ROTATION_BITS, FULL_ROTATION_BITS])
HALF = np.sqrt(0.5)


@given(st.lists(st.floats(-2e6, 2e6), min_size=1), st.sampled_from([0.001, 0.01, 1 / 512]))
def test_rounding_errs_by_at_most_half_a_step(values: list[float], step: float) -> None:
    back = steps(np.array(values), step, 32) * step
    # Beside the half step, what a double of that size cannot tell apart.
    assert np.abs(back - values).max() <= step / 2 + 1e-15 * np.abs(values).max()


def test_what_is_beyond_saturates_and_what_is_no_number_is_zero() -> None:
    """Without a warning, too: what a runaway body costs is its own place, not the sender."""
    wild = np.array([[np.inf, -np.inf, np.nan], [1e300, -1e300, 0.0], [1.7e308, -1.7e308, 5e-324]])
    assert steps(wild, 0.01, 16).tolist() == [[32767, -32768, 0], [32767, -32768, 0], [32767, -32768, 0]]


@pytest.mark.parametrize(("bits", "degrees"), [(COMPACT_ROTATION_BITS, 0.6), (FULL_ROTATION_BITS, 0.02)])
def test_a_rotation_errs_by_less_than_its_layout_says(bits: int, degrees: float) -> None:
    @given(st.lists(rotations, min_size=1))
    def holds(some: list[list[float]]) -> None:
        quaternions = np.array(some)
        back = unpack_rotations(pack_rotations(quaternions, bits), bits)
        assert degrees_between(back, quaternions).max() < degrees

    holds()


@given(st.lists(rotations, min_size=1), BITS)
def test_a_rotation_packed_once_packs_to_the_same_word_again(some: list[list[float]], bits: int) -> None:
    """R0-27: the giver hashes what it had, the taker what it got."""
    packed = pack_rotations(np.array(some), bits)
    assert pack_rotations(unpack_rotations(packed, bits), bits).tolist() == packed.tolist()


@pytest.mark.parametrize(
    "tie",
    [[HALF, HALF, 0, 0], [0, -HALF, 0, HALF], [0.5, 0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [0, 0, 0, 1]],
)
@pytest.mark.parametrize("bits", [COMPACT_ROTATION_BITS, FULL_ROTATION_BITS])
def test_components_of_one_size_pack_to_the_same_word_again(tie: list[float], bits: int) -> None:
    packed = pack_rotations(np.array([tie]), bits)
    assert pack_rotations(unpack_rotations(packed, bits), bits).tolist() == packed.tolist()


@given(rotations, BITS)
def test_a_quaternion_and_its_negative_are_one_rotation(some: list[float], bits: int) -> None:
    both = pack_rotations(np.array([some, [-c for c in some]]), bits)
    back = unpack_rotations(both, bits)
    assert degrees_between(back[:1], back[1:])[0] < 1.2


@pytest.mark.parametrize(
    "nothing",
    [
        [0.0] * 4,
        [np.nan, 0, 0, 1],
        [np.inf, 0, 0, 0],
        [1e300, 0, 0, 1],
        [5e-324] * 4,
        [-np.inf, np.inf, 0, np.nan],
    ],
)
def test_what_is_no_rotation_is_the_identity(nothing: list[float]) -> None:
    packed = pack_rotations(np.array([nothing, [0, 0, 0, 1.0]]), 14)
    assert packed[0] == packed[1]
    assert unpack_rotations(packed, 14)[0].tolist() == [0, 0, 0, 1]


@given(st.integers(0, 2**44 - 1), st.integers(0, 2**44 - 1))
def test_any_word_unpacks_to_numbers(one: int, two: int) -> None:
    words = np.array([one, two], dtype=np.uint64)
    assert np.isfinite(unpack_rotations(words, 14)).all()
    largest, others = split_rotations(words, 14)
    assert largest.tolist() == [one >> 42, two >> 42]
    assert np.abs(others).max() <= 8192


def test_a_component_with_all_its_bits_set_is_impossible() -> None:
    words = np.array([0x1FF, 0x1FF << 9, 0x1FF << 18, 0x1FE, 0b11 << 27], dtype=np.uint64)
    assert impossible_rotations(words, 9).tolist() == [True, True, True, False, False]


@given(BITS, st.data())
def test_whatever_is_packed_packs_to_the_same_word_from_then_on(bits: int, data: st.DataObject) -> None:
    """Rotations read from any word, of any length: what a release carries is what its hash is of."""
    word = data.draw(st.integers(0, (1 << 3 * bits + 2) - 1))
    length = data.draw(st.sampled_from([1.0, 1.0000004, 1.0004, 0.9996, 3.0]))
    packed = pack_rotations(unpack_rotations(np.array([word], dtype=np.uint64), bits) * length, bits)
    assert pack_rotations(unpack_rotations(packed, bits), bits).tolist() == packed.tolist()


@pytest.mark.parametrize("bits", [COMPACT_ROTATION_BITS, FULL_ROTATION_BITS])
def test_rotations_with_components_of_nearly_one_size_stay_within_the_bound(bits: int) -> None:
    chance = np.random.default_rng(bits)
    near = chance.choice([-1.0, 1.0], size=(50_000, 4)) * 0.5 + chance.normal(scale=1e-3, size=(50_000, 4))
    near /= np.linalg.norm(near, axis=1)[:, None]
    packed = pack_rotations(near, bits)
    back = unpack_rotations(packed, bits)
    assert (pack_rotations(back, bits) == packed).all()
    assert degrees_between(near, back).max() < {COMPACT_ROTATION_BITS: 0.6, FULL_ROTATION_BITS: 0.02}[bits]

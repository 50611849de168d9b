import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.replication.nearest import MAX_CELLS, NearestGrid

COORDINATES = st.floats(-1e4, 1e4, width=32) | st.integers(-3, 3).map(float)
PLACES = st.tuples(COORDINATES, COORDINATES, COORDINATES)


def distances(positions: np.ndarray, viewer: np.ndarray, which: np.ndarray) -> list[float]:
    return sorted(((positions[which] - viewer) ** 2).sum(axis=1).tolist())


@given(
    st.lists(PLACES, min_size=1, max_size=40),
    st.lists(PLACES, min_size=1, max_size=4),
    st.integers(1, 50),
    st.sampled_from([0.1, 1.0, 70.0, 1e5]),
)
def test_nobody_who_is_left_out_is_nearer_than_one_who_is_found(
    places: list[tuple[float, ...]], viewers: list[tuple[float, ...]], count: int, side: float
) -> None:
    positions, eyes = np.array(places), np.array(viewers)
    found = NearestGrid(positions, side=side).nearest(eyes, count)
    assert found.shape == (len(eyes), min(count, len(positions)))
    for viewer, row in zip(eyes, found, strict=True):
        assert len(set(row.tolist())) == len(row)
        assert (
            distances(positions, viewer, row)
            == distances(positions, viewer, np.arange(len(places)))[: len(row)]
        )


@given(st.integers(0, 1 << 32), st.integers(1, 60))
def test_the_first_of_a_divided_row_are_the_nearest(seed: int, divide: int) -> None:
    random = np.random.default_rng(seed)
    positions, viewers = random.normal(0, 100, (500, 3)), random.normal(0, 100, (7, 3))
    found = NearestGrid(positions, side=10.0).nearest(viewers, 50, divide=divide)
    for viewer, row in zip(viewers, found, strict=True):
        assert (
            distances(positions, viewer, row[:divide])
            == distances(positions, viewer, np.arange(500))[: min(divide, 50)]
        )


def test_a_town_and_an_outlier_beyond_it_are_found_as_well_as_an_even_world() -> None:
    """More candidates than one matrix holds: they are taken in several."""
    random = np.random.default_rng(3)
    positions = np.concatenate(
        (random.normal(0, 5, (6_000, 3)), random.uniform(-2_000, 2_000, (2_000, 3)), [[1e6, 0.0, 0.0]])
    )
    viewers = positions[::40]
    found = NearestGrid(positions, side=50.0).nearest(viewers, 300)
    for viewer, row in zip(viewers, found, strict=True):
        assert distances(positions, viewer, row) == distances(positions, viewer, np.arange(8_001))[:300]


def test_cells_are_made_larger_until_their_numbers_have_16_bits() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [1e9, 1e9, 0.0], [1.0, 0.0, 0.0]])
    grid = NearestGrid(positions, side=1e-3)
    across, down = grid._shape
    assert 1 < across * down <= MAX_CELLS
    assert set(grid.nearest(positions[:1], 2)[0].tolist()) == {0, 2}


def test_nobody_and_nothing_give_empty_rows() -> None:
    nothing = np.empty((0, 3))
    assert NearestGrid(nothing, side=1.0).nearest(np.zeros((2, 3)), 5).shape == (2, 0)
    assert NearestGrid(np.zeros((4, 3)), side=1.0).nearest(nothing, 3).shape == (0, 3)


@pytest.mark.parametrize("side", [0.0, -1.0, np.inf, np.nan])
def test_a_cell_without_a_side_is_refused(side: float) -> None:
    with pytest.raises(ConfigurationError, match="side"):
        NearestGrid(np.zeros((1, 3)), side=side)


@pytest.mark.parametrize("wrong", [np.inf, np.nan, -1e200])
def test_who_is_nowhere_is_refused(wrong: float) -> None:
    nowhere = np.array([[0.0, wrong, 0.0]])
    with pytest.raises(ConfigurationError, match="leave that one out"):
        NearestGrid(nowhere, side=1.0)
    with pytest.raises(ConfigurationError, match="leave that one out"):
        NearestGrid(np.zeros((1, 3)), side=1.0).nearest(nowhere, 1)

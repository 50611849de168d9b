import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.replication.predict import (
    largest_of,
    predicted_positions,
    predicted_rotations,
    standing,
    without,
)
from bridge.replication.seats import (
    LARGEST,
    POSITION,
    ROTATION,
    SEEN_ANGULAR_VELOCITY_STEP,
    SEEN_POSITION_STEP,
    SPIN,
    VELOCITY,
    rows_of,
)
from bridge.replication.world import WorldState
from tests.support.states import degrees_between, states, together

RATE = 60


def row(**fields: object) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    plain = {"tick": 0, "position": np.zeros(3), "velocity": np.zeros(3)}
    return rows_of([1], 0, together([WorldState(**plain | fields)])).astype(np.int64)  # type: ignore[arg-type]


def test_what_falls_is_expected_where_it_falls_to() -> None:
    """The mean of both velocities is exact under any constant acceleration."""
    seconds, gravity = 8 / RATE, np.array([0, 0, -9.81])
    start, speed = np.array([1.0, 2.0, 50.0]), np.array([3.0, -2.0, 5.0])
    before = row(position=start, velocity=speed)
    after = row(
        position=start + speed * seconds + gravity * seconds**2 / 2, velocity=speed + gravity * seconds
    )
    expected = predicted_positions(before, after[:, VELOCITY], np.array([8]), RATE)
    # A step of velocity is 32 mm/s, so 8 ticks of half of it are two steps of position.
    assert np.abs(expected - after[:, POSITION]).max() <= 2


@given(
    st.integers(-(2**15), 2**15 - 1),
    st.integers(-(2**15), 2**15 - 1),
    st.integers(1, 64),
    st.integers(1, 255),
)
def test_a_way_is_rounded_to_the_nearest_step(before: int, after: int, age: int, rate: int) -> None:
    base = np.zeros((1, 15), dtype=np.int64)
    base[:, VELOCITY] = before
    (moved,) = predicted_positions(base, np.full((1, 3), after), np.array([age]), rate)[:, 0].tolist()
    assert abs(moved - (before + after) / 2 / 32 * age / rate / SEEN_POSITION_STEP) <= 0.5 + 1e-9


@given(states(), st.lists(st.integers(-100, 100), min_size=3, max_size=3), st.integers(1, 12))
def test_what_turns_is_expected_as_it_turns(state: WorldState, spin: list[int], age: int) -> None:
    before = row(rotation=state.rotation)
    before[:, SPIN] = spin
    turn = np.array(spin) * SEEN_ANGULAR_VELOCITY_STEP * age / RATE
    angle = float(np.linalg.norm(turn))
    axis = turn / angle if angle else turn
    x, y, z = axis * np.sin(angle / 2)
    w = np.cos(angle / 2)
    a, b, c, d = standing(before)[0]
    exact = [
        w * a + x * d + y * c - z * b,
        w * b + y * d + z * a - x * c,
        w * c + z * d + x * b - y * a,
        w * d - x * a - y * b - z * c,
    ]
    expected = predicted_rotations(before, before[:, SPIN], np.array([age]), RATE)
    # The tangent's series goes off with the fifth power of the angle.
    assert degrees_between(expected, np.array([exact]))[0] < 0.02 + 0.9 * max(0.0, angle - 0.5) ** 2 * 10


@given(states())
def test_what_stands_is_expected_as_it_is(state: WorldState) -> None:
    before = row(rotation=state.rotation)
    rotation = predicted_rotations(before, before[:, SPIN], np.array([64]), RATE)
    assert largest_of(standing(before)).tolist() == before[:, LARGEST].tolist()
    assert np.abs(without(rotation, before[:, LARGEST]) - before[:, ROTATION]).max() <= 1


def test_the_component_left_out_is_made_positive() -> None:
    quaternions = np.array([[0.1, -0.9, 0.2, 0.3], [0.1, 0.9, 0.2, 0.3]])
    one, two = without(quaternions, np.array([1, 1])).tolist()
    assert one == [-c for c in two]
    assert without(quaternions, np.array([0, 3])).shape == (2, 3)

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.replication.seats import (
    FLAGS,
    NOBODY,
    SEEN_ANGULAR_VELOCITY_STEP,
    SEEN_POSITION_STEP,
    SEEN_VELOCITY_STEP,
    SPIN,
    VELOCITY,
    empty_rows,
    handles_of,
    rows_of,
    seen_states,
)
from bridge.replication.world import EntityFlag, WorldState
from tests.support.states import degrees_between, states, together


@given(st.lists(states(), min_size=1, max_size=20))
def test_what_a_player_sees_errs_by_half_a_step_in_each_field(some: list[WorldState]) -> None:
    given_ = together(some)
    rows = rows_of(np.arange(len(some)), 0, given_)
    seen = seen_states(rows, 9)
    assert set(seen.ticks.tolist()) == {9}
    assert seen.flags.tolist() == given_.flags.tolist()
    assert np.abs(seen.positions - given_.positions).max() <= SEEN_POSITION_STEP / 2 + 1e-9
    assert degrees_between(seen.rotations, given_.rotations).max() < 0.6
    moving = given_.flags & EntityFlag.AT_REST == 0
    off = np.abs(seen.velocities - given_.velocities)
    assert off[moving].max(initial=0.0) <= SEEN_VELOCITY_STEP / 2
    off = np.abs(seen.angular_velocities - given_.angular_velocities)
    assert off[moving].max(initial=0.0) <= SEEN_ANGULAR_VELOCITY_STEP / 2
    assert not rows[~moving, VELOCITY].any()
    assert not rows[~moving, SPIN].any()


@given(st.lists(states(), min_size=1, max_size=20))
def test_what_a_player_saw_rounds_to_the_same_row_again(some: list[WorldState]) -> None:
    rows = rows_of(np.arange(len(some)), 7, together(some))
    assert rows_of(np.arange(len(some)), 7, seen_states(rows, 1)).tolist() == rows.tolist()


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1)), min_size=1))
def test_handles_and_low_epochs_are_kept(some: list[tuple[int, int]]) -> None:
    still = together([WorldState(tick=0, position=np.zeros(3), velocity=np.zeros(3)) for _ in some])
    epochs = np.array([epoch for _, epoch in some], dtype=np.uint64)
    handles, low = handles_of(rows_of([handle for handle, _ in some], epochs, still))
    assert handles.tolist() == [handle for handle, _ in some]
    assert low.tolist() == [epoch & 0xFFFF for _, epoch in some]


def test_an_empty_seat_has_nobody_and_zeros() -> None:
    rows = empty_rows(3)
    assert rows[:, FLAGS].tolist() == [NOBODY] * 3
    assert np.count_nonzero(rows) == 3

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.replication import EntityFlag, World, state_hash
from bridge.sim.bodies import Bodies
from bridge.sim.motion import Held


def bodies() -> tuple[Bodies, World]:
    world = World(bytearray(World.size(4)), 4)
    return Bodies(world), world


def test_only_what_is_held_moves() -> None:
    simulation, world = bodies()
    for slot in (0, 1):
        simulation.place(slot, [0, 0, 0], [10, 0, 0])
    simulation.hold(0)
    simulation.step(0.1)
    assert world.read(0).position[0] > 0.9
    assert world.read(1).position[0] == 0
    simulation.let_go(0)
    before = world.read(0).position[0]
    simulation.step(0.1)
    assert world.read(0).position[0] == before


@given(st.sets(st.integers(0, 7)))
def test_what_lies_side_by_side_moves_as_what_does_not(held: set[int]) -> None:
    world = World(bytearray(World.size(8)), 8)
    simulation = Bodies(world)
    for slot in range(8):
        simulation.place(slot, [slot, 0, 0], [0, 2.0 * (slot % 3), 0])
    for slot in held:
        simulation.hold(slot)
    simulation.step(0.5)
    for slot in range(8):
        moved, state = slot in held, world.read(slot)
        speed = 2.0 * (slot % 3) * (0.75 if moved else 1.0)
        assert state.tick == moved
        assert state.position.tolist() == [slot, 0.5 * speed * moved, 0]
        assert state.velocity.tolist() == [0, speed, 0]
        assert bool(state.flags & EntityFlag.AT_REST) == (moved and speed == 0)


def test_a_ball_slows_down_and_stops() -> None:
    simulation, world = bodies()
    simulation.place(0, [0, 0, 0], [10, 0, 0])
    simulation.hold(0)
    for _ in range(1_000):
        simulation.step(1 / 60)
    assert abs(world.read(0).velocity[0]) < 0.01
    assert 15 < world.read(0).position[0] < 25


def test_a_body_that_is_steered_goes_on_from_where_it_is() -> None:
    simulation, world = bodies()
    simulation.place(0, [1, 2, 3], [10, 0, 0])
    simulation.hold(0)
    simulation.steer(0, [0, 5, 0])
    simulation.step(0.1)
    x, y, _ = world.read(0).position
    assert x == 1
    assert y > 2


@given(st.sets(st.integers(0, 3), min_size=1))
def test_a_motion_changes_what_is_held_and_is_told_by_slot(slots: set[int]) -> None:
    def fall(held: Held, seconds: float) -> None:
        held.velocities[:, 2] -= 10.0 * seconds
        held.positions[:] += held.velocities * seconds
        held.rotations[:] = (1.0, 0.0, 0.0, 0.0)
        held.angular_velocities[:, 0] = held.slots

    world = World(bytearray(World.size(4)), 4)
    simulation = Bodies(world, fall)
    for slot in slots:
        simulation.hold(slot)
    simulation.step(0.5)
    simulation.step(0.5)
    for slot in range(4):
        state, held = world.read(slot), slot in slots
        assert state.position.tolist() == [0, 0, -7.5 * held]
        assert state.velocity.tolist() == [0, 0, -10.0 * held]
        assert state.rotation[0] == held
        assert state.angular_velocity[0] == slot * held
        assert state.flags == 0


def test_a_body_that_is_moved_does_not_jump_and_is_at_rest_only_without_either_velocity() -> None:
    world = World(bytearray(World.size(4)), 4)
    simulation = Bodies(world, lambda held, seconds: None)
    simulation.hold(0)
    simulation.move(0, [1, 2, 3], rotation=(0, 1, 0, 0), velocity=(0, 0, 0), angular_velocity=(0, 0, 2))
    simulation.step(0.1)
    assert world.read(0).position.tolist() == [1, 2, 3]
    assert world.read(0).angular_velocity.tolist() == [0, 0, 2]
    assert world.read(0).flags == 0
    simulation.move(0, [1, 2, 4], rotation=None, velocity=(0, 0, 0), angular_velocity=(0, 0, 0))
    simulation.step(0.1)
    assert world.read(0).rotation.tolist() == [0, 1, 0, 0]
    assert world.read(0).flags == EntityFlag.AT_REST


def test_a_state_taken_over_is_published_bit_for_bit() -> None:
    """R0-27."""
    (giver, theirs), (taker, ours) = bodies(), bodies()
    giver.place(2, [1.25, 2.5, 0], [3, 0, 0])
    state = theirs.read(2)
    taker.take_over(1, state)
    assert state_hash(ours.read(1)) == state_hash(state)
    assert np.array_equal(ours.read(1).position, state.position)

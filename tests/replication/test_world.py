import mmap
import threading

import numpy as np
import pytest

from bridge.errors import ConfigurationError
from bridge.replication.world import EntityFlag, States, World


def test_two_views_of_one_memory_see_the_same_world() -> None:
    memory = mmap.mmap(-1, World.size(4))
    writer, reader = World(memory, 4), World(memory, 4)
    writer.write(2, tick=7, position=[1.0, 2.0, 3.0], velocity=[4.0, 5.0, 6.0])
    state = reader.read(2)
    assert (state.tick, state.position.tolist(), state.velocity.tolist()) == (7, [1, 2, 3], [4, 5, 6])
    assert reader.read(3).tick == 0


def test_gathering_takes_many_slots_in_the_order_asked_for() -> None:
    world = World(bytearray(World.size(3)), 3)
    for slot in range(3):
        world.write(slot, tick=slot, position=[slot, 0, 0])
    states = world.gather(np.array([2, 0]))
    assert len(states) == 2
    assert states.ticks.tolist() == [2, 0]
    assert states.positions[:, 0].tolist() == [2, 0]
    assert states.rotations.tolist() == [[0, 0, 0, 1]] * 2
    assert states.velocities.shape == states.angular_velocities.shape == (2, 3)


def test_scattering_sets_many_slots_and_no_other() -> None:
    world = World(bytearray(World.size(4)), 4)
    world.scatter(np.array([3, 1]), ticks=5, positions=np.full((2, 3), 2.0), velocities=np.ones((2, 3)))
    assert [world.read(slot).tick for slot in range(4)] == [0, 5, 0, 5]
    assert world.read(3).position.tolist() == [2.0, 2.0, 2.0]


def test_a_slot_left_half_written_is_reported_not_read() -> None:
    memory = bytearray(World.size(1))
    world = World(memory, 1)
    memory[0] = 1
    with pytest.raises(ConfigurationError, match="half-written"):
        world.read(0)
    with pytest.raises(ConfigurationError, match="half-written"):
        world.gather(np.array([0]))


def test_a_writer_that_stands_still_inside_a_write_is_waited_for() -> None:
    memory = bytearray(World.size(3))
    world, end = World(memory, 3), threading.Event()
    for slot in range(3):
        world.write(slot, tick=1, position=[slot, 0, 0])
    memory[8] += 1

    def go_on() -> None:
        end.wait()
        # Half of the new state has been there for long.
        memory[8] += 1

    writer = threading.Thread(target=go_on)
    writer.start()
    world._position[1] = 7.0
    threading.Timer(0.05, end.set).start()
    states = world.gather(np.array([2, 1, 0]))
    writer.join()
    assert states.positions[:, 0].tolist() == [2, 7, 0]
    assert states.ticks.tolist() == [1, 1, 1]


def test_too_little_memory_is_refused_with_the_size_it_takes() -> None:
    with pytest.raises(ConfigurationError, match="256 bytes"):
        World(bytearray(200), 2)


def test_a_whole_state_is_read_as_it_was_written() -> None:
    world = World(bytearray(World.size(2)), 2)
    told = {
        "position": [1.0, 2.0, 3.0],
        "rotation": [0.0, 1.0, 0.0, 0.0],
        "velocity": [4.0, 5.0, 6.0],
        "angular_velocity": [7.0, 8.0, 9.0],
    }
    world.write(1, tick=4, flags=EntityFlag.GHOST, **told)
    state = world.read(1)
    assert {name: getattr(state, name).tolist() for name in told} == told
    assert (state.tick, state.flags) == (4, EntityFlag.GHOST)


def test_stored_states_gather_as_they_were_and_of_a_slot_named_twice_the_last_counts() -> None:
    world = World(bytearray(World.size(4)), 4)
    for slot in range(3):
        world.write(slot, tick=slot, position=[slot, 0, 0], angular_velocity=[0, 0, slot], flags=slot)
    world.store(np.array([3, 3, 3]), world.gather(np.array([0, 2, 1])))
    assert world.read(3).tick == 1
    assert world.gather(np.array([3])).select(np.array([True]))[0].flags == 1
    one = States.of(world.read(2))
    assert (one.ticks.tolist(), one.angular_velocities.tolist()) == ([2], [[0, 0, 2]])

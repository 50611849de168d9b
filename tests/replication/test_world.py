import mmap

import numpy as np
import pytest

from bridge.errors import ConfigurationError
from bridge.replication.world import World


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
    ticks, positions, velocities = world.gather(np.array([2, 0]))
    assert ticks.tolist() == [2, 0]
    assert positions[:, 0].tolist() == [2, 0]
    assert velocities.shape == (2, 3)


def test_scattering_sets_many_slots_and_no_other() -> None:
    world = World(bytearray(World.size(4)), 4)
    world.scatter(np.array([3, 1]), tick=5, positions=np.full((2, 3), 2.0), velocities=np.ones((2, 3)))
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


def test_too_little_memory_is_refused_with_the_size_it_takes() -> None:
    with pytest.raises(ConfigurationError, match="128 bytes"):
        World(bytearray(100), 2)

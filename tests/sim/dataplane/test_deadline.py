import mmap
import os

from bridge.replication import World
from bridge.sim.dataplane.deadline import Deadline, Turns, boot_ns, shared_size


def test_nothing_may_be_sealed_before_a_deadline_is_set() -> None:
    assert Deadline(bytearray(shared_size(8)), 8).is_over()


def test_a_deadline_lasts_until_its_time_and_may_be_taken_back() -> None:
    deadline = Deadline(bytearray(shared_size(8)), 8)
    deadline.set(boot_ns() + 3_600 * 10**9)
    assert not deadline.is_over()
    deadline.set(0)
    assert deadline.is_over()


def test_turns_are_counted_beside_the_deadline() -> None:
    memory = bytearray(shared_size(8))
    deadline, turns, seen = Deadline(memory, 8), Turns(memory, 8), Turns(memory, 8)
    deadline.set(2**63)
    for _ in range(3):
        turns.made()
    assert seen.count() == 3
    assert not deadline.is_over()


def test_both_sides_of_a_shared_block_see_one_word_behind_the_world() -> None:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, shared_size(8))
    ours, theirs = (mmap.mmap(descriptor, shared_size(8)) for _ in range(2))
    os.close(descriptor)
    world = World(ours, 8)
    deadline = Deadline(ours, 8)
    deadline.set(2**63)
    assert not Deadline(theirs, 8).is_over()
    world.write(7, tick=2**32 - 1, position=(1.0, 2.0, 3.0), flags=255)
    assert not Deadline(theirs, 8).is_over()

import numpy as np

from benchmarks.cubes import CUBES, Cubes
from bridge.replication import EntityFlag


def run(seed: int, ticks: int) -> Cubes:
    scene = Cubes(seed)
    for _ in range(ticks):
        scene.step()
    return scene


def test_the_same_seed_is_the_same_scene_and_another_is_another() -> None:
    one, two, other = run(1, 120), run(1, 120), run(2, 120)
    assert one.states().positions.tobytes() == two.states().positions.tobytes()
    assert one.states().positions.tobytes() != other.states().positions.tobytes()


def test_cubes_are_pushed_and_turned_and_come_to_rest_again() -> None:
    scene = Cubes(1)
    start = scene.position.copy()
    awake = []
    for _ in range(400):
        scene.step()
        awake.append(int(scene.awake.sum()))
    moved = np.linalg.norm(scene.position - start, axis=1) > 0.05
    turned = np.abs(scene.rotation[:, 3]) < 0.999
    assert moved.sum() > 30
    assert (moved & turned).sum() > 20
    assert (moved & ~scene.awake).any()
    assert 20 < max(awake) < CUBES / 4


def test_what_sleeps_is_at_rest_and_does_not_move() -> None:
    scene = run(1, 200)
    before = scene.states()
    asleep = before.flags == EntityFlag.AT_REST
    assert not before.velocities[asleep].any()
    assert np.isfinite(before.positions).all()
    assert (before.positions[:, 2] >= 0.19).all()
    scene.step()
    still = asleep & (scene.states().flags == EntityFlag.AT_REST)
    assert np.abs(scene.position[still] - before.positions[still]).max() < 0.05


def test_cells_hold_neighbours() -> None:
    scene = Cubes(1)
    order = scene.groups(10)
    assert sorted(order.tolist()) == list(range(CUBES))
    assert order[-1] == 0
    for cell in order[:-1].reshape(9, 100):
        assert np.ptp(scene.position[cell, :2], axis=0).max() < 8.0

"""What moves the entities of a server, and what a world may give it instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import InvalidStateError
from bridge.registry import NotOwnerError
from bridge.sim.events import Problem
from bridge.sim.motion import Held, roll
from tests.support.cluster import fresh
from tests.support.simulation import SECONDS, simulation


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_rolls_slows_down_in_a_straight_line() -> None:
    velocities = np.array([[10.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    held = Held(
        slots=np.arange(2),
        positions=np.zeros((2, 3)),
        rotations=np.tile((0.0, 0.0, 0.0, 1.0), (2, 1)),
        velocities=velocities,
        angular_velocities=np.zeros((2, 3)),
    )
    for _ in range(60):
        roll(held, 1 / 60)
    assert len(held) == 2
    assert 7.5 < held.positions[0, 0] < 8.5
    assert 5.5 < velocities[0, 0] < 6.5
    assert not held.positions[1].any()


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_world_of_ones_own_moves_by_its_own_laws(cluster: LocalCluster) -> None:
    seen: list[int] = []

    def rise(held: Held, seconds: float) -> None:
        seen.extend(held.slots.tolist())
        held.velocities[:] = (0.0, 0.0, 1.0)
        held.positions[:] += held.velocities * seconds

    async with simulation(cluster, fresh("sim"), motion=rise) as one:
        transfers, kite = one.server.transfers, fresh("kite")
        with pytest.raises(InvalidStateError):
            transfers.steer(kite, (1.0, 0.0, 0.0))
        with pytest.raises(InvalidStateError):
            transfers.slot(kite)
        await transfers.spawn(kite, owner="Ann", position=(0.0, 0.0, 5.0))
        jumps = transfers.state(kite).flags
        await until(lambda: transfers.state(kite).position[2] > 5.05)
        with pytest.raises(NotOwnerError):
            transfers.move(kite, (0.0, 0.0, 0.0), by="Bob")
        transfers.move(kite, (7.0, 0.0, 0.0), by="Ann")
        await until(lambda: transfers.state(kite).position[0] == 7.0)
        assert transfers.state(kite).flags == jumps
        assert set(seen) == {transfers.slot(kite)}


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_motion_that_fails_is_told(cluster: LocalCluster) -> None:
    def fail(held: Held, seconds: float) -> None:
        raise ZeroDivisionError("gravity")

    async with simulation(cluster, fresh("sim"), motion=fail) as one:
        await one.server.transfers.spawn(fresh("kite"), owner="Ann", position=(0.0, 0.0, 5.0))
        await one.until(lambda: Problem(text="ZeroDivisionError: gravity", fatal=True) in one.events)

"""A synthetic scene after G. Fiedler's "Snapshot Compression": a large cube pushed through 900 small ones.

Stated as synthetic: it has the number of bodies, the tick rate and the kind of motion of his scene, not his
recording and not his physics engine. Gravity, ground, friction, rolling and sleep are simulated in arrays;
contact is that of spheres, between the large cube and the small ones and among small ones that are near each
other. Seeded, deterministic.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication import EntityFlag, States
from bridge.replication.world import Floats

SIDE: Final = 30
"""small cubes along one side of their grid"""
CUBES: Final = SIDE * SIDE + 1
TICK_RATE: Final = 60
"""ticks a second"""

_SPACING: Final = 0.8
_SMALL: Final = 0.2
"""metres, half of a small cube's edge"""
_LARGE: Final = 1.0
_GRAVITY: Final = 9.81
_FRICTION: Final = 0.25
_SPIN_DAMPING: Final = 1.5
"""per second, on the ground"""
_SLEEP_SPEED: Final = 0.08
_SLEEP_TICKS: Final = 15


class Cubes:
    """The scene; ``step`` moves it by one tick.

    Args:
        seed: of the first positions and of the way that the large cube takes. Cube 0 is the large one.
    """

    def __init__(self, seed: int = 1) -> None:
        source = np.random.default_rng(seed)
        grid = (np.arange(SIDE) - (SIDE - 1) / 2) * _SPACING
        self.tick = 0
        self.position = np.zeros((CUBES, 3))
        self.position[1:, 0], self.position[1:, 1] = np.repeat(grid, SIDE), np.tile(grid, SIDE)
        self.position[1:, :2] += source.uniform(-0.05, 0.05, (CUBES - 1, 2))
        self.half = np.full(CUBES, _SMALL)
        self.half[0] = _LARGE
        self.position[:, 2] = self.half
        self.position[0, :2] = -14.0, 0.0
        self.velocity = np.zeros((CUBES, 3))
        self.spin = np.zeros((CUBES, 3))
        self.rotation = np.tile((0.0, 0.0, 0.0, 1.0), (CUBES, 1))
        self._quiet = np.full(CUBES, _SLEEP_TICKS)
        self._phases = source.uniform(0, 2 * np.pi, 2)

    def groups(self, size: int) -> npt.NDArray[np.intp]:
        """Cubes in the order of their cells: neighbours in the grid stand together; the large one is last.

        Args:
            size: how many small cubes a cell has along one side.
        """
        row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
        cell = row // size * ((SIDE - 1) // size + 1) + column // size
        return np.append(np.argsort(cell, kind="stable") + 1, 0)

    @property
    def awake(self) -> npt.NDArray[np.bool_]:
        """Which cubes move."""
        return self._quiet < _SLEEP_TICKS

    def step(self) -> None:
        """One sixtieth of a second."""
        seconds = 1 / TICK_RATE
        self.tick += 1
        self._drive(self.tick * seconds, seconds)
        self._collide(seconds)
        moving = self.awake
        moving[0] = True
        self.velocity[moving, 2] -= _GRAVITY * seconds
        self.position[moving] += self.velocity[moving] * seconds
        self._ground(moving, seconds)
        self._turn(moving, seconds)
        speed = np.linalg.norm(self.velocity, axis=1) + self.half * np.linalg.norm(self.spin, axis=1)
        self._quiet = np.where(speed < _SLEEP_SPEED, np.minimum(self._quiet + 1, _SLEEP_TICKS), 0)
        asleep = self._quiet >= _SLEEP_TICKS
        self.velocity[asleep] = 0.0
        self.spin[asleep] = 0.0

    def states(self) -> States:
        """All cubes now."""
        flags = np.where(self.awake, 0, EntityFlag.AT_REST).astype(np.uint8)
        return States(
            ticks=np.full(CUBES, self.tick, dtype=np.uint64),
            positions=self.position.copy(),
            rotations=self.rotation.copy(),
            velocities=self.velocity.copy(),
            angular_velocities=self.spin.copy(),
            flags=flags,
        )

    def _drive(self, now: float, seconds: float) -> None:
        # The player steers for a point that goes round in a Lissajous figure over the whole grid.
        goal = 11.0 * np.array([np.sin(0.31 * now + self._phases[0]), np.sin(0.47 * now + self._phases[1])])
        push = np.clip(2.0 * (goal - self.position[0, :2]) - 1.5 * self.velocity[0, :2], -12.0, 12.0)
        self.velocity[0, :2] += push * seconds

    def _collide(self, seconds: float) -> None:
        self._push(np.zeros(CUBES - 1, dtype=np.intp), np.arange(1, CUBES), mass=0.05)
        # Among small cubes only those that move can begin to touch another one.
        for cube in np.flatnonzero(self.awake[1:]) + 1:
            near = (
                np.flatnonzero(np.abs(self.position[1:, :2] - self.position[cube, :2]).max(axis=1) < 0.5) + 1
            )
            near = near[near != cube]
            self._push(np.full(len(near), cube), near, mass=1.0)

    def _push(self, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp], *, mass: float) -> None:
        """Contacts of spheres: part them, and take from them what speed brings them together."""
        way = self.position[other] - self.position[one]
        distance = np.linalg.norm(way, axis=1)
        depth = self.half[one] + self.half[other] - distance
        touching = np.flatnonzero((depth > 0) & (distance > 1e-9))
        if not len(touching):
            return
        one, other, depth = one[touching], other[touching], depth[touching]
        normal = way[touching] / distance[touching, None]
        closing = np.einsum("ij,ij->i", self.velocity[one] - self.velocity[other], normal)
        impulse = np.maximum(closing, 0.0) * 1.2 / (1.0 + mass)
        np.add.at(self.velocity, other, normal * impulse[:, None])
        np.subtract.at(self.velocity, one, normal * (impulse * mass)[:, None])
        np.add.at(self.position, other, normal * (depth * 0.5 / (1.0 + mass))[:, None])
        # Friction at the contact turns both.
        turn = np.cross(normal, self.velocity[one] - self.velocity[other]) * 0.5
        np.add.at(self.spin, other, turn)
        self._quiet[other[impulse > 0.02]] = 0

    def _ground(self, moving: npt.NDArray[np.bool_], seconds: float) -> None:
        floor = moving & (self.position[:, 2] <= self.half)
        self.position[floor, 2] = self.half[floor]
        self.velocity[floor, 2] = np.where(
            self.velocity[floor, 2] < -0.5, -0.3 * self.velocity[floor, 2], 0.0
        )
        small = floor.copy()
        small[0] = False
        speed = np.linalg.norm(self.velocity[small, :2], axis=1)
        kept = np.maximum(0.0, 1.0 - _FRICTION * _GRAVITY * seconds / np.maximum(speed, 1e-9))
        self.velocity[small, :2] *= kept[:, None]
        self.spin[small] *= max(0.0, 1.0 - _SPIN_DAMPING * seconds)
        # The large one rolls: its spin follows from its speed.
        self.spin[0] = np.array([-self.velocity[0, 1], self.velocity[0, 0], 0.0]) / _LARGE

    def _turn(self, moving: npt.NDArray[np.bool_], seconds: float) -> None:
        x, y, z, w = self.rotation[moving].T
        a, b, c = (self.spin[moving] * (seconds / 2)).T
        turned: Floats = np.stack(
            (
                x + a * w + b * z - c * y,
                y + b * w + c * x - a * z,
                z + c * w + a * y - b * x,
                w - a * x - b * y - c * z,
            ),
            axis=1,
        )
        self.rotation[moving] = turned / np.linalg.norm(turned, axis=1)[:, None]

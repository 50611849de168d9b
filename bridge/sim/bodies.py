"""The simulation that the demo runs: bodies that roll and slow down. Pure, structure of arrays.

Only what this server holds is moved; everything else is another server's to say.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.replication import World

ROLLING_DRAG: Final = 0.5
"""per second: a ball on grass loses about 40 % of its speed in a second"""


class Bodies:
    """Positions (metres) and velocities (metres per second) of up to ``world.capacity`` slots."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._position = np.zeros((world.capacity, 3))
        self._velocity = np.zeros((world.capacity, 3))
        self._held = np.zeros(world.capacity, dtype=bool)
        self.tick = 0

    def place(self, slot: int, position: npt.ArrayLike, velocity: npt.ArrayLike = (0.0, 0.0, 0.0)) -> None:
        """Put a body somewhere, and into the shared world at once."""
        self._position[slot] = position
        self._velocity[slot] = velocity
        self._world.write(slot, tick=self.tick, position=position, velocity=velocity)

    def take_over(self, slot: int, tick: int, position: npt.ArrayLike, velocity: npt.ArrayLike) -> None:
        """Go on from another server's last state: the first state is that one, bit for bit (R0-27)."""
        self._position[slot] = position
        self._velocity[slot] = velocity
        self._world.write(slot, tick=tick, position=position, velocity=velocity)

    def hold(self, slot: int) -> None:
        """Simulate this slot from now on."""
        self._held[slot] = True

    def let_go(self, slot: int) -> None:
        """Leave this slot as it is: its state is being given away."""
        self._held[slot] = False

    def step(self, seconds: float) -> None:
        """Move what is held by one tick and publish it."""
        self.tick += 1
        slots = np.flatnonzero(self._held)
        if not len(slots):
            return
        self._velocity[slots] *= max(0.0, 1.0 - ROLLING_DRAG * seconds)
        self._position[slots] += self._velocity[slots] * seconds
        self._world.scatter(
            slots, tick=self.tick, positions=self._position[slots], velocities=self._velocity[slots]
        )

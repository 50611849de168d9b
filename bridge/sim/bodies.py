"""The bodies of a server, which a motion moves tick by tick. Pure, structure of arrays.

Only what this server holds is moved; everything else is another server's to say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bridge.replication import NO_ROTATION, EntityFlag, World, WorldState
from bridge.sim.motion import Held, Motion, roll


class Bodies:
    """States of up to ``world.capacity`` slots, units as in ``WorldState``.

    Args:
        world: what is shared with the data plane.
        motion: moves what is held.
    """

    def __init__(self, world: World, motion: Motion = roll) -> None:
        self._world = world
        self._motion = motion
        self._position = np.zeros((world.capacity, 3))
        self._velocity = np.zeros((world.capacity, 3))
        self._rotation = np.tile(NO_ROTATION, (world.capacity, 1))
        self._spin = np.zeros((world.capacity, 3))
        self._teleport = np.zeros(world.capacity, dtype=np.uint8)
        self._held = np.zeros(world.capacity, dtype=bool)
        self.tick = 0

    def place(self, slot: int, position: npt.ArrayLike, velocity: npt.ArrayLike = (0.0, 0.0, 0.0)) -> None:
        """Put a body somewhere, and into the shared world at once."""
        self._position[slot] = position
        self._velocity[slot] = velocity
        self._rotation[slot] = NO_ROTATION
        self._spin[slot] = 0.0
        self._teleport[slot] ^= np.uint8(EntityFlag.TELEPORT)
        self._world.write(
            slot, tick=self.tick, position=position, velocity=velocity, flags=int(self._teleport[slot])
        )

    def move(
        self,
        slot: int,
        position: npt.ArrayLike,
        *,
        rotation: npt.ArrayLike | None,
        velocity: npt.ArrayLike,
        angular_velocity: npt.ArrayLike,
    ) -> None:
        """Say where a body has moved, without a jump; the next tick shows it.

        Args:
            rotation: ``None`` leaves it as it is.
        """
        self._position[slot] = position
        if rotation is not None:
            self._rotation[slot] = rotation
        self._velocity[slot] = velocity
        self._spin[slot] = angular_velocity

    def steer(self, slot: int, velocity: npt.ArrayLike) -> None:
        """Give a body another velocity, where it is; the next tick shows it."""
        self._velocity[slot] = velocity

    def take_over(self, slot: int, state: WorldState) -> None:
        """Go on from another server's last state: the first state is that one, bit for bit (R0-27)."""
        self._position[slot] = state.position
        self._velocity[slot] = state.velocity
        self._rotation[slot] = state.rotation
        self._spin[slot] = state.angular_velocity
        self._teleport[slot] = state.flags & EntityFlag.TELEPORT
        self._world.write(
            slot,
            tick=state.tick,
            position=state.position,
            rotation=state.rotation,
            velocity=state.velocity,
            angular_velocity=state.angular_velocity,
            flags=state.flags,
        )

    def hold(self, slot: int) -> None:
        """Simulate this slot from now on."""
        self._held[slot] = True

    def let_go(self, slot: int) -> None:
        """Leave this slot as it is: its state is being given away."""
        self._held[slot] = False

    def clear(self, slot: int) -> None:
        """Leave nothing of the body that had this slot to the next one."""
        self._held[slot] = False
        self._position[slot] = self._velocity[slot] = self._spin[slot] = 0.0
        self._rotation[slot] = NO_ROTATION
        self._teleport[slot] = 0
        self._world.write(slot, tick=0, position=(0.0, 0.0, 0.0))

    def step(self, seconds: float, *, moving: bool = True) -> None:
        """Move what is held by one tick and publish it.

        Args:
            seconds: of a tick.
            moving: whether this server may move anything; the ticks count in any case.
        """
        self.tick += 1
        if not moving:
            return
        slots = np.flatnonzero(self._held)
        if not len(slots):
            return
        first, last = int(slots[0]), int(slots[-1])
        # Slots that follow each other, as those of a world that was made here, are moved where they are.
        is_run = last - first == len(slots) - 1
        at = slice(first, last + 1) if is_run else slots
        held = Held(
            slots=slots,
            positions=self._position[at],
            rotations=self._rotation[at],
            velocities=self._velocity[at],
            angular_velocities=self._spin[at],
        )
        self._motion(held, seconds)
        if not is_run:
            self._position[at] = held.positions
            self._rotation[at] = held.rotations
            self._velocity[at] = held.velocities
            self._spin[at] = held.angular_velocities
        is_moving = held.velocities.any(axis=1) | held.angular_velocities.any(axis=1)
        at_rest = np.where(is_moving, np.uint8(0), np.uint8(EntityFlag.AT_REST))
        self._world.scatter(
            slots,
            ticks=self.tick,
            positions=held.positions,
            rotations=held.rotations,
            velocities=held.velocities,
            angular_velocities=held.angular_velocities,
            flags=self._teleport[at] | at_rest,
        )

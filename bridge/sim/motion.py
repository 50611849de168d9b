"""What moves the entities of a server: a function of arrays, called once a tick. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

ROLLING_DRAG: Final = 0.5
"""per second: a ball on grass loses about 40 % of its speed in a second"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a server holds at one tick, a row for each entity; a motion changes the arrays in place.

    Attributes:
        slots: shape (n,), rising. A slot is an entity's as long as the server holds it (``Transfers.slot``
            tells which), so that what else a motion knows of entities can be in arrays by slot.
        positions: metres, shape (n, 3).
        rotations: unit quaternions x, y, z, w, shape (n, 4).
        velocities: metres per second, shape (n, 3); other servers predict by them.
        angular_velocities: radians per second, shape (n, 3). What has neither velocity is told as at rest.
    """

    slots: npt.NDArray[np.intp]
    positions: npt.NDArray[np.float64]
    rotations: npt.NDArray[np.float64]
    velocities: npt.NDArray[np.float64]
    angular_velocities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.slots)


Motion = Callable[[Held, float], None]
"""Moves what is held by so many seconds. It is called in the server's event loop, so it must take less than a
tick. An exception from it is a fatal ``Problem``: nothing moves any more, and others take over."""


def roll(held: Held, seconds: float) -> None:
    """Bodies that slide straight on and slow down: the motion of the demo."""
    held.velocities[:] *= max(0.0, 1.0 - ROLLING_DRAG * seconds)
    held.positions[:] += held.velocities * seconds

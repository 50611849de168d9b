"""Strategies for states of entities, and how far two rotations are apart."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from bridge.replication import States, WorldState

Floats = npt.NDArray[np.float64]

rotations = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(c * c for c in q) > 1e-3)


def vectors(limit: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(-limit, limit), min_size=3, max_size=3)


@st.composite
def states(draw: st.DrawFn) -> WorldState:
    rotation = np.array(draw(rotations))
    return WorldState(
        tick=draw(st.integers(0, 2**32 - 1)),
        position=np.array(draw(vectors(2e6))),
        rotation=rotation / np.linalg.norm(rotation),
        velocity=np.array(draw(vectors(300))),
        angular_velocity=np.array(draw(vectors(60))),
        flags=draw(st.integers(0, 7)),
    )


def together(some: list[WorldState]) -> States:
    """Many states as arrays."""
    return States(
        ticks=np.array([s.tick for s in some], dtype=np.uint64),
        positions=np.array([s.position for s in some], dtype=float).reshape(-1, 3),
        rotations=np.array([s.rotation for s in some], dtype=float).reshape(-1, 4),
        velocities=np.array([s.velocity for s in some], dtype=float).reshape(-1, 3),
        angular_velocities=np.array([s.angular_velocity for s in some], dtype=float).reshape(-1, 3),
        flags=np.array([s.flags for s in some], dtype=np.uint8),
    )


def degrees_between(a: Floats, b: Floats) -> Floats:
    """Angle between rotations, shapes (n, 4)."""
    a = a / np.linalg.norm(a, axis=1)[:, None]
    b = b / np.linalg.norm(b, axis=1)[:, None]
    # The chord is exact for small angles, where the arc cosine of a dot product is not.
    chord = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    angle: Floats = np.degrees(4 * np.arcsin(np.minimum(1.0, chord / 2)))
    return angle

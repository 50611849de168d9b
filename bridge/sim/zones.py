"""Which server of a static mesh simulates what, by where it is: zones, hysteresis, ghosts (R2-24, R0-A5).

An entity at a border must not go to and fro: it is handed over only once it has been beyond the zone of its
holder by a margin, for some time. Around each zone lies a strip whose entities its server follows as ghosts,
so it knows an entity before it gets it. What a server simulates and what it follows have budgets of their
own: ghosts never push out what is simulated. Pure; arrays over all entities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.errors import ConfigurationError

NOBODY: Final = -1
"""holder of an entity that is not there, or that no server has room for"""

Positions = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """A rectangle cut into equal zones, numbered row by row from the south-west.

    Metres. What lies outside belongs to the nearest zone.
    """

    west: float
    south: float
    east: float
    north: float
    columns: int
    rows: int

    def __post_init__(self) -> None:
        if not (self.west < self.east and self.south < self.north):
            raise ConfigurationError("a mesh has its west before its east, and its south before its north")
        if self.columns < 1 or self.rows < 1:
            raise ConfigurationError("a mesh has one column and one row or more")

    @property
    def zones(self) -> int:
        """Number of zones."""
        return self.columns * self.rows

    def zone_of(self, positions: Positions) -> Indices:
        """Zone of each position.

        Args:
            positions: metres, shape (n, 2): east, north.

        Returns:
            Shape (n,).
        """
        column = np.floor((positions[:, 0] - self.west) / self._width)
        row = np.floor((positions[:, 1] - self.south) / self._height)
        column = np.clip(column, 0, self.columns - 1)
        row = np.clip(row, 0, self.rows - 1)
        return (row * self.columns + column).astype(np.int32)

    def distances(self, positions: Positions) -> Positions:
        """Metres from each position to each zone, 0 inside; shape (n, zones).

        Zones at the rim reach beyond it without end, as ``zone_of`` says.
        """
        east = self._gaps(positions[:, 0], self.west, self._width, self.columns)
        north = self._gaps(positions[:, 1], self.south, self._height, self.rows)
        return np.hypot(north[:, :, None], east[:, None, :]).reshape(len(positions), self.zones)

    @property
    def _width(self) -> float:
        return (self.east - self.west) / self.columns

    @property
    def _height(self) -> float:
        return (self.north - self.south) / self.rows

    @staticmethod
    def _gaps(values: Positions, start: float, size: float, count: int) -> Positions:
        """Distance along one axis to each of its strips; shape (n, count)."""
        edges = start + size * np.arange(count + 1)
        edges[0], edges[-1] = -math.inf, math.inf
        below, above = edges[:-1] - values[:, None], values[:, None] - edges[1:]
        return np.maximum(np.maximum(below, above), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonePolicy:
    """When an entity is handed over, and what is followed."""

    margin: float = 0.0
    """metres beyond its holder's zone that an entity may be"""
    dwell: float = 0.0
    """seconds that it must have been beyond them, without a break"""
    strip: float = 0.0
    """metres around a zone whose entities are followed as ghosts"""
    authority_budget: int | None = None
    """entities that one server simulates; ``None``: no limit. Beyond it an entity stays where it is"""
    ghost_budget: int | None = None
    """ghosts that one server follows, the nearest to its zone first; ``None``: no limit"""

    def __post_init__(self) -> None:
        if min(self.margin, self.dwell, self.strip) < 0:
            raise ConfigurationError("margin, dwell and strip of zones are not negative")
        for budget in (self.authority_budget, self.ghost_budget):
            if budget is not None and budget < 0:
                raise ConfigurationError("a budget of zones is not negative")


class Moves(NamedTuple):
    """Hand-overs of one step: which entity, from whom, to whom; all of shape (m,).

    ``givers`` is ``NOBODY`` for an entity that appeared.
    """

    entities: Indices
    givers: Indices
    takers: Indices


class Zones:
    """Who holds what in a mesh of servers.

    Args:
        mesh: one server a zone.
        policy: when to hand over.
        entities: how many there are.

    Attributes:
        holders: zone of the server that simulates each entity, or ``NOBODY``; shape (entities,).
        deferred: hand-overs so far that waited because their taker had no room.
    """

    def __init__(self, mesh: Mesh, policy: ZonePolicy, entities: int) -> None:
        self._mesh = mesh
        self._policy = policy
        self.holders: Indices = np.full(entities, NOBODY, dtype=np.int32)
        self._beyond_since = np.full(entities, math.inf)
        self.deferred = 0

    def step(self, positions: Positions, present: npt.NDArray[np.bool_], *, now: float) -> Moves:
        """Decide who holds each entity now.

        Args:
            positions: metres, shape (entities, 2); where an entity is not present they are not looked at.
            present: which entities there are.
            now: seconds; never less than before.
        """
        self.holders[~present] = NOBODY
        self._beyond_since[~present] = math.inf
        at = np.flatnonzero(present).astype(np.int32)
        zones = self._mesh.zone_of(positions[at])
        distances = self._mesh.distances(positions[at])
        held = self.holders[at]
        new = held == NOBODY
        away = np.zeros(len(at))
        away[~new] = distances[~new, held[~new]]
        # On the very border one is in another zone at no distance: without a margin that is beyond.
        beyond = ~new & (zones != held) & (away >= self._policy.margin)
        since = np.where(beyond, np.minimum(self._beyond_since[at], now), math.inf)
        self._beyond_since[at] = since
        due = new | (beyond & (now - since >= self._policy.dwell))
        return self._hand_over(at[due], zones[due])

    def ghosts(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Which server follows which entity that another one holds; shape (entities, zones)."""
        distances = self._mesh.distances(positions)
        held = np.flatnonzero(self.holders != NOBODY)
        distances[held, self.holders[held]] = math.inf
        distances[self.holders == NOBODY] = math.inf
        near = distances <= self._policy.strip
        budget = self._policy.ghost_budget
        if budget is not None:
            order = np.argsort(distances, axis=0, kind="stable")
            ranks = np.empty_like(order)
            np.put_along_axis(ranks, order, np.arange(len(distances))[:, None], axis=0)
            near &= ranks < budget
        return near

    def _hand_over(self, entities: Indices, takers: Indices) -> Moves:
        budget = self._policy.authority_budget
        if budget is not None and len(entities):
            room = budget - np.bincount(self.holders[self.holders != NOBODY], minlength=self._mesh.zones)
            # The first ones of each taker, as many as it has room for.
            order = np.argsort(takers, kind="stable")
            ordered = takers[order]
            position = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
            taken = np.empty(len(ordered), dtype=bool)
            taken[order] = position < room[ordered]
            self.deferred += int((~taken).sum())
            entities, takers = entities[taken], takers[taken]
        givers = self.holders[entities]
        self.holders[entities] = takers
        self._beyond_since[entities] = math.inf
        return Moves(entities, givers, takers)


def oscillations(moves: list[tuple[float, int, int, int]], within: float) -> int:
    """Hand-overs back to the server that gave the entity away a moment before.

    Args:
        moves: time in seconds, entity, giver, taker; in order of time.
        within: seconds that a moment is.
    """
    last: dict[int, tuple[float, int]] = {}
    count = 0
    for now, entity, giver, taker in moves:
        before = last.get(entity)
        if before is not None and before[1] == taker and now - before[0] <= within:
            count += 1
        last[entity] = (now, giver)
    return count

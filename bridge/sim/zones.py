"""Which server of a static mesh simulates what, by where it is: zones, hysteresis, ghosts (R2-24, R0-A5).

An entity at a border must not go to and fro: it is handed over only once it has been beyond the zone of its
holder by a margin, for some time. Around each zone lies a strip whose entities its server follows as ghosts,
so it knows an entity before it gets it. What a server simulates and what it follows have budgets of their
own: ghosts never push out what is simulated. Pure; arrays over all entities.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A mesh and who has which of its zones: the same at all its servers.

    Attributes:
        mesh: the zones.
        policy: when to hand over, and what to follow.
        servers: zones of each server, by its name. A zone may be nobody's: what is in it stays where it is.
    """

    mesh: Mesh
    policy: ZonePolicy
    servers: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        if not self.servers:
            raise ConfigurationError("a mesh names the server of one zone or more")
        named: dict[int, str] = {}
        for server, zones in self.servers.items():
            for zone in zones:
                if not 0 <= zone < self.mesh.zones:
                    raise ConfigurationError(
                        f"{server} has zone {zone}: zones are 0 to {self.mesh.zones - 1}, row by row from "
                        "the south-west"
                    )
                if zone in named:
                    raise ConfigurationError(f"zone {zone} is that of {named[zone]} and of {server}")
                named[zone] = server
        if not all(self.servers.values()):
            raise ConfigurationError("each server of a mesh has one zone or more")
        # Else who hands an entity over would lose sight of it, and who gets it would not have seen it.
        if self.policy.strip <= self.policy.margin:
            raise ConfigurationError("the strip of zones is wider than their margin")


class Moves(NamedTuple):
    """Hand-overs of one step: which entity, from whom, to whom; all of shape (m,).

    ``givers`` is ``NOBODY`` for an entity that appeared.
    """

    entities: Indices
    givers: Indices
    takers: Indices


class Hysteresis:
    """Since when entities have been beyond their holder's zone.

    Args:
        policy: margin and dwell time.
        entities: how many there are; they are known by number.
    """

    def __init__(self, policy: ZonePolicy, entities: int) -> None:
        self._policy = policy
        self._since = np.full(entities, math.inf)

    def due(
        self, entities: Indices, elsewhere: npt.NDArray[np.bool_], metres: Positions, *, now: float
    ) -> npt.NDArray[np.bool_]:
        """Which entities are to be handed over; all of shape (n,).

        Args:
            entities: which.
            elsewhere: whether each is in a zone of somebody else.
            metres: from each to the zone of its holder.
            now: seconds; never less than before.
        """
        # On the very border one is in another zone at no distance: without a margin that is beyond.
        beyond = elsewhere & (metres >= self._policy.margin)
        since = np.where(beyond, np.minimum(self._since[entities], now), math.inf)
        self._since[entities] = since
        return beyond & (now - since >= self._policy.dwell)

    def forget(self, entities: Indices | npt.NDArray[np.bool_]) -> None:
        """They are somebody else's, or not there: where they were before does not count any more."""
        self._since[entities] = math.inf


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
        self._hysteresis = Hysteresis(policy, entities)
        self.deferred = 0

    def step(self, positions: Positions, present: npt.NDArray[np.bool_], *, now: float) -> Moves:
        """Decide who holds each entity now.

        Args:
            positions: metres, shape (entities, 2); where an entity is not present they are not looked at.
            present: which entities there are.
            now: seconds; never less than before.
        """
        self.holders[~present] = NOBODY
        self._hysteresis.forget(~present)
        at = np.flatnonzero(present).astype(np.int32)
        zones = self._mesh.zone_of(positions[at])
        distances = self._mesh.distances(positions[at])
        held = self.holders[at]
        new = held == NOBODY
        away = np.zeros(len(at))
        away[~new] = distances[~new, held[~new]]
        due = new | self._hysteresis.due(at, ~new & (zones != held), away, now=now)
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
        self._hysteresis.forget(entities)
        return Moves(entities, givers, takers)


class Part:
    """A mesh as one of its servers sees it: what it is to give to whom, and what of it others follow.

    Args:
        layout: of the mesh.
        server: this one, which has a zone of it.
        entities: how many this server can come to hold; they are known by number.

    Attributes:
        servers: all servers of the mesh; others are known by their place in it.
    """

    def __init__(self, layout: Layout, server: str, entities: int) -> None:
        if server not in layout.servers:
            raise ConfigurationError(f"{server} has no zone of the mesh of {', '.join(layout.servers)}")
        self.servers = tuple(sorted(layout.servers))
        self._mesh = layout.mesh
        self._policy = layout.policy
        self._own = self.servers.index(server)
        self._owner: Indices = np.full(layout.mesh.zones, NOBODY, dtype=np.int32)
        for number, name in enumerate(self.servers):
            self._owner[list(layout.servers[name])] = number
        self._hysteresis = Hysteresis(layout.policy, entities)
        self._held = np.zeros(entities, dtype=bool)

    def distances(self, positions: Positions) -> Positions:
        """Metres from each position to the nearest zone of each server; shape (n, servers)."""
        zones = self._mesh.distances(positions)
        return np.stack([zones[:, self._owner == n].min(axis=1) for n in range(len(self.servers))], axis=1)

    def due(self, held: Indices, positions: Positions, *, now: float) -> Indices:
        """To whom each entity is to be handed over; ``NOBODY`` where it is to stay.

        Whoever does not get it now is asked about it again: it is due until it is back or not held any more.

        Args:
            held: all that this server holds, shape (n,).
            positions: metres, shape (n, 2): east, north.
            now: seconds; never less than before.
        """
        before, self._held = self._held, np.zeros_like(self._held)
        self._held[held] = True
        self._hysteresis.forget(before & ~self._held)
        takers = self._owner[self._mesh.zone_of(positions)]
        elsewhere = takers != self._own
        due = self._hysteresis.due(held, elsewhere, self.distances(positions)[:, self._own], now=now)
        return np.where(due, takers, NOBODY).astype(np.int32)

    def bordering(self, positions: Positions) -> dict[str, list[tuple[int, float]]]:
        """What each other server follows of what this one holds: row and metres, the nearest first."""
        distances = self.distances(positions)
        found = {}
        for number, name in enumerate(self.servers):
            if number == self._own:
                continue
            metres = distances[:, number]
            rows = np.flatnonzero(metres <= self._policy.strip)
            rows = rows[np.argsort(metres[rows], kind="stable")][: self._policy.ghost_budget]
            found[name] = list(zip(rows.tolist(), metres[rows].tolist(), strict=True))
        return found

    def successors(self, positions: Positions) -> list[list[str]]:
        """Other servers for each position, that of the nearest zone first."""
        distances = self.distances(positions)
        distances[:, self._own] = math.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, : len(self.servers) - 1]
        return [[self.servers[number] for number in row] for row in order.tolist()]


def nearest(entities: Iterable[tuple[str, float]], budget: int | None) -> set[str]:
    """So many of the entities, those at the fewest metres."""
    if budget is None:
        return {entity for entity, _ in entities}
    return {entity for entity, _ in heapq.nsmallest(budget, entities, key=lambda one: one[1])}


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

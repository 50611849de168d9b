"""A world is made at one simulation server until another one knows all of it, and one comes to it later."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import numpy as np

from benchmarks.lease import processor_seconds
from benchmarks.world.stage import LongestTurn, Watching, meet, until
from bridge.cluster.local import LocalCluster
from bridge.registry import Rule
from tests.support.simulation import children

RATE_HZ: Final = 20.0
"""simulation steps, and states of each entity, a second"""
_LARGE: Final = 100_000
"""entities of the world that R0-A3 names"""


def _positions(entities: int) -> dict[str, tuple[float, ...]]:
    """Where each lies: whole millimetres, so that what arrives can be held against it."""
    places = np.random.default_rng(7).integers(-2_000_000, 2_000_000, (entities, 3)) / 1000
    return {f"e{number}": tuple(place) for number, place in enumerate(places.tolist())}


class _Unknown:
    """What of a world a server does not know yet."""

    def __init__(self, server: Watching, positions: dict[str, tuple[float, ...]]) -> None:
        self._server = server
        self._positions = positions
        self._records = list(positions)
        self._states = list(positions)

    def records(self) -> bool:
        """Whether none is left of which the homeserver's record is not here."""
        owner = self._server.server.transfers.recorded_owner
        while self._records and owner(self._records[-1]):
            self._records.pop()
        return not self._records

    def states(self) -> bool:
        """Whether none is left whose state here is not the one that it was given."""
        if len(self._server.accepted) < len(self._positions):
            return False
        # In arrays: to look at them one by one stops the servers, whose event loop this is, for seconds.
        standing = self._server.server.transfers._standing
        slots = np.array([standing.slots[name] for name in self._states])
        there = standing.plane.world.gather(slots).positions
        wanted = np.array([self._positions[name] for name in self._states])
        wrong = np.flatnonzero((np.abs(there - wanted) > 0.001).any(axis=1))
        self._states = [self._states[number] for number in wrong.tolist()]
        return not self._states


class _Processors:
    """Processor time of the kinds of processes since this was made."""

    def __init__(self, cluster: LocalCluster) -> None:
        homeservers = [node.process.pid for node in cluster.state.nodes if node.process is not None]
        self._kinds = {
            "control_planes": [os.getpid()],
            "data_planes_and_guardians": sorted(children() - set(homeservers)),
            "homeservers": homeservers,
        }
        self._before = {kind: processor_seconds(pids) for kind, pids in self._kinds.items()}

    def ms_each(self, entities: int) -> dict[str, float]:
        """Milliseconds for each of so many entities."""
        return {
            kind: round(1000 * (processor_seconds(pids) - self._before[kind]) / entities, 3)
            for kind, pids in self._kinds.items()
        }


async def _known(server: Watching, positions: dict[str, tuple[float, ...]], begin: float) -> dict[str, float]:
    """Seconds from ``begin`` until the server knows all records, and all states."""
    unknown = _Unknown(server, positions)
    records = await until(unknown.records, f"records of all at {server.name}")
    states = await until(unknown.states, f"states of all at {server.name}")
    return {
        "records_s": round(records / 1e9 - begin, 2),
        "seconds": round(states / 1e9 - begin, 2),
    }


async def measure_load(cluster: LocalCluster, entities: int) -> dict[str, Any]:
    """Seconds until a world made by one server is known to another one, and to one that comes then."""
    positions = _positions(entities)
    maker, other, later = (
        Watching(cluster, f"load{n}", entities=entities, rate_hz=RATE_HZ) for n in (1, 2, 3)
    )
    async with maker.server, other.server:
        await meet(maker, other)
        processors = _Processors(cluster)
        begin = time.monotonic()
        await maker.server.transfers.spawn_many(positions, owner="ann", rule=Rule.ALLOW)
        made = time.monotonic() - begin
        loaded = await _known(other, positions, begin)
        cpu = processors.ms_each(entities)
        begin = time.monotonic()
        turn = LongestTurn()
        async with turn, later.server:
            joined = await _known(later, positions, begin)
        lost = maker.lost + other.lost + later.lost
    return {
        "entities": entities,
        "rate_hz": RATE_HZ,
        "made_s": round(made, 2),
        "records_s": loaded["records_s"],
        "seconds": loaded["seconds"],
        "entities_per_s": round(entities / loaded["seconds"]),
        "made_per_s": round(entities / made),
        "hundred_thousand_s": round(_LARGE * loaded["seconds"] / entities),
        "cpu_ms_per_entity": cpu,
        "join": joined | {"longest_turn_ms": round(1000 * turn.seconds, 1)},
        "sessions_lost": lost,
    }

"""Aircraft of a stretch of a day, in time lapse, on four real servers of a 2 × 2 mesh: who sees them when."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bridge.authority import Acceptance, Act, Entry, check, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.errors import BridgeError, InvalidStateError
from bridge.sim.config import SimulationConfig
from bridge.sim.events import AuthorityGained, ServerEvent, SessionLost
from bridge.sim.server import SimulationServer
from bridge.sim.zones import Layout, Mesh, ZonePolicy, oscillations

_PLACE_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 2.0
SERVERS: Final = ("sw", "se", "nw", "ne")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Part of a day.

    Attributes:
        positions: metres, shape (steps, aircraft, 2).
        present: shape (steps, aircraft).
        step: seconds of flight between positions.
        speed: seconds of flight in one of the benchmark.
    """

    positions: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]
    step: float
    speed: float

    @property
    def seconds(self) -> float:
        """How long it takes in time lapse."""
        return (len(self.positions) - 1) * self.step / self.speed

    def at(self, seconds: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], Any]:
        """Which aircraft there are then, where, and how fast they are in time lapse; metres."""
        step, part = divmod(seconds * self.speed / self.step, 1.0)
        before, after = int(step), int(step) + 1
        there = np.flatnonzero(self.present[before] & self.present[after])
        way = self.positions[after, there] - self.positions[before, there]
        return there, self.positions[before, there] + part * way, way * (self.speed / self.step)


def quarters(mesh: Mesh, policy: ZonePolicy) -> Layout:
    """Four zones over the same rectangle, one a server."""
    whole = Mesh(west=mesh.west, south=mesh.south, east=mesh.east, north=mesh.north, columns=2, rows=2)
    return Layout(mesh=whole, policy=policy, servers={name: (zone,) for zone, name in enumerate(SERVERS)})


class Flights:
    """Aircraft on the servers of a mesh: whoever simulates one is told where it flies.

    Attributes:
        known: hand-overs whose taker followed the entity before.
        taken: all of them.
        sessions_lost: of servers that had no processor in time; what they held is then no hand-over.
    """

    def __init__(self, layout: Layout) -> None:
        self.known = self.taken = self.sessions_lost = 0
        self._layout = layout
        self._servers: dict[str, SimulationServer] = {}
        self._holder: dict[str, SimulationServer] = {}

    async def start(self, cluster: LocalCluster, stack: AsyncExitStack) -> None:
        """Start the servers."""
        for name in SERVERS:
            config = SimulationConfig(
                name=name,
                node=f"{name}@127.0.0.1",
                members=cluster.members,
                cookie=cluster.cookie,
                epmd_port=cluster.epmd_port,
                register=False,
                mesh=self._layout,
                keep_history=True,
            )
            server = SimulationServer(config, lambda event, name=name: self._on_event(name, event))  # type: ignore[misc]
            self._servers[name] = await stack.enter_async_context(server)

    def _on_event(self, name: str, event: ServerEvent) -> None:
        self.sessions_lost += isinstance(event, SessionLost)
        if isinstance(event, AuthorityGained):
            server = self._servers[name]
            if event.entity in self._holder:
                self.taken += 1
                self.known += event.entity in server.zoning.ghosts
            self._holder[event.entity] = server

    async def fly(self, stretch: Stretch) -> None:
        """All of it, in time lapse."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as spawning:
            coming: set[str] = set()
            while (seconds := loop.time() - began) < stretch.seconds:
                numbers, positions, velocities = stretch.at(seconds)
                zones = self._layout.mesh.zone_of(positions).tolist()
                for number, position, velocity, zone in zip(
                    numbers.tolist(), positions, velocities, zones, strict=True
                ):
                    name = f"aircraft{number}"
                    if name in self._holder:
                        self._place(name, position, velocity)
                    elif name not in coming:
                        coming.add(name)
                        spawning.create_task(self._spawn(SERVERS[zone], name, position))
                await asyncio.sleep(_PLACE_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)

    def _place(self, name: str, position: Any, velocity: Any) -> None:
        try:
            self._holder[name].transfers.place(name, (*position, 0.0), (*velocity, 0.0))
        except InvalidStateError:
            # It is being handed over: its taker is told the next time.
            return

    async def _spawn(self, server: str, name: str, position: Any) -> None:
        await self._servers[server].transfers.spawn(name, owner="tower", position=(*position, 0.0))

    async def outcome(self, within: float) -> dict[str, Any]:
        """What came of it.

        Args:
            within: seconds in which a hand-over back is an oscillation.
        """
        reports = await asyncio.gather(*(server.report() for server in self._servers.values()))
        entries = [entry for report in reports for entry in decode_entries(report.history)]
        counts = [server.zoning.counts for server in self._servers.values()]
        verdict = check(entries)
        if verdict.violations:
            raise BridgeError(f"two acted at once: {verdict.violations[0].text}")
        return {
            "hand_overs": sum(one.given for one in counts),
            "failed": sum(one.failed for one in counts),
            "deferred": sum(one.deferred for one in counts),
            "sessions_lost": self.sessions_lost,
            "oscillations": oscillations(moves(entries), within),
            "known_as_ghost": round(self.known / max(1, self.taken), 4),
            **{f"{name}_ms": percentiles(gaps) for name, gaps in blackouts(entries).items()},
        }


def grants(entries: Iterable[Entry]) -> dict[str, list[Act]]:
    """Who acted for each entity, in order."""
    found: defaultdict[str, list[Act]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Act):
            found[entry.entity].append(entry)
    return {entity: sorted(acts, key=lambda act: act.epoch) for entity, acts in found.items()}


def moves(entries: Iterable[Entry]) -> list[tuple[float, int, int, int]]:
    """Hand-overs as ``oscillations`` takes them."""
    found = []
    for number, acts in enumerate(grants(entries).values()):
        for before, after in itertools.pairwise(acts):
            giver, taker = SERVERS.index(before.server), SERVERS.index(after.server)
            found.append((after.first_ns / 1e9, number, giver, taker))
    return sorted(found)


def blackouts(entries: list[Entry]) -> dict[str, list[float]]:
    """Milliseconds of each hand-over from the last state of the giver to the first one of the taker.

    ``nobody_acts``: between their sealings. ``at_giver`` and ``at_observer``: without an accepted state at
    the giver, whose own last one counts, and at each server that is neither.
    """
    accepted = {(e.entity, e.epoch, e.receiver): e for e in entries if isinstance(e, Acceptance)}
    found: dict[str, list[float]] = {"nobody_acts": [], "at_giver": [], "at_observer": []}
    for entity, acts in grants(entries).items():
        for before, after in itertools.pairwise(acts):
            found["nobody_acts"].append((after.first_ns - before.last_ns) / 1e6)
            for server in SERVERS:
                new = accepted.get((entity, after.epoch, server))
                if new is None:
                    continue
                if server == before.server:
                    found["at_giver"].append((new.first_ns - before.last_ns) / 1e6)
                elif (old := accepted.get((entity, before.epoch, server))) is not None:
                    found["at_observer"].append((new.first_ns - old.last_ns) / 1e6)
    return found


def percentiles(gaps: list[float]) -> dict[str, float | int]:
    """What is published of gaps."""
    if not gaps:
        return {"count": 0}
    p50, p99 = np.percentile(gaps, [50, 99])
    return {
        "count": len(gaps),
        "p50": round(float(p50), 1),
        "p99": round(float(p99), 1),
        "max": round(max(gaps), 1),
    }


async def fly_live(
    cluster: LocalCluster, mesh: Mesh, stretch: Stretch, policy: ZonePolicy, *, within: float
) -> dict[str, Any]:
    """Fly a stretch on four servers.

    Args:
        cluster: running.
        mesh: whose rectangle is cut in four.
        stretch: of the day.
        policy: when to hand over.
        within: seconds of flight in which a hand-over back is an oscillation.
    """
    flights = Flights(quarters(mesh, policy))
    async with AsyncExitStack() as stack:
        await flights.start(cluster, stack)
        await flights.fly(stretch)
        outcome = await flights.outcome(within / stretch.speed)
    load = round(os.getloadavg()[0], 1)
    return {"seconds": round(stretch.seconds, 1), "speed": stretch.speed, "load": load, **outcome}

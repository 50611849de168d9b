"""Zone crossings of real aircraft on a 4 × 4 mesh: hand-overs, oscillations with hysteresis or not, blackout.

The aircraft over Switzerland on one day (OpenSky, from the samples of the ``traffic`` library), a position
every 10 s, on a mesh of 16 servers: which of them holds each one is decided by ``bridge.sim.zones``. What is
followed as a ghost is known before it comes: the share that was is told. Then the busiest two hours in time
lapse on four real servers of a 2 × 2 mesh: how long nobody acts for an entity that is handed over, and how
long nobody else sees it. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.crossings import Stretch, fly_live
from benchmarks.udp.processes import note
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.sim.zones import NOBODY, Mesh, ZonePolicy, Zones, oscillations

ROOT: Final = Path(__file__).parents[1]
FLIGHTS: Final = (
    Path(os.environ.get("BRIDGE_SHARED", ROOT.parent / "shared")) / "data" / "switzerland.json.gz"
)
RESULTS: Final = ROOT / "benchmarks" / "results" / "zones.json"
_STEP: Final = 10.0
"""seconds between positions"""
_GONE: Final = 60.0
"""seconds without a position after which an aircraft has left"""
_MOMENT: Final = 300.0
"""seconds in which a hand-over back is an oscillation"""
_EARTH: Final = 6_371_000.0

POLICIES: Final = {
    "none": ZonePolicy(strip=5_000.0),
    "margin_1km": ZonePolicy(margin=1_000.0, strip=5_000.0),
    "margin_3km": ZonePolicy(margin=3_000.0, strip=5_000.0),
    "margin_3km_dwell_20s": ZonePolicy(margin=3_000.0, dwell=20.0, strip=5_000.0),
    "margin_3km_budgets": ZonePolicy(margin=3_000.0, strip=5_000.0, authority_budget=6, ghost_budget=2),
}
"""without hysteresis, with more and more of it, and with room for few"""
LIVE: Final = ZonePolicy(margin=3_000.0, strip=20_000.0)
"""in time lapse an aircraft flies through a strip of 5 km in a fifth of a second"""


class Day:
    """Tracks of all aircraft on one clock.

    Attributes:
        positions: metres east and north of the south-west corner, shape (steps, aircraft, 2).
        present: shape (steps, aircraft).
        mesh: 4 × 4 zones over all of them.
    """

    def __init__(self, path: Path) -> None:
        with gzip.open(path) as file:
            reports = json.load(file)
        begin = min(report["timestamp"] for report in reports)
        steps = int((max(r["timestamp"] for r in reports) - begin) / 1e3 / _STEP) + 1
        tracks: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for r in reports:
            tracks[r["icao24"]].append(((r["timestamp"] - begin) / 1e3, r["longitude"], r["latitude"]))
        everywhere = np.array([point[1:] for track in tracks.values() for point in track])
        (west, south), (east, north) = everywhere.min(axis=0), everywhere.max(axis=0)
        scale = math.radians(1.0) * _EARTH
        wide = scale * math.cos(math.radians((south + north) / 2))
        self.positions = np.zeros((steps, len(tracks), 2))
        self.present = np.zeros((steps, len(tracks)), dtype=bool)
        clock = np.arange(steps) * _STEP
        for number, track in enumerate(tracks.values()):
            times, longitudes, latitudes = np.array(sorted(track)).T
            self.positions[:, number, 0] = (np.interp(clock, times, longitudes) - west) * wide
            self.positions[:, number, 1] = (np.interp(clock, times, latitudes) - south) * scale
            self.present[:, number] = _heard(clock, times)
        self.mesh = Mesh(
            west=0.0,
            south=0.0,
            east=(east - west) * wide,
            north=(north - south) * scale,
            columns=4,
            rows=4,
        )


def _heard(clock: npt.NDArray[Any], times: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether there was a report before and one after, no further apart than it takes to be gone."""
    after = np.searchsorted(times, clock)
    inside = (after > 0) & (after < len(times))
    before = np.clip(after - 1, 0, len(times) - 1)
    after = np.clip(after, 0, len(times) - 1)
    inside &= times[after] - times[before] <= _GONE
    return inside | np.isin(clock, times)


def fly(day: Day, policy: ZonePolicy) -> dict[str, Any]:
    """A day under one policy."""
    zones = Zones(day.mesh, policy, day.positions.shape[1])
    moves: list[tuple[float, int, int, int]] = []
    known = 0
    most_held = most_ghosts = 0
    began = time.perf_counter()
    for step, (positions, present) in enumerate(zip(day.positions, day.present, strict=True)):
        now = step * _STEP
        followed = zones.ghosts(positions)
        made = zones.step(positions, present, now=now)
        passed = made.givers != NOBODY
        entities, takers = made.entities[passed], made.takers[passed]
        known += int(followed[entities, takers].sum())
        moves += [
            (now, int(entity), int(giver), int(taker))
            for entity, giver, taker in zip(entities, made.givers[passed], takers, strict=True)
        ]
        held = zones.holders[zones.holders != NOBODY]
        most_held = max(most_held, int(np.bincount(held, minlength=1).max(initial=0)))
        most_ghosts = max(most_ghosts, int(followed.sum(axis=0).max()))
    seconds = time.perf_counter() - began
    return {
        "hand_overs": len(moves),
        "oscillations": oscillations(moves, _MOMENT),
        "known_as_ghost": round(known / len(moves), 4) if moves else None,
        "deferred": zones.deferred,
        "most_held": most_held,
        "most_ghosts": most_ghosts,
        "step_us": round(1e6 * seconds / len(day.positions), 1),
    }


def busiest(day: Day, speed: float, seconds: float) -> Stretch:
    """Where most aircraft fly for so many seconds of time lapse."""
    steps = round(seconds * speed / _STEP) + 1
    crowd = np.convolve(day.present.sum(axis=1), np.ones(steps), mode="valid")
    begin = int(crowd.argmax())
    part = slice(begin, begin + steps)
    return Stretch(positions=day.positions[part], present=day.present[part], step=_STEP, speed=speed)


def main() -> None:
    """Entry of ``scripts/bench zones``."""
    parser = argparse.ArgumentParser(prog="scripts/bench zones", description=__doc__)
    parser.add_argument("--flights", type=Path, default=FLIGHTS)
    parser.add_argument("--live-seconds", type=float, default=90.0, help="on real servers; 0: not at all")
    parser.add_argument("--speed", type=float, default=80.0, help="of the time lapse on real servers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    if not arguments.flights.is_file():
        parser.exit(2, f"no tracks at {arguments.flights}: set BRIDGE_SHARED to the folder of shared data\n")
    day = Day(arguments.flights)
    result: dict[str, Any] = {
        "benchmark": "zones",
        "aircraft": day.positions.shape[1],
        "hours": round(len(day.positions) * _STEP / 3_600, 1),
        "zones": day.mesh.zones,
        "flown_hours": round(float(day.present.sum()) * _STEP / 3_600, 1),
        "oscillation_within_s": _MOMENT,
    }
    for name, policy in POLICIES.items():
        result[name] = fly(day, policy)
        note(f"{name}: {result[name]}")
    if arguments.live_seconds:
        stretch = busiest(day, arguments.speed, arguments.live_seconds)
        with LocalCluster(LocalClusterConfig(nodes=3), note) as cluster:
            result["live"] = uvloop.run(fly_live(cluster, day.mesh, stretch, LIVE, within=_MOMENT))
        note(f"live: {result['live']}")
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

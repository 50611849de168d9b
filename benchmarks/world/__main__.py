"""One world: how fast it loads, how live it is edited, relief, and a thousand players (R0-52, R0-A3, R0-44).

load: three homeservers and two simulation servers; a world made at one of them until the other knows the
record and the state of each entity, then a third server that comes to it. edit: an object imported at one
server and edited from the other, until the first shows it. balance: a server that holds twice what it may,
until another one has taken the excess. crowd: 100,000 moving entities and 1,000 players, a core for the
server and one for all players. The control planes of the first three share one process. Prints one line of
JSON.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from typing import Any

from benchmarks.udp.processes import note
from benchmarks.world.parts import balance, crowd, edit, load


def main() -> None:
    """Entry of ``scripts/bench world``."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entities", type=int, default=10_000, help="that are loaded")
    parser.add_argument("--edits", type=int, default=300, help="of each kind")
    parser.add_argument("--limit", type=int, default=100, help="entities of the server that is relieved")
    parser.add_argument("--crowd-entities", type=int, default=100_000)
    parser.add_argument("--players", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=10, help="ticks a second that a player's share is for")
    parser.add_argument("--ticks", type=int, default=15, help="of the crowd")
    parser.add_argument("--only", choices=["load", "edit", "balance", "crowd"], action="append")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    options = {
        "entities": arguments.crowd_entities,
        "players": arguments.players,
        "rate_hz": arguments.rate,
        "ticks": arguments.ticks,
    }
    parts: dict[str, tuple[Callable[[Any], dict[str, Any]], Any]] = {
        "load": (load, arguments.entities),
        "edit": (edit, arguments.edits),
        "balance": (balance, arguments.limit),
        "crowd": (crowd, options),
    }
    result: dict[str, Any] = {
        "benchmark": "world",
        "at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("khepri-bridge", "cryptography", "numpy", "uvloop")
        },
    }
    for name in arguments.only or parts:
        note(f"world: {name}")
        function, argument = parts[name]
        result[name] = {"load_average": round(os.getloadavg()[0], 1)} | function(argument)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Sealed datagrams a second, fan-out, round trips and memory; plain sockets, QUIC and the cipher beside them.

Each number is the median of rounds in which all are measured one after another, sender and receiver pinned
to a core each (with one core, to the same). Ratios are taken within a round: rates move with whatever else
the machine does. ``limit_per_s`` is what AES-GCM alone allows a sender and a receiver with a core each.
Prints one line of JSON; what is under way goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.udp.parts import Round, entities, fan_out, memory, rates, round_trips
from benchmarks.udp.processes import in_fresh_process, note


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench udp",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each rate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-trips", type=int, default=3000, help="in each round")
    parser.add_argument("--ticks", type=int, default=60, help="of fan-out in each round")
    parser.add_argument("--only", choices=["rates", "entities", "rtt", "fanout", "memory"], action="append")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    parts: dict[str, tuple[Callable[..., Round], Any]] = {
        "rates": (rates, arguments.seconds),
        "entities": (entities, arguments.seconds),
        "rtt": (round_trips, arguments.round_trips),
        "fanout": (fan_out, arguments.ticks),
        "memory": (memory, 500),
    }
    load_before = round(os.getloadavg()[0], 1)
    values: defaultdict[str, list[float]] = defaultdict(list)
    for n in range(arguments.rounds):
        for name in arguments.only or parts:
            for key, value in in_fresh_process(*parts[name]).items():
                values[key].append(value)
            note(f"round {n + 1} of {arguments.rounds}: {name}")
    print(
        json.dumps(
            {
                "benchmark": "udp",
                "python": platform.python_version(),
                "system": platform.platform(),
                "processors": os.cpu_count(),
                "load_before": load_before,
                "rounds": arguments.rounds,
                "datagram_bytes": 1200,
                **{key: float(f"{statistics.median(column):.4g}") for key, column in values.items()},
                "spread": {
                    key: [float(f"{min(column):.4g}"), float(f"{max(column):.4g}")]
                    for key, column in values.items()
                },
                "versions": {
                    name: importlib.metadata.version(name)
                    for name in ("cryptography", "numpy", "uvloop", "aioquic")
                },
            }
        )
    )


if __name__ == "__main__":
    main()

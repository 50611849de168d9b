"""Kills of members and leaders under concurrent writers: what was lost, applied twice, and how long it took.

Prints one line of JSON; ``lost`` and ``doubled`` must be 0. The test suite runs it with three kills.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.node import HiddenNode, NodeConfig
from tests.support.kills import Toll, run_kills

RESULTS: Final = Path(__file__).parent / "results" / "kills.json"


async def measure(cluster: LocalCluster, kills: int, writers: int) -> Toll:
    """Run it beside a cluster."""
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    async with HiddenNode("writers@127.0.0.1", cookie=cluster.cookie, config=config) as node:
        return await run_kills(cluster, node, kills=kills, writers=writers)


def main() -> None:
    """Kill, count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    began = time.monotonic()
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        toll = asyncio.run(measure(cluster, arguments.kills, arguments.writers))
    result = {
        "benchmark": "kills",
        "python": platform.python_version(),
        "writers": arguments.writers,
        **asdict(toll),
        "longest_s": round(toll.longest_s, 2),
        "seconds": round(time.monotonic() - began),
    }
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    sys.exit(1 if toll.lost or toll.doubled else 0)


if __name__ == "__main__":
    main()

"""Authority by numbers: transfers, failovers, outages of writes and the cost of leases, as one command.

Each part has a benchmark of its own, which says how it measures: ``transfers``, ``failover``, ``outage`` and
``lease``. Progress goes to stderr; the result, with versions, to benchmarks/results/authority.json and as one
line of JSON to stdout. Where only some parts are measured, the others are kept from the last time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import failover, lease, outage, transfers
from bridge.cluster.local import LocalCluster, LocalClusterConfig

RESULTS: Final = Path(__file__).parent / "results" / "authority.json"
_LEASE_MS: Final = 3_000


def say(line: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _cluster() -> LocalCluster:
    return LocalCluster(LocalClusterConfig(nodes=3, environment={"KB_LEASE_MS": str(_LEASE_MS)}))


async def _transfers(arguments: argparse.Namespace) -> dict[str, Any]:
    return await transfers.measure(rounds=arguments.transfers, say=say)


async def _failover(arguments: argparse.Namespace) -> dict[str, Any]:
    say(f"failover: {arguments.failovers} servers and hosts lost, {arguments.load_seconds:.0f} s of load")
    with _cluster() as cluster:
        return {
            **await failover.measure(
                cluster, rounds=arguments.failovers, load_seconds=arguments.load_seconds
            ),
            "lease_ms": _LEASE_MS,
        }


async def _outage(arguments: argparse.Namespace) -> dict[str, Any]:
    say(f"outage: {arguments.outages} leaders killed")
    killed = (await outage.kills(arguments.outages, say)).result()
    return {"write_outage_worst_ms": killed["worst_ms"], "kills": killed}


async def _cuts(arguments: argparse.Namespace) -> dict[str, Any]:
    say(f"outage: {arguments.outages} leaders cut off")
    cut = (await outage.cuts(arguments.outages, say)).result()
    return {"cut_outage_worst_ms": cut["worst_ms"], "cuts": cut}


async def _lease(arguments: argparse.Namespace) -> dict[str, Any]:
    say(f"lease: {arguments.sessions} sessions")
    with _cluster() as cluster:
        return await lease.measure(cluster, arguments.sessions, 100 * arguments.sessions, 20.0, 0)


PARTS: Final[dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]]] = {
    "transfers": _transfers,
    "failover": _failover,
    "kills": _outage,
    "cuts": _cuts,
    "lease": _lease,
}
GOALS: Final = (
    "case2_p50_ms",
    "case2_p99_ms",
    "transfers_x_tx64",
    "failover_p99_ms",
    "host_loss_p99_ms",
    "false_failovers",
    "write_outage_worst_ms",
    "cut_outage_worst_ms",
    "lease_cpu_share",
)
"""what has a goal, found in the parts; these stand at the top of the result"""


def result(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What has a goal first, ``None`` where it was never measured, then all parts."""
    found = {name: value for part in parts.values() for name, value in part.items() if name in GOALS}
    return {"benchmark": "authority", **{name: found.get(name) for name in GOALS}, "parts": parts}


def _kept() -> dict[str, dict[str, Any]]:
    try:
        kept: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["parts"]
    except (FileNotFoundError, KeyError):
        return {}
    return kept


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="this part; may be repeated")
    parser.add_argument("--transfers", type=int, default=1_000, help="pushes, and as many pulls")
    parser.add_argument("--failovers", type=int, default=20, help="servers lost, and as many hosts")
    parser.add_argument("--load-seconds", type=float, default=600.0, help="of full load, for false failovers")
    parser.add_argument("--outages", type=int, default=20, help="leaders killed, and as many cut off")
    parser.add_argument("--sessions", type=int, default=1_000, help="with a hundred entities each")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    parts = _kept()
    for name in arguments.only or PARTS:
        about = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "load_before": round(os.getloadavg()[0], 1),
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "cryptography": version("cryptography"),
            "uvloop": version("uvloop"),
        }
        parts[name] = {**uvloop.run(PARTS[name](arguments)), **about}
        say(f"{name}: done")
        # Written after each part: all of them take half an hour.
        RESULTS.write_text(json.dumps(result(parts), indent=2) + "\n")
    print(json.dumps(result(parts)))


if __name__ == "__main__":
    main()

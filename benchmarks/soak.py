"""Two engines through a bad network for minutes: nothing missing, disordered or stale, and memory flat.

Prints a line of progress every few seconds to standard error, and one line of JSON in the end; ends with 1
after a violation. ``tests/udp/test_soak.py`` runs it for some seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.network import add_network_option
from bridge.udp import NetworkConditions, Partition
from tests.support.soak import Memory, Report, Soak, Verdict, run_soak

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"
NETWORK: Final = "loss=5%,burst=4,delay=20ms,jitter=50ms,duplicate=1%,reorder=2%,seed=1"
_PARTITION_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 5.0
_GROWTH_KIB: Final = 4096


class Progress:
    """A line every few seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._next = 0.0

    def __call__(self, at: float, reports: list[Report]) -> None:
        """Take the newest reports."""
        if at < self._next:
            return
        self._next = at + _PROGRESS_SECONDS
        for name, report in zip("ab", reports, strict=True):
            talk, session = report.talk, report.session
            rtt = "no session" if session is None else f"rtt {(session.rtt or 0) * 1000:.0f} ms"
            color = "red" if talk.violations_count else "green"
            line = (
                f"{at:6.0f} s {name}: {talk.states_seen:,} states, {talk.ordered_seen:,} ordered and "
                f"{talk.unordered_seen:,} unordered messages, {rtt}, session {talk.sessions}, "
                f"{report.resident_kib / 1024:.1f} MiB, [{color}]{talk.violations_count} violations[/]"
            )
            self._console.print(line, soft_wrap=True)


def outcome(verdict: Verdict, soak: Soak, commit: str) -> dict[str, Any]:
    """What is printed and kept."""
    return {
        "soak": "udp",
        "passed": not verdict.violations,
        "violations": verdict.violations,
        "seconds": round(verdict.seconds),
        "network": str(soak.network),
        "signed": soak.signed,
        "warm_up_s": soak.warm_up,
        "growth_bound_kib": soak.growth_kib,
        "silence_bound_s": soak.longest_silence,
        "sides": [
            _side(report, memory) for report, memory in zip(verdict.reports, verdict.memories, strict=True)
        ],
        "versions": {
            "khepri-bridge": version("khepri-bridge"),
            "commit": commit,
            "python": platform.python_version(),
            "cryptography": version("cryptography"),
            "uvloop": version("uvloop"),
            "system": platform.platform(),
        },
    }


def _side(report: Report, memory: Memory) -> dict[str, Any]:
    talk = asdict(report.talk)
    del talk["violations"], talk["violations_count"]
    talk["longest_silence"] = round(talk["longest_silence"], 3)
    return talk | {
        "network": asdict(report.network),
        "session": None if report.session is None else asdict(report.session),
        "resident_kib": {"warm_up": memory.warm, "after": memory.largest, "last": memory.last},
        "growth_kib": memory.growth,
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return done.stdout.strip()


def main() -> None:
    """Entry of ``scripts/soak``."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("what", choices=["udp"], help="what is soaked")
    parser.add_argument("--minutes", type=float, default=10.0)
    add_network_option(parser, NETWORK)
    parser.add_argument("--signed", action="store_true", help="prove every state to third parties")
    parser.add_argument(
        "--growth-kib",
        type=int,
        default=_GROWTH_KIB,
        help="of memory after the warm-up, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    network: NetworkConditions = arguments.network
    if not network.partition:
        # In the middle, so that as much time is left after it as before.
        network = replace(network, partition=(Partition(round(seconds / 2, 1), _PARTITION_SECONDS),))
    soak = Soak(
        seconds=seconds,
        network=network,
        signed=arguments.signed,
        warm_up=round(min(60.0, seconds / 4), 1),
        growth_kib=arguments.growth_kib,
    )
    commit = _commit()
    result = outcome(run_soak(soak, Progress()), soak, commit)
    if arguments.keep:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()

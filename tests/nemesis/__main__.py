"""Breaks a cluster of containers for some minutes, from a seed, and checks its records.

Prints what it breaks, and in the end one line of JSON; status 1 after a violation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.nemesis.containers import ContainerStage
from tests.nemesis.run import Outcome, Run
from tests.nemesis.schedule import Kind, make_schedule
from tests.support.docker import built_image, daemon_client

RESULTS: Final = Path(__file__).parents[2] / "benchmarks" / "results" / "nemesis.json"


def summary(outcome: Outcome) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "seed": outcome.seed,
        "minutes": round(outcome.seconds / 60, 2),
        "violations": outcome.violations,
        "undecided": outcome.undecided,
        "faults": dict(sorted(outcome.faults.items())),
        "fault_count": sum(outcome.faults.values()),
        "asked": outcome.asked,
        "skipped": outcome.skipped,
        "operations": outcome.operations,
        "granted": outcome.granted,
        "refused": outcome.refused,
        "unanswered": outcome.unanswered,
        "acts": outcome.acts,
        "server_starts": outcome.restarts,
        "recovered_s": outcome.recovered_s,
    }


def table(results: list[dict[str, Any]]) -> str:
    """A summary to paste, as Markdown."""
    columns = ("seed", "minutes", "fault_count", "operations", "unanswered", "acts", "recovered_s")
    head = ("seed", "minutes", "faults", "operations", "unanswered", "acts", "recovered in s", "violations")
    rows = [
        [*(str(result[column]) for column in columns), str(len(result["violations"]))] for result in results
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Run, print and keep the result."""
    parser = argparse.ArgumentParser(prog="scripts/nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="length of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="so many runs, with seeds one after the other")
    parser.add_argument("--faults", metavar="WORDS", default="", help="only faults whose name holds this")
    parser.add_argument(
        "--evidence", type=Path, help="directory for records and logs; kept after a violation"
    )
    parser.add_argument("--no-keep", action="store_true", help=f"do not write {RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="JSON alone on standard output")
    arguments = parser.parse_args()
    kinds = [kind for kind in Kind if arguments.faults in kind.value]
    if not kinds:
        parser.error(f"no fault is called so; there are: {', '.join(Kind)}")
    out = sys.stderr if arguments.json else sys.stdout
    results = []
    with tempfile.TemporaryDirectory(prefix="kb-dockerd-") as own, daemon_client(Path(own)) as client:
        images = [built_image(client, name) for name in ("homeserver", "simulation")]
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            evidence = arguments.evidence or Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
            results.append(_one(client, images, seed, arguments, kinds, evidence, out))
    result = {
        "benchmark": "nemesis",
        "python": platform.python_version(),
        "violations": sum(len(one["violations"]) for one in results),
        "runs": results,
    }
    if not arguments.no_keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(table(results), file=out)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(1 if result["violations"] or any(one["undecided"] for one in results) else 0)


def _one(
    client: Any,
    images: list[str],
    seed: int,
    arguments: argparse.Namespace,
    kinds: list[Kind],
    evidence: Path,
    out: Any,
) -> dict[str, Any]:
    records = evidence / f"records-{seed}"
    records.mkdir(parents=True)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:7.1f}] {line}", file=out, flush=True)

    say(f"seed {seed}: starting three homeservers and three simulation servers")
    schedule = make_schedule(seed, arguments.minutes * 60, kinds)
    with ContainerStage(client, images[0], images[1], records) as stage:
        outcome = asyncio.run(Run(stage, schedule, say).play())
        for violation in outcome.violations:
            say(f"VIOLATED {violation}")
        if outcome.violations or outcome.undecided or arguments.evidence:
            stage.keep_logs(evidence)
            say(f"records and logs: {evidence}")
        else:
            shutil.rmtree(evidence)
        if stage.emptied:
            say(f"{stage.emptied} times a homeserver began anew after its disk was full")
    say(f"seed {seed}: {len(outcome.violations)} violations in {outcome.operations} operations")
    return {**summary(outcome), "members_begun_anew": stage.emptied}


if __name__ == "__main__":
    main()

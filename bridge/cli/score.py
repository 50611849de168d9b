"""A replay's outcome as the JSON object and as the table that people read."""

from __future__ import annotations

import math
from typing import Any

from bridge.authority import CASES, transfers
from bridge.cli.output import table
from bridge.khepri import MemberHealth
from bridge.sim.match import Match
from bridge.sim.replay import Latencies, Outcome


def result_object(outcome: Outcome, health: MemberHealth, *, match: Match, seconds: float) -> dict[str, Any]:
    """The object that ``--json`` prints; latencies are those of passes that crossed, in milliseconds."""
    return {
        "passes": outcome.passes,
        "interceptions": outcome.interceptions,
        "transfers": outcome.transfers,
        "messages_per_transfer": _exact(outcome.messages_per_transfer),
        "p50_ms": _rounded(outcome.passes_ms.p50_ms),
        "p95_ms": _rounded(outcome.passes_ms.p95_ms),
        "p99_ms": _rounded(outcome.passes_ms.p99_ms),
        "late_refused": outcome.late_refused,
        "double_holders": outcome.double_holders,
        "lost_updates": outcome.lost_updates,
        "members": len(health.members),
        "leader": health.leader,
        "interception_p50_ms": _rounded(outcome.interceptions_ms.p50_ms),
        "interception_p99_ms": _rounded(outcome.interceptions_ms.p99_ms),
        "generated": match.generated,
        "source": match.source,
        "seconds": round(seconds, 3),
    }


def result_table(outcome: Outcome, health: MemberHealth, *, match: Match, seconds: float) -> str:
    """The table."""
    kind = "generated match" if match.generated else "real match"
    rows = [
        ("match", f"{match.source} ({kind})"),
        ("passes / interceptions", f"{outcome.passes} / {outcome.interceptions}, in {seconds:.1f} s"),
        ("changes of server", str(outcome.transfers)),
        ("pass to first accepted update", _latencies(outcome.passes_ms)),
        ("interception to first accepted update", _latencies(outcome.interceptions_ms)),
        ("messages per transfer", f"{outcome.messages_per_transfer:.2f} (R0-29 says 4)"),
        *_cases(outcome),
        ("late datagrams' records refused", str(outcome.late_refused)),
        ("two holders at an instant", str(outcome.double_holders)),
        ("lost updates", str(outcome.lost_updates)),
        ("cluster", f"{len(health.members)} members, leader {health.leader}"),
    ]
    return table(("what", "measured"), rows)


def _cases(outcome: Outcome) -> list[tuple[str, str]]:
    rows = []
    for case, formula in CASES.items():
        of_case = [t for t in transfers(outcome.messages) if t.case == case]
        if of_case:
            path = sum(t.critical_path for t in of_case) / len(of_case)
            text = f"{len(of_case)} transfers, {path:.2f} hops to authority ({formula.path})"
            rows.append((f"  {case}: {' · '.join(formula.kinds)}", text))
    return rows


def _latencies(of: Latencies) -> str:
    if math.isnan(of.p50_ms):
        return "none crossed"
    return f"p50 {of.p50_ms:.1f} ms, p95 {of.p95_ms:.1f} ms, p99 {of.p99_ms:.1f} ms"


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def _exact(value: float) -> int | float:
    return int(value) if value.is_integer() else round(value, 4)

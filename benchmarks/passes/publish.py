"""Puts the results of ``scripts/bench passes`` into docs/passes.md, tables and picture.

Run as ``.venv/bin/python -m benchmarks.passes.publish``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.passes.__main__ import RESULTS, ROOT
from benchmarks.passes.picture import NAMES, losses, svg

PAGE: Final = ROOT / "docs" / "passes.md"
PICTURE: Final = ROOT / "docs" / "passes.svg"
_PLACE: Final = re.compile(r"(<!-- results -->\n).*(<!-- end of results -->\n)", re.DOTALL)


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: a table for each loss, then messages."""
    parts = [_circumstances(results), ""]
    for suffix in losses(results):
        loss = suffix.removeprefix("_loss_") or "0"
        rtts = sorted({float(rtt) for name in NAMES for rtt in results.get(name + suffix, {})})
        head = " | ".join(f"RTT {rtt:g} ms" for rtt in rtts)
        parts += [
            f"**{loss} % loss**: p50 / p95 / p99 in ms, and the share of passes done before the ball arrives",
            "",
            f"| case | {head} |",
            f"|---|{'---|' * len(rtts)}",
        ]
        for name, title in NAMES.items():
            if name + suffix in results:
                rows = results[name + suffix]
                parts.append(f"| {title} | {' | '.join(_cell(rows.get(f'{rtt:g}')) for rtt in rtts)} |")
        parts.append("")
    return "\n".join([*parts, *_against_model(results), ""])


def _circumstances(results: Mapping[str, Any]) -> str:
    made = ", made up" if results["generated"] else ""
    nodes = f"{results['nodes']} homeserver{'' if results['nodes'] == 1 else 's'}"
    return (
        f"{results['passes']} crossing passes of {results['match']}{made} in each cell and case, "
        f"{results['per_second']:g} begun a second, {nodes} an instance, {results['processors']} cores, "
        f"load average {results['load']} when the last cell was done: what is above the number of cores is "
        "the work of others, and a pass waits for a core some ten times."
    )


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "p50_ms" not in row:
        return "–"
    failed = f", {row['failed']} failed" if row["failed"] else ""
    times = " / ".join(f"{row[key]:.3g}" for key in ("p50_ms", "p95_ms", "p99_ms"))
    return f"{times}; {row['before_arrival']:.1%}{failed}"


def _against_model(results: Mapping[str, Any]) -> list[str]:
    """Messages, critical path and p50 over model, where nothing is lost."""
    rtts = sorted({float(rtt) for name in NAMES for rtt in results.get(name, {}) if float(rtt) > 0})
    head = " | ".join(f"RTT {rtt:g} ms" for rtt in rtts)
    parts = [
        "p50 over the model (critical path × one-way delay + commit), without loss, and what was counted",
        "",
        f"| case | messages | critical path | {head} | within 100 ms at RTT 50 |",
        f"|---|---|---|{'---|' * len(rtts)}---|",
    ]
    for name, title in NAMES.items():
        rows = results.get(name)
        if rows:
            one = next(iter(rows.values()))
            ratios = " | ".join(_ratio(rows.get(f"{rtt:g}")) for rtt in rtts)
            within = rows.get("50", {}).get("within_100_ms")
            share = "–" if within is None else f"{within:.1%}"
            counts = f"{one.get('messages', '–')} | {one.get('critical_path', '–')}"
            parts.append(f"| {title} | {counts} | {ratios} | {share} |")
    return parts


def _ratio(row: Mapping[str, Any] | None) -> str:
    if row is None or "p50_ms" not in row:
        return "–"
    return f"{row['p50_ms'] / row['model_ms']:.2f} ({row['p50_ms']:.3g} / {row['model_ms']:.3g} ms)"


def main() -> None:
    """Rewrite both files."""
    results = json.loads(RESULTS.read_text())
    PICTURE.write_text(svg(results))
    page = PAGE.read_text()
    PAGE.write_text(_PLACE.sub(lambda found: f"{found[1]}\n{tables(results)}\n{found[2]}", page))


if __name__ == "__main__":
    main()

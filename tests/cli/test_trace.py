"""Counts of messages, as a user types for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.authority import Message
from bridge.cli.record import MESSAGES, write_record

ROOT = Path(__file__).parents[2]
KINDS = (("push", 0), ("answer", 1), ("grant", 1), ("accepted", 2))


def trace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", "trace", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=180,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture
def record(tmp_path: Path) -> Path:
    messages = [
        Message(trace=bytes(16), hop=hop, kind=kind, sender="b", receiver="a", at_ns=hop)
        for kind, hop in KINDS
    ]
    write_record(tmp_path, [], messages)
    return tmp_path / MESSAGES


def test_a_record_is_counted_against_the_formula(record: Path) -> None:
    """R0-29."""
    assert last_line(trace(record, "--json")) == {
        "push": {
            "transfers": 1,
            "messages": 4.0,
            "messages_formula": 4,
            "critical_path": 2.0,
            "critical_path_formula": 2,
        }
    }
    assert "b -> a  accepted" in trace(record, "--last", "1").stdout


def test_a_missing_record_is_one_clear_line() -> None:
    done = trace("none.jsonl")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot read none" in done.stderr


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_without_a_record_every_case_is_performed_and_bounds_and_budgets_printed(tmp_path: Path) -> None:
    """R0-28, R0-30, R0-33, R0-37, R0-38, R0-39."""
    done = trace("--transfers", "2", "--dir", tmp_path / "none", "--json")
    assert done.returncode == 0, done.stderr
    result = last_line(done)
    for case in ("push_abroad", "push", "pull", "switch", "ask", "update"):
        counts = result[case]
        assert counts["messages"] == counts["messages_formula"], case
        assert counts["critical_path"] == counts["critical_path_formula"], case
    assert result["hops"]["2"] == {"servers": 1.0, "players": 0.5}
    assert result["worst_case"]["push"] == {"hops": 4.0, "bound": 4.0}
    assert [row["hops"] for row in result["budgets"]] == [6, 6, 4, 4, 2, 2]

"""``doctor`` and ``build`` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PATH": path} if path is not None else {})
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=100,
    )


def test_the_doctor_names_every_check_and_its_verdict() -> None:
    done = run("doctor", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert {check["verdict"] for check in result["checks"]} <= {"good", "advice", "bad"}
    assert {"Python", "Erlang", "rebar3", "release"} <= {check["check"] for check in result["checks"]}


def test_without_erlang_the_doctor_fails_and_says_what_mends_it(tmp_path: Path) -> None:
    done = run("doctor", path=str(tmp_path))
    assert done.returncode == 1
    assert "FAIL  Erlang" in done.stdout
    assert "apt-get install" in done.stdout


def test_without_erlang_nothing_is_started_and_one_line_says_why(tmp_path: Path) -> None:
    done = run("up", "--dir", str(tmp_path / "cluster"), path=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install -y rebar3 erlang-base" in done.stderr

"""``khepri-bridge certs``."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from bridge.cli.app import build_app


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build_app(), list(arguments), standalone_mode=True)
    return result.exit_code, result.stdout


def test_an_authority_and_hosts_are_made_and_listed(tmp_path: Path) -> None:
    place = str(tmp_path / "certs")
    assert _run("certs", "init", "--dir", place)[0] == 0
    status, said = _run("certs", "issue", "hs1.example", "127.0.0.1", "--dir", place, "--json")
    assert status == 0
    assert [item["host"] for item in json.loads(said)["certificates"]] == ["hs1.example", "127.0.0.1"]
    status, said = _run("certs", "list", "--dir", place)
    assert status == 0
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["authority", "127.0.0.1", "hs1.example"]


def test_the_list_fails_when_something_expires_soon(tmp_path: Path) -> None:
    place = str(tmp_path / "certs")
    _run("certs", "init", "--dir", place)
    _run("certs", "issue", "hs1.example", "--days", "29", "--dir", place)
    status, said = _run("certs", "list", "--dir", place, "--json")
    assert (status, json.loads(said)["ok"]) == (1, False)

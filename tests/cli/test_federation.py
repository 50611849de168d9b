"""The commands of federation against a real cluster of one node, and their homeserver's service."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.homeserver.local import LocalCluster
from bridge.jose import Jwk
from tests.support.federation import instance_cluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KEY = Jwk.generate()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    cluster: LocalCluster
    with instance_cluster("emerald") as cluster:
        yield cluster.directory


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", "federation", *arguments, "--dir", str(place)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def told(place: Path, *arguments: str) -> Any:
    done = run(place, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_instance_is_trusted_listed_and_trusted_no_more(place: Path, tmp_path: Path) -> None:
    key = tmp_path / "ruby.jwk"
    key.write_text(KEY.public().to_json())
    url = "https://ruby.example:8443"
    added = told(place, "peer", "add", "ruby", "--url", url, "--key", str(key))
    assert added == {"instance": "ruby", "urls": [url], "keys": [KEY.thumbprint()]}
    assert told(place, "peer", "list") == {"peers": [added]}
    assert KEY.thumbprint() in run(place, "peer", "list").stdout
    assert told(place, "peer", "remove", "ruby") == {"instance": "ruby"}
    assert run(place, "peer", "list").stdout == "no instance is trusted\n"


def test_what_cannot_be_trusted_is_refused_with_what_to_do(place: Path, tmp_path: Path) -> None:
    key = tmp_path / "ruby.jwk"
    key.write_text(KEY.public().to_json())
    for arguments, words in (
        (("ruby", "--url", "https://ruby.example"), "--thumbprint"),
        (("ruby", "--url", "http://ruby.example", "--key", str(key)), "takes https"),
        (("emerald", "--url", "https://ruby.example", "--key", str(key)), "itself"),
        (("r@by", "--url", "https://ruby.example", "--key", str(key)), "no @"),
    ):
        done = run(place, "peer", "add", *arguments)
        assert done.returncode == 1
        assert words in done.stderr


def test_what_is_in_escrow_is_listed_and_cancelled(place: Path) -> None:
    assert told(place, "escrow", "list") == {"escrows": []}
    assert run(place, "escrow", "list").stdout == "nothing is in escrow\n"
    assert told(place, "escrow", "cancel", "7") == {"transfer": "7", "state": "closed"}
    assert "no number" in run(place, "escrow", "cancel", "seven").stderr

"""``export`` and ``import`` against a real cluster of one node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with LocalCluster(LocalClusterConfig(nodes=1)) as cluster:
        yield cluster.directory


def run(place: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *arguments, "--dir", str(place)],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def test_what_was_exported_is_there_again_after_the_import(place: Path, tmp_path: Path) -> None:
    run(place, "put", "/:stock/wood", "3")
    run(place, "put", "/:shop/open", "true")
    file = tmp_path / "stock.khepri"
    done = run(place, "export", str(file), "--path", "/:stock/**", "--json")
    told = json.loads(done.stdout)
    assert (told["nodes"], told["bytes"]) == (1, file.stat().st_size)
    piped = run(place, "export", "-", "--path", "/:stock/**")
    assert piped.stdout == file.read_bytes()
    assert b"nodes exported: 1" in piped.stderr
    run(place, "delete", "/:stock")
    assert json.loads(run(place, "import", str(file), "--json").stdout)["nodes"] == 1
    assert run(place, "get", "/:stock/wood").stdout == b"3\n"
    run(place, "delete", "/:stock")
    assert run(place, "import", "-", stdin=piped.stdout).stdout == b"nodes imported: 1\n"
    assert run(place, "get", "/:stock/wood").stdout == b"3\n"


def test_a_place_where_no_file_can_be_is_said_as_it_was_given(place: Path, tmp_path: Path) -> None:
    none = tmp_path / "none" / "stock.khepri"
    said = run(place, "export", str(none)).stderr.decode()
    assert said == f"khepri-bridge: {none}: there is no directory {tmp_path}/none\n"
    assert b"is a directory: name a file" in run(place, "backup", str(tmp_path)).stderr
    both = run(place, "export", "-", "--json")
    assert (both.returncode, b"leave --json out" in both.stderr) == (1, True)
    assert list(json.loads(both.stdout)) == ["error"]


def test_what_is_no_export_is_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    for arguments in (("import", "-"), ("import", str(tmp_path / "none"))):
        done = run(place, *arguments, stdin=b"no export")
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1


def test_a_backup_is_written_and_refused_by_a_cluster_that_knows_something(
    place: Path, tmp_path: Path
) -> None:
    run(place, "put", "/:stock/wood", "3")
    file = tmp_path / "instance.backup"
    made = run(place, "backup", str(file), "--json")
    assert made.returncode == 0
    assert json.loads(made.stdout)["bytes"] == file.stat().st_size
    refused = run(place, "restore", str(file))
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert b"just started" in refused.stderr

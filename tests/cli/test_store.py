"""The commands on a store against a real cluster of one node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import Cursor

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with LocalCluster(LocalClusterConfig(nodes=1)) as cluster:
        yield cluster.directory


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *arguments, "--dir", str(place)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def data(place: Path, path: str) -> Any:
    done = run(place, "get", path, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


def test_what_was_put_is_got_shown_in_the_tree_and_deleted(place: Path) -> None:
    for path, value in (("/:stock/wood", {"count": 3}), ("/:stock/iron", [1, "two", None, 2.5])):
        assert run(place, "put", path, json.dumps(value)).returncode == 0
        assert data(place, path) == value
    shown = json.loads(run(place, "tree", "/:stock", "--json").stdout)["nodes"]
    assert {path: shown[path] for path in ("/:stock/iron", "/:stock/wood")} == {
        "/:stock/iron": [1, "two", None, 2.5],
        "/:stock/wood": {"count": 3},
    }
    assert run(place, "delete", "/:stock/wood").returncode == 0
    assert run(place, "get", "/:stock/wood").returncode == 1


def test_the_tree_of_a_pattern_has_what_it_matches_and_what_is_below(place: Path) -> None:
    for path in ("/:garden/rose/red", "/:garden/tulip"):
        run(place, "put", path, "1")
    shown = run(place, "tree", "/:garden/*").stdout
    assert shown == "/:garden/rose\n/:garden/rose/red  1\n/:garden/tulip  1\n"
    nothing = run(place, "tree", "/:gardn")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "there is no node at /:gardn\n")


def test_the_tree_hides_the_bridges_own_records_unless_asked(place: Path) -> None:
    run(place, "put", "/:shop", "1")
    assert "/:bridge" not in run(place, "tree").stdout
    assert "/:bridge/:identity" in run(place, "tree", "--all").stdout


def test_a_node_is_replaced_only_if_it_is_as_expected(place: Path) -> None:
    run(place, "put", "/:stock/oak", '{"count": 3}')
    assert run(place, "cas", "/:stock/oak", '{"count": 3}', '{"count": 2}').returncode == 0
    done = run(place, "cas", "/:stock/oak", '{"count": 3}', '{"count": 1}')
    assert (done.returncode, "mismatching_node" in done.stderr) == (1, True)
    assert data(place, "/:stock/oak") == {"count": 2}


def test_terms_are_shown_as_erlang_writes_them_where_that_is_asked_for(place: Path) -> None:
    run(place, "put", "/:stock/elm", '{"state": {"$tuple": [{"$atom": "ready"}, 1]}}')
    assert run(place, "get", "/:stock/elm", "--erlang").stdout == '#{<<"state">> => {ready, 1}}\n'
    assert '/:stock/elm  #{<<"state">> => {ready, 1}}' in run(place, "tree", "/:stock", "--erlang").stdout


def test_the_store_is_described(place: Path) -> None:
    info = json.loads(run(place, "info", "--json").stdout)
    assert info["leader"] == info["member"] == info["members"][0]
    assert info["nodes"] > 0
    Cursor.parse(info["feed_cursor"])
    assert f"members          {info['leader']}" in run(place, "info").stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("get", "/:stock/none"), "node_not_found"),
        (("put", "stock", "1"), "absolute path"),
        (("put", "/:bridge/x", "1"), "reserved_path"),
        (("put", "/:stock/wood", "{"), "JSON"),
        (("get", "/:stock/wood", "--favor", "fast"), "--favor"),
    ],
)
def test_a_refusal_is_one_line_that_says_why(place: Path, arguments: tuple[str, ...], text: str) -> None:
    done = run(place, *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert text in done.stderr

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from bridge.cli.watch import change_json, change_lines
from bridge.cluster.local import LocalCluster
from bridge.etf import Atom
from bridge.khepri import Cursor, Deleted, Khepri, Snapshot, Updated
from tests.support.cluster import erlang

ROOT = Path(__file__).parents[2]
WOOD = (Atom("stock"), b"wood")
IRON = (Atom("stock"), b"iron")


def test_a_change_is_a_line_and_a_snapshot_has_one_more_for_each_node() -> None:
    snapshot = Snapshot({WOOD: {b"count": 3}, IRON: None}, "hs1@h")
    assert change_lines(snapshot, erlang=False) == [
        "snapshot  hs1@h, 2 nodes",
        "present   /:stock/iron",
        'present   /:stock/wood  {"count": 3}',
    ]
    assert change_lines(Snapshot({}, "hs1@h", gap=True), erlang=False) == [
        "snapshot  hs1@h, 0 nodes, history was lost"
    ]
    assert change_lines(Updated(WOOD, Atom("a")), erlang=True) == ["updated   /:stock/wood  a"]
    assert change_lines(Deleted(WOOD), erlang=False) == ["deleted   /:stock/wood"]


def test_a_change_in_json_says_what_it_is() -> None:
    assert change_json(Snapshot({WOOD: 1}, "hs1@h", gap=True)) == {
        "type": "snapshot",
        "member": "hs1@h",
        "gap": True,
        "nodes": {"/:stock/wood": 1},
    }
    assert change_json(Updated(WOOD, None)) == {"type": "updated", "path": "/:stock/wood", "data": None}
    assert change_json(Deleted(WOOD)) == {"type": "deleted", "path": "/:stock/wood"}


class Watching:
    """A running command."""

    def __init__(self, cluster: LocalCluster, cookie_file: Path, *arguments: str) -> None:
        cookie_file.write_text(cluster.cookie)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bridge.cli", "watch", *arguments, "--json"),
                *("--member", cluster.members[0], "--cookie-file", str(cookie_file)),
                *("--store", cluster.store, "--epmd-port", str(cluster.epmd_port)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": str(cookie_file.parent / "state")},
        )
        assert self.process.stdout is not None
        self.out: IO[str] = self.process.stdout

    def change(self) -> dict[str, object]:
        change: dict[str, object] = json.loads(self.out.readline())
        return change

    def ended(self) -> str:
        """The cursor at its end."""
        out, err = self.process.communicate(timeout=30)
        assert (self.process.returncode, out) == (0, ""), err
        word, cursor = err.split()
        assert word == "cursor"
        return cursor


@erlang
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_watch_tells_changes_until_a_signal_and_another_goes_on(
    cluster: LocalCluster, store: Khepri, root: str, tmp_path: Path, number: signal.Signals
) -> None:
    watching = Watching(cluster, tmp_path / "cookie", root)
    try:
        assert watching.change()["type"] == "snapshot"
        await store.put_once(f"{root}/a", 1)
        assert watching.change() == {"type": "updated", "path": f"{root}/a", "data": 1}
        watching.process.send_signal(number)
        cursor = watching.ended()
    finally:
        watching.process.kill()
    await store.put_once(f"{root}/a", 2)
    await store.delete(f"{root}/a")
    following = Watching(cluster, tmp_path / "cookie", root, "--since", cursor, "--count", "2")
    try:
        assert following.change()["data"] == 2
        assert following.change()["type"] == "deleted"
        assert Cursor.parse(following.ended()).sequence > Cursor.parse(cursor).sequence
    finally:
        following.process.kill()

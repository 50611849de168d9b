"""The commands against a real cluster of three nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.processes import marked_processes

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]


class Shell:
    """Runs commands with a state directory of their own."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ["--dir", str(self.place)] if arguments[0] != "build" else []
        return subprocess.run(
            [sys.executable, "-m", "bridge.cli", *arguments, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=120,
        )

    def json(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == status, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    shell = Shell(tmp_path / "cluster")
    yield shell
    shell.run("down")
    assert marked_processes(tmp_path / "cluster") == {}


def test_a_cluster_goes_up_and_down_twice_and_keeps_its_data(shell: Shell) -> None:
    assert len(shell.json("up", "--nodes", "3")["nodes"]) == 3
    again = shell.run("up", "--nodes", "3")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    status = shell.json("status")
    assert status["ok"] is True
    assert sorted(status["members"]) == ["hs1@127.0.0.1", "hs2@127.0.0.1", "hs3@127.0.0.1"]
    assert status["leader"] in status["members"]
    assert status["khepri"] == "0.16.0"
    shell.json("put", "/:stock/wood", '{"count":3}')
    assert shell.json("get", "/:stock/wood")["data"] == {"count": 3}
    assert shell.json("down")["ended"] is True
    assert shell.json("down")["ended"] is False

    shell.json("up", "--nodes", "3")
    assert shell.json("get", "/:stock/wood", "--favor", "consistency")["data"] == {"count": 3}
    assert shell.json("tree", "/:stock")["nodes"]["/:stock/wood"] == {"count": 3}
    shell.json("delete", "/:stock/wood")
    missing = shell.run("get", "/:stock/wood")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    shell.json("down", "--erase")
    assert not shell.place.exists()


def kill(shell: Shell, member: str) -> None:
    state = json.loads((shell.place / "cluster.json").read_text())
    victim = next(node["process"]["pid"] for node in state["nodes"] if node["name"].startswith(member))
    subprocess.run(["kill", "-KILL", str(victim)], check=True)


def test_a_dead_member_shows_in_the_status_and_is_started_again(shell: Shell) -> None:
    shell.json("up", "--nodes", "3", "--lease-ms", "2000")
    assert shell.json("status")["advice"] == []
    kill(shell, "hs3")
    status = shell.json("status", status=1)
    assert status["ok"] is False
    assert [node["running"] for node in status["nodes"]] == [True, True, False]
    (advice,) = status["advice"]
    command = f"khepri-bridge up --dir {shell.place} --member hs3"
    assert advice.startswith(f"hs3@127.0.0.1 does not run: `{command}` starts it again")
    shell.json("put", "/a", "1")
    assert shell.json("get", "/a")["data"] == 1
    assert shell.json("up", "--member", "hs3")["started"] == ["hs3@127.0.0.1"]
    settled(shell)
    for member in ("hs1", "hs2"):
        kill(shell, member)
    assert shell.json("status", status=1)["advice"][-1].startswith("1 of 3 members answer, no majority")
    # All that are missing, the one that founded the cluster among them.
    up = shell.run("up")
    assert (up.returncode, "hs1@127.0.0.1, hs2@127.0.0.1 started again" in up.stdout) == (0, True), up.stderr
    settled(shell)
    assert shell.json("get", "/a", "--favor", "consistency")["data"] == 1
    assert "runs already" in shell.run("up").stderr


def settled(shell: Shell) -> None:
    """Once the members that just came agree on the leader."""
    deadline = time.monotonic() + 60
    while shell.run("status").returncode:
        assert time.monotonic() < deadline, shell.run("status").stdout
        time.sleep(0.2)


def test_the_status_follows_an_election_role_by_role(shell: Shell) -> None:
    """R3-5 … R3-8: roles, terms and changes of the leader are visible, as a trace of states."""
    shell.json("up", "--nodes", "3")
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "status", "--follow", "--json", "--dir", str(shell.place)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        leader, term = first["leader"], max(node["term"] for node in first["nodes"])
        assert [node["role"] for node in first["nodes"] if node["name"] == leader] == ["leader"]
        state = json.loads((shell.place / "cluster.json").read_text())
        victim = next(node["process"]["pid"] for node in state["nodes"] if node["name"] == leader)
        subprocess.run(["kill", "-KILL", str(victim)], check=True)
        for line in following.stdout:
            told = json.loads(line)
            if told["leader"] != leader and "leader" in [node["role"] for node in told["nodes"]]:
                break
        following.send_signal(signal.SIGINT)
        following.stdout.read()
    assert following.returncode == 0
    roles = {node["name"]: node["role"] for node in told["nodes"]}
    assert (roles[leader], roles[told["leader"]]) == ("stopped", "leader")
    assert max(node["term"] for node in told["nodes"]) > term
    assert told["ok"] is False


def test_an_even_number_of_nodes_is_advised_against(shell: Shell) -> None:
    assert "an odd number is better" in shell.run("up", "--nodes", "2").stderr


def test_an_interrupted_start_leaves_nothing(shell: Shell) -> None:
    """Ctrl-C while nodes boot."""
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "up", "--dir", str(shell.place)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as starting:
        deadline = time.monotonic() + 60.0
        while len(marked_processes(shell.place)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        starting.send_signal(signal.SIGINT)
        _, errors = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert b"Traceback" not in errors
    assert marked_processes(shell.place) == {}


def test_a_wrong_cookie_is_one_clear_line(shell: Shell) -> None:
    shell.json("up", "--nodes", "1")
    cookie = shell.place / "hs1" / ".erlang.cookie"
    right = cookie.read_text()
    cookie.write_text("wrong")
    try:
        refused = shell.run("get", "/a")
    finally:
        cookie.write_text(right)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "cookie" in refused.stderr


def test_a_function_that_is_not_there_is_named_at_the_start(shell: Shell) -> None:
    refused = shell.run(
        "up", "--nodes", "1", "--functions", "kb_demo_functions:add/2,kb_demo_functions:nothing/9"
    )
    assert refused.returncode == 1
    assert "does not export: kb_demo_functions:nothing/9" in refused.stderr

"""Demo, replay, traces and histories, as a user types them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from bridge.authority import Act, Called, Known, Message, RecordView, Replied
from bridge.cli.record import HISTORY, MESSAGES, write_record
from bridge.cluster.local import LocalCluster
from bridge.cluster.processes import marked_processes
from tests.support.cluster import fresh

ROOT = Path(__file__).parents[2]
SESSION = b"a" * 16
KINDS = (("push", 0), ("answer", 1), ("grant", 1), ("accepted", 2))


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *map(str, arguments)],
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
    acts = [
        Act(server="a", session=b"a" * 16, entity="ball", epoch=1, first_ns=0, last_ns=10),
        Act(server="b", session=b"b" * 16, entity="ball", epoch=2, first_ns=11, last_ns=20),
    ]
    messages = [
        Message(trace=bytes(16), hop=hop, kind=kind, sender="a", receiver="b", at_ns=hop)
        for kind, hop in KINDS
    ]
    write_record(tmp_path, acts, messages)
    return tmp_path


def test_a_clean_history_is_proven(record: Path) -> None:
    """B-4."""
    done = command("history", "check", record / HISTORY, "--json")
    assert done.returncode == 0
    assert last_line(done)["acts"] == 2
    assert last_line(done)["violations"] == []


def test_a_history_with_two_holders_prints_the_counter_example_and_fails(record: Path) -> None:
    """B-4."""
    late = Act(server="a", session=b"a" * 16, entity="ball", epoch=1, first_ns=0, last_ns=15)
    write_record(record / "other", [late], [])
    done = command("history", "check", record / HISTORY, record / "other" / HISTORY)
    assert done.returncode == 1
    assert (
        "VIOLATED no two holders at an instant: ball: b acted at epoch 2 while a still did at 1"
        in done.stdout
    )


def test_a_change_that_nobody_recorded_is_asked_about(tmp_path: Path) -> None:
    """An operator changed the rule by REST between two requests of a server."""
    asked = Called(
        client="a", number=2, at_ns=3, entity="ball", function="request", player="Bob", owner="Ann", epoch=1
    )
    created = RecordView(owner="Ann", master="Ann", rule="allow", session=SESSION, epoch=1, version=1)
    shown = RecordView(owner="Ann", master="Ann", rule="ask", session=SESSION, epoch=1, version=4)
    write_record(
        tmp_path,
        [
            Called(
                client="a",
                number=1,
                at_ns=1,
                entity="ball",
                function="create_entity",
                session=SESSION,
                owner="Ann",
                master="Ann",
                value="allow",
            ),
            Replied(client="a", number=1, at_ns=2, known=Known.OK, record=created),
            asked,
            Replied(client="a", number=2, at_ns=4, known=Known.OK, detail="pending", record=shown),
        ],
        [],
    )
    done = command("history", "check", tmp_path / HISTORY)
    assert done.returncode == 1
    assert "Were all requests recorded" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "a/b", "--cluster", "local"), "cannot be part of a node's name"),
        (("--name", "a", "--cluster", "local", "--member", "hs1@127.0.0.1"), "leave out --cluster"),
        (("--name", "a"), "name a homeserver with --member"),
        (("--name", "a", "--cluster", "local", "--mesh", "none.toml"), "cannot read none.toml"),
    ],
)
def test_a_simulation_server_that_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = command("sim", *arguments)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_missing_file_is_one_clear_line() -> None:
    for words in (
        ["history", "check", "none.jsonl"],
        ["replay", "passes", "none.csv"],
    ):
        done = command(*words)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "cannot read none" in done.stderr


def test_a_record_that_cannot_be_written_is_said_before_the_match(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("demo", "--record", tmp_path / "file")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot write the record" in done.stderr


@pytest.mark.parametrize("script", ["demo", "nemesis"])
def test_help_of_a_script_installs_nothing(script: str, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    copy = shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    done = subprocess.run([copy, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, f"scripts/{script}" in done.stdout, done.stderr) == (0, True, "")


def test_an_empty_record_proves_nothing(tmp_path: Path) -> None:
    write_record(tmp_path, [], [])
    for words in (("history", "check", tmp_path / HISTORY), ("trace", tmp_path / MESSAGES)):
        done = command(*words)
        assert (done.returncode, "was recorded in" in done.stderr) == (1, True)


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_simulation_server_in_order(
    cluster: LocalCluster, number: signal.Signals
) -> None:
    words = [
        sys.executable,
        "-m",
        "bridge.cli",
        "sim",
        "--name",
        fresh("sim"),
        "--dir",
        str(cluster.directory),
    ]
    server = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
    assert server.stdout is not None
    assert server.stderr is not None
    assert b'"started"' in await server.stdout.readline()
    server.send_signal(number)
    async with asyncio.timeout(30):
        said = await server.stderr.read()
        assert (await server.wait(), said) == (0, b"")


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_ends_with_its_guarantees_and_the_record_proves_them(tmp_path: Path) -> None:
    """R0-29, R0-40, R0-41, R0-49."""
    done = command("demo", "--passes", "30", "--seconds", "4", "--record", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    result = last_line(done)
    assert (result["passes"], result["members"], result["generated"]) == (30, 3, True)
    assert (result["double_holders"], result["lost_updates"], result["messages_per_transfer"]) == (0, 0, 4)
    assert result["late_refused"] > 0
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
    assert "pass 30/30" in done.stderr
    assert command("history", "check", tmp_path / HISTORY).returncode == 0


@pytest.mark.parametrize("words", [("demo",), ("replay", "passes"), ("sim", "--name", "sim1")])
def test_a_network_that_does_not_parse_is_a_usage_error_that_says_what_to_write(
    words: tuple[str, ...],
) -> None:
    done = command(*words, "--network", "loss=5")
    assert done.returncode == 2
    assert "write loss=5%" in done.stderr


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_keeps_its_guarantees_over_a_bad_network() -> None:
    network = "loss=5%,burst=3,delay=10ms,jitter=20ms,duplicate=2%,reorder=2%,seed=7"
    done = command("demo", "--passes", "30", "--seconds", "4", "--network", network, "--json")
    assert done.returncode == 0, done.stderr
    result = last_line(done)
    assert (result["double_holders"], result["lost_updates"]) == (0, 0)
    # One way there and one back before the first state of the new holder.
    assert result["p50_ms"] > 20
    assert f"network {network}" in done.stderr


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_replay_uses_a_running_cluster_twice_and_leaves_it_running(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    assert command("up", "--nodes", "1", "--dir", place).returncode == 0
    try:
        match = tmp_path / "match.csv"
        rows = "".join(
            f"Home,PASS,,1,1,{t / 10},1,{t / 10 + 0.05},Player{t % 2 + 1},Player{(t + 1) % 2 + 1},"
            "0.1,0.1,0.9,0.9\n"
            for t in range(10)
        )
        match.write_text(
            "Team,Type,Subtype,Period,Start Frame,Start Time [s],End Frame,End Time [s],From,To,"
            f"Start X,Start Y,End X,End Y\n{rows}"
        )
        for _ in range(2):
            done = command("replay", "passes", match, "--speed", "2", "--dir", place, "--json")
            assert done.returncode == 0, done.stderr
            result = last_line(done)
            assert (result["passes"], result["transfers"], result["members"]) == (10, 10, 1)
            assert result["generated"] is False
        assert command("status", "--dir", place).returncode == 0
    finally:
        command("down", "--dir", place)


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_any_node_killed_in_the_middle_of_a_replay_changes_no_guarantee(tmp_path: Path, victim: int) -> None:
    """R0-41, R0-45: the leader is one of the three."""
    place = tmp_path / "cluster"
    assert command("up", "--nodes", "3", "--dir", place).returncode == 0
    try:
        nodes = json.loads((place / "cluster.json").read_text())["nodes"]
        running = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bridge.cli",
                "replay",
                "passes",
                "--speed",
                "500",
                "--dir",
                place,
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert running.stderr is not None
        while "pass 1" not in running.stderr.readline():
            assert running.poll() is None
        os.kill(nodes[victim]["process"]["pid"], signal.SIGKILL)
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        result = json.loads(out.splitlines()[-1])
        assert (result["passes"], result["members"]) == (800, 3)
        assert (result["double_holders"], result["lost_updates"]) == (0, 0)
    finally:
        command("down", "--dir", place)


@pytest.mark.erlang
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_wrong_cookie_is_one_clear_line(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    assert command("up", "--nodes", "1", "--dir", place).returncode == 0
    try:
        port = json.loads((place / "cluster.json").read_text())["epmd_port"]
        (tmp_path / "cookie").write_text("wrong")
        done = command(
            *("sim", "--name", "sim1", "--member", "hs1@127.0.0.1", "--cookie-file", tmp_path / "cookie"),
            *("--epmd-port", str(port)),
        )
        assert done.returncode == 1
        assert "cookie" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        command("down", "--dir", place)
    assert marked_processes(place) == {}

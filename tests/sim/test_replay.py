"""A short match over real parts, and the arithmetic of its outcome."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import DeadlineError
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.sim.driver import SimulationProcess
from bridge.sim.events import PeerSessionChanged, Problem, StateAccepted
from bridge.sim.match import crossings, generate_match, spread
from bridge.sim.replay import BALL, Latencies, Progress, Replay, undelivered
from bridge.sim.stdio import Reported
from tests.support.simulation import is_alive

ROOT = Path(__file__).parents[2]


def reported(sent: dict[str, int], received: dict[str, int]) -> Reported:
    return Reported(id=1, history=[], messages=[], verdicts={}, sent=sent, received=received, malformed=0)


def test_latencies_are_percentiles_and_nothing_gives_no_number() -> None:
    samples = [float(value) for value in range(1, 102)]
    assert Latencies.of(samples) == Latencies(p50_ms=51.0, p95_ms=96.0, p99_ms=100.0)
    empty = Latencies.of([])
    assert math.isnan(empty.p50_ms)
    assert math.isnan(empty.p99_ms)


def test_a_message_that_was_sent_and_never_received_is_counted() -> None:
    reports = {
        "a": reported({"b": 3, "gone": 9}, {"b": 1}),
        "b": reported({"a": 1}, {"a": 2}),
    }
    assert undelivered(reports) == 1


async def test_sessions_that_do_not_come_end_the_wait_with_the_last_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.sim.replay._CONNECT_SECONDS", 0.01)
    replay = Replay(generate_match(passes=2, seconds=1.0, seed=1), speed=1.0, on_progress=lambda _: None)
    replay.on_event("a", PeerSessionChanged(server="b", up=True, reason=""))
    replay.on_event("a", PeerSessionChanged(server="b", up=False, reason="idle"))
    replay.on_event("a", StateAccepted(entity=BALL, epoch=1, sender="b", at_ns=1))
    replay.on_event("a", Problem(text="no route", fatal=False))
    silent = {name: SimulationProcess(name, ["true"], replay.on_event) for name in ("a", "b")}
    with pytest.raises(DeadlineError, match=r"no UDP sessions within .* \(last: a: no route\)"):
        await replay.run(silent)


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_match_moves_the_ball_and_nothing_is_lost_or_held_twice(
    cluster: LocalCluster, store: Khepri
) -> None:
    """R0-27, R0-29 on the real parts: two server processes, three homeservers."""
    match = generate_match(passes=40, seconds=4.0, seed=3)
    assert match.interceptions > 0
    steps: list[Progress] = []
    replay = Replay(match, speed=2.0, on_progress=steps.append)
    base = [sys.executable, "-m", "bridge.cli", "sim", "--dir", str(cluster.directory), "--commands"]
    base += ["--keep-history"]
    servers = {
        name: SimulationProcess(name, [*base, "--name", name, "--linger-ms", "50"], replay.on_event)
        for name in ("replay1", "replay2")
    }
    try:
        await asyncio.gather(*(server.start() for server in servers.values()))
        await replay.run(servers)
        record = await store.get([Atom("bridge"), Atom("entities"), BALL], favor="consistency")
        outcome = await replay.outcome({BALL: record[Atom("epoch")]})
    finally:
        await asyncio.gather(*(server.close() for server in servers.values()))
    assert (outcome.double_holders, outcome.lost_updates, outcome.violations) == (0, 0, ())
    assert outcome.messages_per_transfer == 4.0
    assert outcome.transfers >= crossings(match, spread(match.players, tuple(servers)))
    assert outcome.late_refused > 0, "former holders went on sending and were refused"
    assert [step.done for step in steps] == list(range(1, 41))
    assert steps[-1].transfers == outcome.transfers
    assert record[Atom("owner")].decode() == match.passes[-1].receiver
    assert replay.problems == []


def session_members(session: int) -> set[int]:
    """Processes whose session or whose ancestors' session is this one."""
    parents: dict[int, int] = {}
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = int(fields[1])
        if int(fields[3]) == session and fields[0] != "Z":
            found.add(int(entry.name))
    grown = True
    while grown:
        grown = bool(more := {pid for pid, parent in parents.items() if parent in found} - found)
        found |= more
    return found


@pytest.mark.erlang
@pytest.mark.slow
def test_ctrl_c_in_a_demo_leaves_no_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "demo", "--passes", "1000", "--seconds", "500"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("pass "):
                break
        else:
            pytest.fail("the demo ended by itself")
        started = session_members(demo.pid)
        assert len(started) > 6, "a demo has three nodes, a port mapper, two servers and their data planes"
        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stderr.read()
        assert demo.wait() == 130, rest
    assert "Traceback" not in rest
    assert {pid for pid in started if is_alive(pid)} == set()

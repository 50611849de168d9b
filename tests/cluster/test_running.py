"""Which cluster runs, told by processes of this test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cluster.processes import ProcessIdentity, identify
from bridge.cluster.running import member_runs, missing_members, running_cluster
from bridge.cluster.state import STATE_FILE, ClusterState, NodeRecord, save_state
from bridge.errors import InvalidStateError


@pytest.fixture
def alive() -> Iterator[ProcessIdentity]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        process = identify(child.pid)
        assert process is not None
        yield process
        child.kill()


def recorded(place: Path, epmd: ProcessIdentity | None, *members: ProcessIdentity | None) -> ClusterState:
    nodes = tuple(
        NodeRecord(name=f"hs{number}@127.0.0.1", process=process) for number, process in enumerate(members, 1)
    )
    state = ClusterState(instance="local", store="homeserver", epmd_port=4370, epmd=epmd, nodes=nodes)
    save_state(place, state)
    return state


def test_a_cluster_runs_while_anything_of_it_does(tmp_path: Path, alive: ProcessIdentity) -> None:
    state = recorded(tmp_path, alive, None, None)
    assert running_cluster(tmp_path) == state


def test_a_record_of_processes_that_are_gone_is_no_cluster(tmp_path: Path, alive: ProcessIdentity) -> None:
    gone = ProcessIdentity(pid=alive.pid, started=alive.started - 1, boot=alive.boot)
    recorded(tmp_path, gone, gone)
    with pytest.raises(InvalidStateError, match=r"no cluster runs in .*: start one with `khepri-bridge up"):
        running_cluster(tmp_path)


def test_where_nothing_is_recorded_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidStateError, match="no cluster runs"):
        running_cluster(tmp_path)
    assert missing_members(tmp_path) == ()


def test_members_are_missing_only_where_others_run(tmp_path: Path, alive: ProcessIdentity) -> None:
    state = recorded(tmp_path, None, alive, None)
    assert [member_runs(node) for node in state.nodes] == [True, False]
    assert missing_members(tmp_path) == ("hs2@127.0.0.1",)
    recorded(tmp_path, alive, None, None)
    assert missing_members(tmp_path) == ()


def test_a_damaged_record_tells_of_no_missing_members(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{")
    assert missing_members(tmp_path) == ()

"""The launcher with stand-ins for nodes; with real ones in test_local_erlang.py."""

from __future__ import annotations

import signal
import socket
import stat
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.cluster.directory import erase_data
from bridge.cluster.epmd import HOST
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.cluster.processes import end_processes, identify, marked_processes, wait_until_gone
from bridge.cluster.running import missing_members, running_cluster
from bridge.cluster.state import STATE_FILE, load_state
from bridge.errors import ConfigurationError, InvalidStateError
from tests.support.fake_release import READY, fake_release

pytestmark = pytest.mark.erlang  # the port mapper is the real one


def config(
    tmp_path: Path, *, script: str | None = None, nodes: int = 2, detached: bool = False
) -> LocalClusterConfig:
    release = tmp_path / "release"
    if not release.exists():
        fake_release(release, script) if script is not None else fake_release(release)
    return LocalClusterConfig(
        nodes=nodes, directory=tmp_path / "cluster", release=release, detached=detached, ready_seconds=20.0
    )


def test_a_cluster_leaves_no_process_behind(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)) as cluster:
        processes = cluster.state.processes
        assert len(processes) == 3
        assert cluster.members == ("hs1@127.0.0.1", "hs2@127.0.0.1")
        assert running_cluster(cluster.directory) == cluster.state
    assert not any(identify(process.pid) for process in processes)
    assert marked_processes(tmp_path / "cluster") == {}


def test_a_cluster_ends_with_the_block_that_raised(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), LocalCluster(config(tmp_path)):
        raise ZeroDivisionError
    assert marked_processes(tmp_path / "cluster") == {}


def test_an_undirected_cluster_removes_its_directory(tmp_path: Path) -> None:
    release = fake_release(tmp_path / "release")
    with LocalCluster(LocalClusterConfig(nodes=1, release=release)) as cluster:
        place = cluster.directory
        assert place.is_dir()
    assert not place.exists()


def test_the_cookie_is_one_secret_that_only_this_user_reads(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)) as cluster:
        files = [cluster.directory / name / ".erlang.cookie" for name in ("hs1", "hs2")]
        assert {file.read_text() for file in files} == {cluster.cookie}
        assert set(cluster.cookie) <= set(string.hexdigits), "never taken for an option on a command line"
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
        listing = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
        assert cluster.cookie not in listing


def test_starting_twice_says_that_it_runs(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)):
        with pytest.raises(ConfigurationError, match="runs already"):
            LocalCluster(config(tmp_path)).start()
        running_cluster(tmp_path / "cluster")


def test_stopping_twice_is_fine(tmp_path: Path) -> None:
    cluster = LocalCluster(config(tmp_path))
    cluster.start()
    assert cluster.stop() is True
    assert cluster.stop() is False
    assert LocalCluster(LocalClusterConfig(directory=tmp_path / "nowhere")).stop() is False


def test_another_launcher_ends_a_detached_cluster(tmp_path: Path) -> None:
    state = LocalCluster(config(tmp_path, detached=True)).start()
    assert LocalCluster(config(tmp_path, detached=True)).stop() is True
    assert not any(identify(process.pid) for process in state.processes)


def test_processes_of_an_interrupted_start_are_ended(tmp_path: Path) -> None:
    """The launcher was killed before it wrote down what it had started."""
    LocalCluster(config(tmp_path, detached=True)).start()
    (tmp_path / "cluster" / STATE_FILE).unlink()
    assert len(marked_processes(tmp_path / "cluster")) == 3
    assert LocalCluster(config(tmp_path)).stop() is True
    assert marked_processes(tmp_path / "cluster") == {}


def test_a_damaged_state_file_does_not_keep_a_cluster_alive(tmp_path: Path) -> None:
    LocalCluster(config(tmp_path, detached=True)).start()
    (tmp_path / "cluster" / STATE_FILE).write_text("{")
    assert LocalCluster(config(tmp_path)).stop() is True
    assert marked_processes(tmp_path / "cluster") == {}


def test_the_kernel_ends_nodes_whose_launcher_was_killed(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from bridge.cluster.local import LocalCluster, LocalClusterConfig\n"
        "release, place = map(Path, sys.argv[1:])\n"
        "LocalCluster(LocalClusterConfig(nodes=2, directory=place, release=release)).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    release = fake_release(tmp_path / "release")
    done = subprocess.run([sys.executable, "-c", program, str(release), str(place)], check=False)
    assert done.returncode == -signal.SIGKILL
    state = load_state(place)
    assert state is not None
    # The signal came with the launcher's death; the dying itself may still be going on.
    assert wait_until_gone(state.processes, timeout=10.0) == []
    assert marked_processes(place) == {}


def test_a_node_that_refuses_to_start_is_quoted_and_nothing_stays(tmp_path: Path) -> None:
    script = 'echo noise; echo "khepri_bridge: no space left on /data"; exit 1\n'
    with pytest.raises(ConfigurationError, match=r"hs1@127\.0\.0\.1 ended.*no space left on /data.*hs1\.log"):
        LocalCluster(config(tmp_path, script=script)).start()
    assert marked_processes(tmp_path / "cluster") == {}


def test_a_node_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    script = 'echo "khepri_bridge: waiting for a leader"; exec sleep 1000\n'
    slow = config(tmp_path, script=script)
    impatient = LocalClusterConfig(nodes=1, directory=slow.directory, release=slow.release, ready_seconds=0.3)
    with pytest.raises(ConfigurationError, match="did not get ready in time: waiting for a leader"):
        LocalCluster(impatient).start()
    assert marked_processes(tmp_path / "cluster") == {}


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = LocalClusterConfig(
            nodes=1,
            directory=tmp_path / "cluster",
            release=fake_release(tmp_path / "release"),
            epmd_port=port,
        )
        with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is in use"):
            LocalCluster(wanted).start()
    assert marked_processes(tmp_path / "cluster") == {}


def test_fewer_nodes_than_the_data_has_are_refused(tmp_path: Path) -> None:
    script = 'mkdir -p "$KB_DATA_DIR/khepri"\n' + READY
    with LocalCluster(config(tmp_path, script=script, nodes=2)):
        pass
    with pytest.raises(ConfigurationError, match="data of 2 nodes"):
        LocalCluster(config(tmp_path, nodes=1)).start()


def test_a_killed_node_is_started_again_with_its_data(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)) as cluster:
        cluster.kill_node("hs2")
        assert cluster.state.nodes[1].process is None
        cluster.start_node("hs2")
        with pytest.raises(InvalidStateError, match="is running"):
            cluster.start_node("hs2")


def test_members_that_are_missing_are_started_by_another_launcher_as_the_others_were(tmp_path: Path) -> None:
    script = 'env >"$KB_DATA_DIR/seen"; echo "khepri_bridge: ready"; exec sleep 1000\n'
    place = tmp_path / "cluster"
    settings = replace(
        config(tmp_path, script=script, nodes=3, detached=True), environment={"KB_LEASE_MS": "2000"}
    )
    first = LocalCluster(settings)
    first.start()
    try:
        assert missing_members(place) == ()
        for name in ("hs1", "hs3"):
            first.kill_node(name)
            (place / name / "seen").unlink()
        assert missing_members(place) == ("hs1@127.0.0.1", "hs3@127.0.0.1")
        another = LocalCluster(config(tmp_path, nodes=3, detached=True))
        assert another.start_missing(["hs3", "hs3@127.0.0.1"]) == ("hs3@127.0.0.1",)
        assert another.start_missing() == ("hs1@127.0.0.1",)
        assert missing_members(place) == ()
        for name in ("hs1", "hs3"):
            seen = (place / name / "seen").read_text().splitlines()
            # None founds anything, not even the first one.
            assert {"KB_LEASE_MS=2000", "KB_SEED=hs2@127.0.0.1", f"KB_NODE={name}@127.0.0.1"} <= set(seen)
        with pytest.raises(InvalidStateError, match=r"hs3@127\.0\.0\.1 is running"):
            another.start_missing(["hs3@127.0.0.1"])
        with pytest.raises(ConfigurationError, match="no node hs9"):
            another.start_missing(["hs9"])
        with pytest.raises(ConfigurationError, match="KB_LEASE_MS=2000"):
            LocalCluster(replace(settings, environment={"KB_LEASE_MS": "3000"})).start_missing()
    finally:
        first.stop()
    with pytest.raises(InvalidStateError, match="no cluster runs"):
        LocalCluster(config(tmp_path, nodes=3, detached=True)).start_missing(["hs3"])


def test_a_port_mapper_that_died_is_started_where_it_was(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)) as cluster:
        epmd, port = cluster.state.epmd, cluster.epmd_port
        assert epmd is not None
        end_processes([epmd], grace=0.0)
        cluster.kill_node("hs2")
        cluster.start_missing()
        assert cluster.epmd_port == port
        assert cluster.state.epmd is not None
        assert cluster.state.epmd != epmd
        with socket.create_connection((HOST, port)):
            pass


def test_where_only_the_port_mapper_is_left_all_are_started_anew(tmp_path: Path) -> None:
    with LocalCluster(config(tmp_path)) as cluster:
        for name in ("hs1", "hs2"):
            cluster.kill_node(name)
        assert missing_members(tmp_path / "cluster") == ()
        with pytest.raises(InvalidStateError, match="start all of them"):
            cluster.start_missing()
        assert len(LocalCluster(config(tmp_path)).start().processes) == 3


def test_environment_of_the_caller_does_not_reach_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERL_FLAGS", "-setcookie stolen")
    monkeypatch.setenv("KB_RESET", "true")
    script = 'env >"$KB_DATA_DIR/seen"; echo "khepri_bridge: ready"; exec sleep 1000\n'
    with LocalCluster(config(tmp_path, script=script, nodes=2)) as cluster:
        seen = (cluster.directory / "hs2" / "seen").read_text().splitlines()
    assert "KB_SEED=hs1@127.0.0.1" in seen
    assert not any(line.startswith(("ERL_FLAGS=", "KB_RESET=")) for line in seen)


@pytest.mark.parametrize("nodes", [0, 10])
def test_the_number_of_nodes_is_bounded(nodes: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 9"):
        LocalClusterConfig(nodes=nodes)


def test_a_cluster_that_is_started_again_is_of_its_instance_and_found_where_it_was(tmp_path: Path) -> None:
    script = 'mkdir -p "$KB_DATA_DIR/khepri"\n' + READY
    first = config(tmp_path, script=script)
    with LocalCluster(replace(first, instance="emerald")) as cluster:
        was = cluster.state
    with LocalCluster(first) as cluster:
        assert (cluster.state.instance, cluster.epmd_port) == ("emerald", was.epmd_port)
    with socket.create_server((HOST, was.epmd_port)), LocalCluster(first) as cluster:
        assert cluster.epmd_port != was.epmd_port
    erase_data(first.directory or tmp_path)
    with LocalCluster(first) as cluster:
        assert cluster.state.instance == "local"

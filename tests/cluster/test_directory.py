from __future__ import annotations

import os
import stat
import string
from pathlib import Path

import pytest

from bridge.cluster.directory import erase_data, holds_data, log_file, read_cookie, write_cookies
from bridge.cluster.processes import end_processes, identify, plain_environment, spawn
from bridge.cluster.state import ENDED_FILE, ClusterState, NodeRecord
from bridge.errors import ConfigurationError, InvalidStateError


def cluster(*names: str) -> ClusterState:
    nodes = tuple(NodeRecord(name=f"{name}@127.0.0.1") for name in names)
    return ClusterState(instance="local", store="homeserver", epmd_port=4369, epmd=None, nodes=nodes)


def test_a_cookie_is_one_secret_that_only_this_user_reads(tmp_path: Path) -> None:
    state = cluster("hs1", "hs2")
    write_cookies(tmp_path, state)
    files = [tmp_path / name / ".erlang.cookie" for name in ("hs1", "hs2")]
    assert {file.read_text() for file in files} == {read_cookie(tmp_path, state)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert set(read_cookie(tmp_path, state)) <= set(string.hexdigits)


def test_a_cluster_that_grows_keeps_its_cookie(tmp_path: Path) -> None:
    write_cookies(tmp_path, cluster("hs1"))
    kept = read_cookie(tmp_path, cluster("hs1"))
    write_cookies(tmp_path, cluster("hs1", "hs2"))
    assert (tmp_path / "hs1" / ".erlang.cookie").read_text() == kept
    assert (tmp_path / "hs2" / ".erlang.cookie").read_text() == kept


@pytest.mark.parametrize("empty", ["hs1", "hs2"])
def test_a_file_that_a_killed_start_left_empty_gets_the_cookie_of_the_others(
    tmp_path: Path, empty: str
) -> None:
    state = cluster("hs1", "hs2")
    write_cookies(tmp_path, state)
    kept = read_cookie(tmp_path, state)
    (tmp_path / empty / ".erlang.cookie").write_text("")
    write_cookies(tmp_path, state)
    assert {(tmp_path / name / ".erlang.cookie").read_text() for name in ("hs1", "hs2")} == {kept}


def test_two_clusters_have_two_cookies(tmp_path: Path) -> None:
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        write_cookies(place, cluster("hs1"))
    assert read_cookie(tmp_path / "one", cluster("hs1")) != read_cookie(tmp_path / "two", cluster("hs1"))


def test_a_cookie_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"hs1/\.erlang\.cookie cannot be read"):
        read_cookie(tmp_path, cluster("hs1"))


def test_a_cookie_is_no_data(tmp_path: Path) -> None:
    assert not holds_data(tmp_path / "hs1")
    write_cookies(tmp_path, cluster("hs1"))
    assert not holds_data(tmp_path / "hs1")
    (tmp_path / "hs1" / "khepri").mkdir()
    assert holds_data(tmp_path / "hs1")


@pytest.mark.parametrize("name", ["hs1", "hs1@127.0.0.1"])
def test_a_log_has_the_short_name_of_its_node(tmp_path: Path, name: str) -> None:
    assert log_file(tmp_path, name) == tmp_path / "hs1.log"


def test_erasing_removes_data_and_nothing_else(tmp_path: Path) -> None:
    write_cookies(tmp_path, cluster("hs1", "hs2"))
    for name in ("hs1.log", "epmd.log", ".lock", ENDED_FILE, "mine.txt"):
        (tmp_path / name).touch()
    assert erase_data(tmp_path) is True
    assert os.listdir(tmp_path) == ["mine.txt"]
    assert erase_data(tmp_path) is False


def test_an_erased_directory_with_nothing_else_in_it_goes(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    place.mkdir()
    write_cookies(place, cluster("hs1"))
    erase_data(place)
    assert not place.exists()


def test_data_of_a_cluster_that_runs_are_not_erased(tmp_path: Path) -> None:
    write_cookies(tmp_path, cluster("hs1"))
    child = spawn(
        ["sleep", "1000"],
        directory=tmp_path,
        environment=plain_environment(),
        log=tmp_path / "log",
        tied=True,
    )
    process = identify(child)
    assert process is not None
    try:
        with pytest.raises(InvalidStateError, match="runs: end it first"):
            erase_data(tmp_path)
        assert read_cookie(tmp_path, cluster("hs1"))
    finally:
        end_processes([process], grace=0.0)

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cluster.processes import ProcessIdentity
from bridge.cluster.state import (
    STATE_FILE,
    ClusterState,
    NodeRecord,
    cluster_options,
    default_directory,
    exclusive,
    load_state,
    save_state,
)
from bridge.errors import BridgeError, ConfigurationError

processes = st.builds(
    ProcessIdentity, pid=st.integers(1, 1 << 22), started=st.integers(0, 1 << 62), boot=st.text(max_size=40)
)
states = st.builds(
    ClusterState,
    instance=st.text(max_size=20),
    store=st.text(max_size=20),
    epmd_port=st.integers(0, 65535),
    epmd=st.none() | processes,
    nodes=st.lists(
        st.builds(NodeRecord, name=st.text(max_size=30), process=st.none() | processes), max_size=4
    ).map(tuple),
)


@given(state=states)
def test_what_is_saved_is_loaded(state: ClusterState, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("state")
    save_state(directory, state)
    assert load_state(directory) == state


@given(
    content=st.binary(max_size=200)
    | st.sampled_from([b"[]", b"{}", b"null", b'{"format":1}', b'{"format":2}'])
)
def test_a_damaged_file_is_a_configuration_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("state")
    (directory / STATE_FILE).write_bytes(content)
    with pytest.raises(BridgeError):
        load_state(directory)


def test_no_file_is_no_cluster(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


def test_two_commands_never_start_or_stop_one_cluster_at_once(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigurationError, match="another command")
    with exclusive(tmp_path), refused, exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory("mine") == tmp_path / "khepri-bridge" / "mine"


def test_a_command_is_told_which_cluster_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert cluster_options(default_directory()) == ""
    assert cluster_options(default_directory("two")) == " --name two"
    assert cluster_options(tmp_path / "a place") == f" --dir '{tmp_path}/a place'"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 33])
def test_a_name_that_is_no_directory_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cluster name"):
        default_directory(name)

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bridge.cluster.epmd import HOST, environment, free_port, start_epmd
from bridge.cluster.processes import end_processes, is_running, marked_processes
from bridge.errors import ConfigurationError


@pytest.mark.erlang
def test_it_answers_once_it_is_started(tmp_path: Path) -> None:
    # Another program may be faster to take a port that was free.
    started = ((port, start_epmd(port, directory=tmp_path, tied=True)) for port in (free_port(), free_port()))
    port, process = next((port, process) for port, process in started if process is not None)
    try:
        assert list(marked_processes(tmp_path)) == [process]
        with socket.create_connection((HOST, port)):
            assert is_running(process)
    finally:
        end_processes([process], grace=0.0)


@pytest.mark.erlang
def test_at_a_taken_port_there_is_none_and_nothing_stays(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        assert start_epmd(taken.getsockname()[1], directory=tmp_path, tied=True) is None
    assert marked_processes(tmp_path) == {}


def test_without_the_program_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="epmd cannot be started"):
        start_epmd(free_port(), directory=tmp_path, tied=False)


def test_its_users_are_told_where_it_is() -> None:
    told = environment(4370)
    assert (told["ERL_EPMD_PORT"], told["ERL_EPMD_ADDRESS"]) == ("4370", HOST)

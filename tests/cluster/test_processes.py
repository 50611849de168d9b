from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.cluster.processes import (
    end_processes,
    identify,
    is_running,
    marked_processes,
    plain_environment,
    spawn,
    wait_until_gone,
)
from bridge.errors import ConfigurationError


def start(directory: Path, *command: str) -> int:
    return spawn(
        list(command),
        directory=directory,
        environment={"PATH": os.environ["PATH"]},
        log=directory / "log",
        tied=True,
    )


def test_a_process_is_recognised_until_it_ends(tmp_path: Path) -> None:
    process = identify(start(tmp_path, "sleep", "1000"))
    assert process is not None
    assert is_running(process)
    assert marked_processes(tmp_path) == {process: tmp_path}
    end_processes([process], grace=10.0)
    assert not is_running(process)
    assert marked_processes(tmp_path) == {}


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    own = identify(os.getpid())
    assert own is not None
    assert not is_running(replace(own, started=own.started - 1))
    assert not is_running(replace(own, boot="another boot"))


def test_a_process_that_only_has_the_number_is_never_signalled() -> None:
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        process = identify(innocent.pid)
        assert process is not None
        end_processes([replace(process, started=process.started - 1)], grace=0.0)
        assert innocent.poll() is None
        innocent.kill()


def test_a_process_that_ignores_a_request_to_stop_is_killed(tmp_path: Path) -> None:
    script = 'trap "" TERM; echo deaf; while :; do sleep 1000; done'
    process = identify(start(tmp_path, "sh", "-c", script))
    assert process is not None
    while "deaf" not in (tmp_path / "log").read_text():
        os.sched_yield()
    end_processes([process], grace=0.05)
    assert not is_running(process)
    end_processes(marked_processes(tmp_path), grace=0.0)


def test_a_name_with_parentheses_does_not_confuse_the_start_time(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    process = identify(start(tmp_path, str(program), "1000"))
    assert process is not None
    assert process.started > 1000
    end_processes([process], grace=0.0)


def test_both_outputs_are_appended_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    process = identify(start(tmp_path, "sh", "-c", "echo out; echo err >&2"))
    if process is not None:
        assert wait_until_gone([process], timeout=10.0) == []
    assert (tmp_path / "log").read_text() == "before\nout\nerr\n"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nonesuch"):
        spawn(["nonesuch"], directory=tmp_path, environment={}, log=tmp_path / "log", tied=False)


def test_a_node_gets_little_of_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TZ", "UTC"), ("ERL_FLAGS", "-setcookie stolen"), ("KB_RESET", "true")):
        monkeypatch.setenv(name, value)
    environment = plain_environment()
    assert environment.items() >= {"TZ": "UTC", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}.items()
    assert not {"ERL_FLAGS", "KB_RESET"} & set(environment)

"""Records that a killed process leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.authority import Act, Alive, RecordFile, record_path
from bridge.cli.record import read_history
from bridge.errors import ConfigurationError

SESSION = bytes(range(16))
ACT = Act(server="a", session=SESSION, entity="ball", epoch=1, first_ns=0, last_ns=9)


def test_a_record_is_a_history_file(tmp_path: Path) -> None:
    path = record_path(tmp_path / "new", "a/../b", SESSION, "acts")
    assert path.parent == tmp_path / "new"
    with RecordFile(path) as file:
        assert read_history(path) == []
        file.write(ACT)
        file.alive("a", SESSION, 5)
        file.alive("a", SESSION, 12_345)
        assert read_history(path) == [Alive(server="a", session=SESSION, at_ns=12_345), ACT]


def test_the_longest_name_has_room_in_the_first_line(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "acts.jsonl") as file:
        file.write(ACT)
        name = "\x01" * 150
        file.alive(name, SESSION, 2**63)
    assert read_history(tmp_path / "acts.jsonl")[0] == Alive(server=name, session=SESSION, at_ns=2**63)


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from bridge.authority import *;"
        "file = RecordFile(Path(sys.argv[1]));"
        "file.write(Began(server='a', session=bytes(16), entity='ball', epoch=1, first_ns=1));"
        "file.alive('a', bytes(16), 77); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "acts.jsonl"
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    alive, began = read_history(path)
    assert isinstance(alive, Alive)
    assert alive.at_ns == 77
    assert not isinstance(began, Alive)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write the record"):
        RecordFile(tmp_path / "file" / "acts.jsonl")

"""What a replay leaves on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.authority import Act, Message
from bridge.cli.record import (
    HISTORY,
    MESSAGES,
    make_directory,
    read_history,
    read_history_of,
    read_messages,
    write_record,
)
from bridge.errors import BridgeError, ConfigurationError, DecodeError

ACT = Act(server="a", session=b"a" * 16, entity="ball", epoch=1, first_ns=0, last_ns=9)
MESSAGE = Message(trace=b"t" * 16, hop=0, kind="push", sender="a", receiver="home", at_ns=1)


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "new" / "place", [ACT], [MESSAGE])
    assert read_history(tmp_path / "new" / "place" / HISTORY) == [ACT]
    assert read_messages(tmp_path / "new" / "place" / MESSAGES) == [MESSAGE]


def test_a_file_may_be_of_an_instance(tmp_path: Path) -> None:
    write_record(tmp_path, [ACT], [])
    (entry,) = read_history_of(f"ruby={tmp_path / HISTORY}")
    assert isinstance(entry, Act)
    assert entry.server == "a@ruby"
    write_record(tmp_path / "x=y", [ACT], [])
    assert read_history_of(str(tmp_path / "x=y" / HISTORY)) == [ACT]
    with pytest.raises(ConfigurationError):
        read_history_of("none")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write the record"):
        write_record(tmp_path / "file", [ACT], [MESSAGE])


def test_a_place_for_a_record_is_made_beforehand(tmp_path: Path) -> None:
    make_directory(tmp_path / "new" / "place")
    assert list((tmp_path / "new" / "place").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write the record"):
        make_directory(tmp_path / "file")


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    whole = tmp_path / HISTORY
    write_record(tmp_path, [ACT, ACT], [])
    whole.write_bytes(whole.read_bytes()[:-1])
    assert read_history(whole) == [ACT, ACT]
    whole.write_bytes(whole.read_bytes()[:-20])
    assert read_history(whole) == [ACT]


def test_a_file_that_is_missing_or_of_another_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_history(tmp_path / "none")
    other = tmp_path / "other.jsonl"
    other.write_text("{}\n")
    with pytest.raises(BridgeError, match="line 1"):
        read_history(other)
    with pytest.raises(ConfigurationError, match="line 1"):
        read_messages(other)


def test_the_file_that_is_no_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no entry\n")
    with pytest.raises(DecodeError, match=r"notes\.txt: line 1 is no history entry"):
        read_history_of(str(tmp_path / "notes.txt"))

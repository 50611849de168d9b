"""Results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys

import pytest

from bridge.cli.output import emit, fail, progress, table


def test_a_result_is_text_or_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": "ä"}, as_json=False, text="for people")
    emit({"a": "ä"}, as_json=True, text="for people")
    emit({"a": 1}, as_json=False, text="")
    assert capsys.readouterr().out == 'for people\n{"a":"ä"}\n'


def test_progress_stays_away_from_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    progress("half done")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "half done\n")


def test_a_failure_is_one_line_whatever_the_error_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["khepri-bridge", "status", "--json"])
    with pytest.raises(SystemExit) as ended:
        fail("two\nlines", kind="BoxError", status=3)
    said = capsys.readouterr()
    assert ended.value.code == 3
    assert said.err == "khepri-bridge: two lines\n"
    assert json.loads(said.out) == {"error": {"type": "BoxError", "message": "two lines"}}


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("a", "b"), [("long", "x")]) == "a     b\nlong  x"

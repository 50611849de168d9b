"""``docs/requirements.md`` names every promise, and every test it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| (?P<row>R\d-A?\d+|B-\d) \| (?P<promise>[^|]+) \| (?P<state>[^|]+) \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer((ROOT / "docs" / "requirements.md").read_text())]
TEST = re.compile(r"`(?P<file>(?:tests|erlang)/[\w/.]+)(?:::(?P<name>\w+))?`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["row"])
def test_a_row_is_open_or_names_a_test_that_exists(row: dict[str, str]) -> None:
    state = row["state"].strip()
    named = list(TEST.finditer(state))
    assert state.startswith("open") or (state.startswith("done") and named), state
    for match in named:
        file = ROOT / match["file"]
        assert file.is_file(), file
        if match["name"]:
            assert re.search(rf"\b{match['name']}\b", file.read_text()), f"{match['name']} is not in {file}"


def test_no_row_stands_twice() -> None:
    names = [row["row"] for row in ROWS]
    assert len(names) == len(set(names)) > 150

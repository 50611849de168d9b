"""``docs/parity.md`` has a row for every function of Khepri, and every Python name in it is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import bridge.khepri
from bridge.etf import Atom
from bridge.homeserver.local import LocalCluster
from bridge.khepri import Khepri
from bridge.node import HiddenNode
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller

TEXT = (Path(__file__).parent.parent / "docs" / "parity.md").read_text()
ROW = re.compile(
    r"^\| `(?P<module>\w+):(?P<function>\w+!?)/(?P<first>\d+)(?:\.\.(?P<last>\d+))?` "
    r"\| (?P<python>.+?) \|(?P<note>.*)\|$",
    re.MULTILINE,
)
ROWS = [match.groupdict() for match in ROW.finditer(TEXT)]
MODULES = (
    "khepri",
    "khepri_adv",
    "khepri_tx",
    "khepri_tx_adv",
    "khepri_cluster",
    "khepri_path",
    "khepri_condition",
    "khepri_payload",
    "khepri_evf",
    "khepri_projection",
    "khepri_import_export",
)
OTHER_VERSION = re.compile(r"\b(from|until) 0\.\d+")


def arities(row: dict[str, str]) -> range:
    first = int(row["first"])
    return range(first, int(row["last"] or first) + 1)


def test_every_line_of_a_table_is_a_row() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| `khepri")]
    assert len(lines) == len(ROWS)
    keys = [(row["module"], row["function"]) for row in ROWS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['module']}:{row['function']}")
def test_a_row_names_python_that_is_there_or_says_why_there_is_none(row: dict[str, str]) -> None:
    if row["python"] == "none":
        assert row["note"].strip(), "no reason is given"
    else:
        assert row["python"].startswith("`")
    for code in re.findall(r"`([^`]+)`", row["python"] + row["note"]):
        if (store := re.match(r"store\.([\w.]+)", code)) is not None:
            value: Any = Khepri(ScriptedCaller())
            for name in store[1].split("."):
                value = getattr(value, name)
        elif (call := re.match(r"(\w+)\((\w+)?", code)) is not None:
            assert call[1] in bridge.khepri.__all__, code
            if call[1] == "Adv":
                assert call[2] in bridge.khepri.__all__, code


@pytest.mark.parametrize("name", re.findall(r"`([A-Z]\w+)[(.]", TEXT))
def test_every_class_that_is_named_is_exported(name: str) -> None:
    assert name in (*bridge.khepri.__all__, "Atom")


@erlang
@pytest.mark.parametrize("module", MODULES)
async def test_every_function_of_the_running_khepri_has_a_row(
    node: HiddenNode, cluster: LocalCluster, module: str
) -> None:
    exports = await node.call(cluster.members[0], module, "module_info", [Atom("exports")])
    there = {(str(name), arity) for name, arity in exports} - {("module_info", 0), ("module_info", 1)}
    rows = [row for row in ROWS if row["module"] == module]
    listed = {(row["function"], arity) for row in rows for arity in arities(row)}
    assert there - listed == set()
    for row in rows:
        if any((row["function"], arity) not in there for arity in arities(row)):
            assert OTHER_VERSION.search(row["note"]), f"{row['function']} is not of this version"

"""``docs/parity.md`` has a row for every function of Khepri; what it names is there, and is run."""

from __future__ import annotations

import re
from typing import Any

import pytest

import bridge.khepri
from bridge.cluster.local import LocalCluster
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.node import HiddenNode
from tests.parity.cases import NAMES
from tests.parity.differences import DIFFERENCES, TREES
from tests.parity.outcomes import RENAMED
from tests.parity.table import CONDITIONS, ROWS, TEXT, TableRow
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller

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
OPTIONS = ("favor", "expect_specific_node", "include_root_props", "props")


def test_every_line_of_a_table_is_a_row() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| `khepri")]
    assert len(lines) == len(ROWS)
    assert len([line for line in TEXT.splitlines() if line.startswith(("| `#", "| `?"))]) == len(CONDITIONS)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_row_names_python_that_is_there_or_says_why_there_is_none(row: TableRow) -> None:
    if row.python == "none":
        assert row.note, "no reason is given"
    else:
        assert row.python.startswith("`")
    for code in re.findall(r"`([^`]+)`", row.python + row.note):
        if (store := re.match(r"store\.([\w.]+)", code)) is not None:
            value: Any = Khepri(ScriptedCaller())
            for name in store[1].split("."):
                value = getattr(value, name)
        elif (call := re.match(r"(\w+)\((\w+)?", code)) is not None:
            assert call[1] in bridge.khepri.__all__, code
            if call[1] == "Adv":
                assert call[2] in bridge.khepri.__all__, code


def _outcome(name: str) -> str:
    """How the two sides of a case compare."""
    return "differs" if name in DIFFERENCES or name in TREES else "same"


def test_every_row_with_python_is_run_from_both_sides() -> None:
    told = {row.name: row.test for row in ROWS.values()} | CONDITIONS
    run = {name: _outcome(name) for name in NAMES if name not in OPTIONS}
    without = {row.name: "" for row in ROWS.values() if row.python == "none"}
    assert told == run | without


def test_a_row_that_differs_says_how() -> None:
    assert [name for name in (*DIFFERENCES, *TREES) if not ROWS[name].note] == []


@pytest.mark.parametrize("name", [*OPTIONS, *RENAMED, *RENAMED.values()])
def test_options_and_reasons_of_another_name_are_told(name: str) -> None:
    assert f"`{name}`" in TEXT


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
    rows = [row for row in ROWS.values() if row.name.startswith(f"{module}:")]
    listed = {(row.name.removeprefix(f"{module}:"), arity) for row in rows for arity in row.arities}
    assert there - listed == set()
    for row in rows:
        if any((row.name.removeprefix(f"{module}:"), arity) not in there for arity in row.arities):
            assert row.of_some_versions, f"{row.name} is not of this version"

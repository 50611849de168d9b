from __future__ import annotations

import re

import pytest

from bridge.etf import Atom
from bridge.khepri import (
    AllOf,
    AnyOf,
    ChildListLength,
    ChildListVersion,
    Condition,
    DataMatches,
    HasData,
    HasPayload,
    HasSproc,
    NameMatches,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
)
from bridge.khepri.memory.evaluate import (
    compile_condition,
    compiled,
    is_recursive,
    may_create,
    name_bytes,
    unmet,
)
from bridge.khepri.memory.nodes import Node, Payload

NODE = Node(Payload(7), 2, 3).with_new_child(b"oak", Node())


@pytest.mark.parametrize(
    ("condition", "failed"),
    [
        (b"wood", None),
        (Atom("wood"), Atom("wood")),
        (NameMatches("^w"), None),
        (NameMatches("^x"), NameMatches("^x")),
        (PathMatches(), None),
        (HasPayload(), None),
        (HasData(False), HasData(False)),
        (HasSproc(False), None),
        (HasSproc(), HasSproc()),
        (NodeExists(), None),
        (NodeExists(False), NodeExists(False)),
        (PayloadVersion("eq", 2), None),
        (PayloadVersion("ne", 2), PayloadVersion("ne", 2)),
        (ChildListVersion("gt", 3), None),
        (ChildListLength("le", 1), None),
        (ChildListLength("lt", 1), ChildListLength("lt", 1)),
        (DataMatches(7), None),
        (DataMatches(8), DataMatches(8)),
        (Not(b"stone"), None),
        (Not(b"wood"), Not(b"wood")),
        (AllOf(), None),
        (AllOf(b"wood", HasData(False)), HasData(False)),
        (AnyOf(), AnyOf()),
        (AnyOf(b"stone", HasData()), None),
        (AnyOf(b"stone", HasData(False)), AnyOf(b"stone", HasData(False))),
    ],
)
def test_what_is_unmet_is_told_as_khepri_tells_it(condition: Condition, failed: Condition | None) -> None:
    assert unmet(condition, b"wood", NODE) == failed


def test_a_node_without_data_matches_no_pattern() -> None:
    assert unmet(DataMatches(), b"wood", Node()) == DataMatches()


def test_compiling_puts_names_first_and_unwraps_what_is_alone() -> None:
    assert compile_condition(AllOf(HasData(), b"a", NodeExists())) == AllOf(b"a", HasData(), NodeExists())
    assert compile_condition(AnyOf(AllOf(HasData()))) == HasData()
    assert compile_condition(Not(AllOf(HasData()))) == Not(HasData())


def test_a_component_applies_to_grandchildren_wherever_two_stars_stand_in_it() -> None:
    assert is_recursive(AllOf(b"a", Not(PathMatches())))
    assert is_recursive(AnyOf(PathMatches()))
    assert not is_recursive(AllOf(NameMatches()))


def test_a_node_is_made_only_where_the_condition_lets_it_be_missing() -> None:
    assert may_create(AllOf(b"a", NodeExists(False)))
    assert may_create(AnyOf(HasData(), b"a"))
    assert not may_create(AllOf(b"a", NodeExists()))
    assert not may_create(HasData())


def test_regular_expressions_see_the_bytes_of_a_name() -> None:
    assert name_bytes(Atom("é")) == b"\xe9"
    assert compiled(b"^.$").search(name_bytes(Atom("é")))


@pytest.mark.parametrize("regex", [b"[[:alpha:]]", b"(", b"\\Qa\\E"])
def test_what_python_reads_otherwise_is_no_regular_expression_here(regex: bytes) -> None:
    with pytest.raises(re.error):
        compiled(regex)

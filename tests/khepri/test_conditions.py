from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.etf import Atom, ErlangMap, ImproperList, decode_term, encode_term
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
    MatchAny,
    MatchVariable,
    NameMatches,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
    PoisonError,
    condition_from_term,
)
from bridge.khepri.conditions import (
    MAX_CONDITION_DEPTH,
    MAX_CONDITIONS,
    MAX_PATTERN_DEPTH,
    MAX_REGEX_BYTES,
    condition_term,
    keep_while_term,
)
from tests.support.khepri_terms import conditions, patterns_of_data
from tests.support.terms import terms

UNDEFINED = Atom("undefined")


@pytest.mark.parametrize(
    ("condition", "term"),
    [
        (Atom("wood"), Atom("wood")),
        ("wood", b"wood"),
        (b"wood", b"wood"),
        (NameMatches(), (Atom("if_name_matches"), Atom("any"), UNDEFINED)),
        (NameMatches("^w"), (Atom("if_name_matches"), b"^w", UNDEFINED)),
        (PathMatches(), (Atom("if_path_matches"), Atom("any"), UNDEFINED)),
        (PathMatches(b"^w"), (Atom("if_path_matches"), b"^w", UNDEFINED)),
        (HasPayload(), (Atom("if_has_payload"), True)),
        (HasData(False), (Atom("if_has_data"), False)),
        (HasSproc(), (Atom("if_has_sproc"), True)),
        (NodeExists(False), (Atom("if_node_exists"), False)),
        (PayloadVersion("ge", 3), (Atom("if_payload_version"), (Atom("ge"), 3))),
        (ChildListVersion("eq", 3), (Atom("if_child_list_version"), (Atom("eq"), 3))),
        (ChildListLength("lt", 3), (Atom("if_child_list_length"), (Atom("lt"), 3))),
        (DataMatches(), (Atom("if_data_matches"), Atom("_"), [], UNDEFINED)),
        (
            DataMatches({Atom("count"): MatchVariable(1)}, [(Atom(">"), MatchVariable(1), 0)]),
            (
                Atom("if_data_matches"),
                {Atom("count"): Atom("$1")},
                [(Atom(">"), Atom("$1"), 0)],
                UNDEFINED,
            ),
        ),
        (Not("wood"), (Atom("if_not"), b"wood")),
        (AllOf("wood", HasData()), (Atom("if_all"), [b"wood", (Atom("if_has_data"), True)])),
        (AnyOf(), (Atom("if_any"), [])),
    ],
)
def test_a_condition_has_the_shape_of_khepris_record(condition: Condition, term: object) -> None:
    assert condition_term(condition) == term


@given(conditions())
def test_a_condition_comes_back_from_the_wire(condition: Condition) -> None:
    term = decode_term(encode_term(condition_term(condition)))
    assert condition_from_term(term) == condition


def test_a_number_alone_and_a_list_of_characters_are_read_too() -> None:
    """As Khepri's own paths and records write them."""
    assert condition_from_term((Atom("if_payload_version"), 3)) == PayloadVersion("eq", 3)
    regex = [94, 46, 42, 36]
    assert condition_from_term((Atom("if_name_matches"), regex, UNDEFINED)) == NameMatches(b"^.*$")


@given(terms)
def test_any_term_is_a_condition_or_refused(term: object) -> None:
    with contextlib.suppress(ConfigurationError):
        condition_term(condition_from_term(term))


@given(patterns_of_data())
def test_variables_of_a_pattern_survive_wherever_they_stand(pattern: Any) -> None:
    back = condition_from_term(decode_term(encode_term(condition_term(DataMatches(pattern)))))
    assert back == DataMatches(pattern)


def test_a_pattern_may_hold_maps_with_any_keys_and_improper_lists() -> None:
    pattern = ErlangMap([([1], MatchAny()), (1, ImproperList([MatchVariable(2)], 3))])
    assert condition_from_term(condition_term(DataMatches(pattern))) == DataMatches(pattern)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HasData(1),  # type: ignore[arg-type]
        lambda: NodeExists(None),  # type: ignore[arg-type]
        lambda: NameMatches(3),  # type: ignore[arg-type]
        lambda: NameMatches("x" * (MAX_REGEX_BYTES + 1)),
        lambda: PayloadVersion("above", 3),  # type: ignore[arg-type]
        lambda: PayloadVersion("ge", -1),
        lambda: PayloadVersion("ge", True),
        lambda: PayloadVersion("ge", 1.0),  # type: ignore[arg-type]
        lambda: DataMatches(1, "guards"),
        lambda: DataMatches(1, 7),  # type: ignore[arg-type]
        lambda: MatchVariable(-1),
        lambda: MatchVariable(True),
        lambda: AllOf(*[HasData()] * (MAX_CONDITIONS + 1)),
    ],
)
def test_what_khepri_could_not_evaluate_cannot_be_made(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize("inner", [7, None, (Atom("if_has_data"), True), [b"a"]])
def test_what_is_no_condition_is_refused_with_what_to_write(inner: Any) -> None:
    with pytest.raises(ConfigurationError, match="use a name, or a class"):
        condition_term(AllOf("wood", Not(inner)))


def nested(levels: int) -> Condition:
    condition: Condition = HasData()
    for _ in range(levels - 1):
        condition = Not(condition)
    return condition


def test_conditions_are_nested_up_to_a_limit() -> None:
    deepest = nested(MAX_CONDITION_DEPTH)
    assert condition_from_term(condition_term(deepest)) == deepest
    with pytest.raises(ConfigurationError, match="deeper"):
        condition_term(Not(deepest))
    with pytest.raises(ConfigurationError, match="deeper"):
        condition_from_term((Atom("if_not"), condition_term(deepest)))


def test_a_pattern_is_nested_up_to_a_limit() -> None:
    pattern: Any = MatchAny()
    for _ in range(MAX_PATTERN_DEPTH - 1):
        pattern = (pattern,)
    assert condition_from_term(condition_term(DataMatches(pattern))) == DataMatches(pattern)
    with pytest.raises(ConfigurationError, match="deeper"):
        condition_term(DataMatches((pattern,)))


@pytest.mark.parametrize(
    "condition",
    [
        DataMatches(1),
        Not(DataMatches(1)),
        AllOf(NodeExists(), DataMatches(1)),
        AnyOf(NodeExists(), Not(AllOf(DataMatches(1)))),
    ],
)
def test_data_is_never_watched_by_keep_while(condition: Condition) -> None:
    condition_term(condition)
    with pytest.raises(PoisonError, match="ends the store"):
        keep_while_term(condition)


@given(st.sampled_from([NodeExists(), ChildListLength("gt", 0), AllOf(HasPayload(), Not(NodeExists(False)))]))
def test_everything_else_may_be(condition: Condition) -> None:
    assert keep_while_term(condition) == condition_term(condition)


def test_conditions_are_values() -> None:
    assert {HasData(), HasData(True), Not("a"), Not("a")} == {HasData(), Not("a")}
    one: object = HasData()
    assert one != HasSproc()
    assert repr(AllOf("a")) == "AllOf(conditions=('a',))"

from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom, ErlangMap, ExportFun, ImproperList
from bridge.khepri import (
    AllOf,
    AnyOf,
    DataMatches,
    HasData,
    MatchVariable,
    NameMatches,
    NodeExists,
    PathMatches,
    Special,
)
from bridge.khepri.conditions import condition_term
from bridge.khepri.memory import requests
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.memory.tree import Unmatched
from bridge.khepri.memory.walk import TreeError

A = Atom("a")
UNDEFINED = Atom("undefined")
KEEP_WHILE = Atom("keep_while")


def reason(check: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        check(*arguments, **options)
    answer = caught.value.term()
    assert answer[0] is Atom("error")
    assert isinstance(answer[1][1][Atom("message")], bytes)
    return str(answer[1][0])


@pytest.mark.parametrize(
    ("term", "found"),
    [
        (b"/:a/b", (A, b"b")),
        (b"/", ()),
        (b"/a/../:b/./c", (Atom("b"), b"c")),
        (b"/*/**", (NameMatches(), PathMatches())),
        ([A, b"b"], (A, b"b")),
        ([ord("/"), b"b", ord("^"), b"c"], (b"c",)),
        ([True], (Atom("true"),)),
        ([condition_term(AllOf(b"a", HasData()))], (AllOf(b"a", HasData()),)),
    ],
)
def test_a_pattern_is_text_or_a_list(term: Any, found: Any) -> None:
    assert requests.pattern(term) == found


@pytest.mark.parametrize(
    "term",
    [A, 1, b"/" + b"a" * 5_000, b"/\xff", [b""], [Atom("")], [Atom("Ł")], [7], [b"a"] * 65, [b"x" * 1_025]],
)
def test_what_is_no_path_is_refused(term: Any) -> None:
    assert reason(requests.pattern, term) == "invalid_path"


@pytest.mark.parametrize(
    "condition",
    [
        (Atom("if_unheard_of"), True),
        (Atom("if_has_data"), 1),
        (Atom("if_payload_version"), -1),
        (Atom("if_name_matches"), b"(", UNDEFINED),
        (Atom("if_name_matches"), b"(*UTF8)a", UNDEFINED),
        (Atom("if_name_matches"), b"x" * 300, UNDEFINED),
        (Atom("if_all"), A),
        (Atom("if_not"), b""),
        (Atom("if_data_matches"), Atom("_"), [(Atom("node"),)], UNDEFINED),
        (Atom("if_data_matches"), Atom("_"), [Atom("$1")], UNDEFINED),
        (Atom("if_data_matches"), bytes(17_000), [], UNDEFINED),
    ],
)
def test_a_condition_that_cannot_be_evaluated_is_poison(condition: Any) -> None:
    assert reason(requests.pattern, [b"a", condition]) == "poison"


def test_conditions_on_data_are_none_of_keep_while() -> None:
    term = condition_term(AnyOf(NodeExists(), DataMatches(MatchVariable(1))))
    assert requests.condition(term, keep_while=False)
    assert reason(requests.condition, term, keep_while=True) == "poison"


def test_more_than_two_recursive_components_are_poison() -> None:
    assert requests.pattern(b"/**/a/**")
    assert reason(requests.pattern, b"/**/a/**/**") == "poison"


def test_writes_stay_out_of_what_is_the_bridges_own() -> None:
    assert requests.writable(b"/:a/b") == (A, b"b")
    assert requests.written([condition_term(AnyOf(b"a", b"b"))])
    assert requests.written([condition_term(AllOf(b"a", NameMatches()))])
    for check, term in [
        (requests.writable, b"/:bridge/x"),
        (requests.written, b"/*"),
        (requests.written, [condition_term(AnyOf())]),
        (requests.written, [condition_term(AnyOf(A, Atom("bridge")))]),
        (requests.written_one, [condition_term(AllOf(Atom("bridge"), HasData()))]),
    ]:
        assert reason(check, term) == "reserved_path"
    for check, term in [
        (requests.writable, b"/"),
        (requests.writable, b"/a/*"),
        (requests.written, b"/"),
        (requests.written_one, b"/"),
        (requests.one, b"/a/*"),
    ]:
        assert reason(check, term) == "invalid_path"


def test_keep_while_takes_paths_that_are_absolute_or_relative() -> None:
    exists = condition_term(NodeExists())
    watched = ErlangMap([(b"/:a", exists), ([94, b"b"], exists), (b"./c", exists), ([b"d"], exists)])
    assert requests.keep_while({KEEP_WHILE: watched}) == {
        (A,): NodeExists(),
        (Special.PARENT, b"b"): NodeExists(),
        (Special.THIS, b"c"): NodeExists(),
        (b"d",): NodeExists(),
    }
    assert requests.keep_while({}) is None
    assert reason(requests.keep_while, {Atom("another"): {}}) == "invalid_options"
    many = {f"/{number}".encode(): exists for number in range(33)}
    assert reason(requests.keep_while, {KEEP_WHILE: many}) == "invalid_options"


def test_functions_and_large_data_are_not_stored() -> None:
    fun = ExportFun(Atom("m"), Atom("f"), 1)
    for data in (fun, [fun], (1, fun), {b"k": fun}, {fun: 1}, ImproperList([1], fun)):
        assert reason(requests.data, data) == "invalid_data"
    assert reason(requests.data, bytes(1_100_000)) == "too_large"
    assert requests.data([1]) == [1]


def test_options_are_those_of_the_protocol() -> None:
    props = [Atom("payload_version")]
    wanted = {
        Atom("favor"): Atom("consistency"),
        Atom("timeout"): 1,
        Atom("props_to_return"): props,
        Atom("expect_specific_node"): True,
        Atom("include_root_props"): True,
    }
    assert requests.read_options(wanted) == (tuple(props), True, True)
    assert requests.read_options({}) == ((Atom("payload"),), False, False)
    requests.write_options({Atom("timeout"): 60_000})
    wrong: list[Any] = [
        {Atom("favor"): Atom("speed")},
        {Atom("props_to_return"): [Atom("raw_payload")]},
        {Atom("props_to_return"): props * 17},
        {Atom("include_root_props"): 1},
        {Atom("timeout"): 0},
        [],
    ]
    for options in wrong:
        assert reason(requests.read_options, options) == "invalid_options"
    assert reason(requests.write_options, {Atom("favor"): A}) == "invalid_options"


def test_what_the_tree_refuses_is_told_in_terms() -> None:
    missing = TreeError("node_not_found", path=(A,), condition=NodeExists())
    assert requests.refusal(missing).props["condition"] == condition_term(NodeExists())
    unmatched = TreeError("keep_while_conditions_not_met", path=(A,), because=Unmatched((b"b",)))
    assert requests.refusal(unmatched).props["because"] == (Atom("pattern_matches_no_nodes"), [b"b"])
    unmet = TreeError("keep_while_conditions_not_met", path=(A,), because=HasData())
    assert requests.refusal(unmet).props["because"] == condition_term(HasData())
    failed = requests.refusal(TreeError("unknown", because="as Khepri does"), (b"p",))
    assert (failed.props["reason"], failed.props["path"]) == (b"as Khepri does", [b"p"])

from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom, BitString, ErlangMap, ImproperList
from bridge.khepri import MatchAny, MatchVariable
from bridge.khepri.memory.match_spec import check_guards, matches, variables

X, Y = MatchVariable(1), MatchVariable(2)
ANY = MatchAny()


def call(name: str, *arguments: Any) -> tuple[Any, ...]:
    return (Atom(name), *arguments)


@pytest.mark.parametrize(
    ("pattern", "term", "expected"),
    [
        (ANY, b"a", True),
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        ((X, X), (1, 1), True),
        ((X, X), (1, 1.0), False),
        ((X, ANY), (1,), False),
        ([X], (1,), False),
        ([X, 2], [1, 2], True),
        ([], [], True),
        (ImproperList([1], X), [1, 2, 3], True),
        (ImproperList([1], X), ImproperList([1], 2), True),
        (ImproperList([1, 2], X), [1], False),
        (ImproperList([1], X), b"", False),
        (ImproperList([1], X), ImproperList([1, 2], 3), True),
        ({b"k": X}, {b"k": 1, b"n": 2}, True),
        ({b"k": X}, {b"n": 2}, False),
        ({b"k": X}, [1], False),
        ({1: X}, ErlangMap([(1, 0), (1.0, 0)]), True),
        ({1: X}, {1.0: 0}, False),
    ],
)
def test_a_pattern_matches_by_identity(pattern: Any, term: Any, expected: bool) -> None:
    assert matches(pattern, [], term) is expected


@pytest.mark.parametrize(
    "guard",
    [
        True,
        call("const", True),
        call("andalso", True, call(">", X, 0)),
        call("orelse", True, call("hd", X)),
        call("and", True, True),
        call("or", False, True),
        call("xor", True, False),
        call("not", False),
        call("=:=", X, 3),
        call("=/=", X, 3.0),
        call("==", X, 3.0),
        call("/=", X, 4),
        call("<", X, Atom("a")),
        call("=<", X, 3),
        call(">=", X, 3),
        call("=:=", call("abs", -2), 2),
        call("=:=", call("+", X, 1), 4),
        call("=:=", call("+", X), 3),
        call("=:=", call("-", X, 1), 2),
        call("=:=", call("-", X), -3),
        call("=:=", call("*", X, 2), 6),
        call("=:=", call("div", -7, 2), -3),
        call("=:=", call("rem", -7, 2), -1),
        call("=:=", call("band", X, 1), 1),
        call("=:=", call("bor", X, 4), 7),
        call("=:=", call("bxor", X, 1), 2),
        call("=:=", call("bnot", X), -4),
        call("=:=", call("round", 2.5), 3),
        call("=:=", call("round", -2.5), -3),
        call("=:=", call("round", 2.4), 2),
        call("=:=", call("trunc", -2.5), -2),
        call("=:=", call("element", 1, ((X, Y),)), X),
        call("=:=", call("size", ((X, Y),)), 2),
        call("=:=", call("size", b"abc"), 3),
        call("=:=", call("size", BitString(b"a\x80", 1)), 1),
        call("=:=", call("hd", [X]), 3),
        call("=:=", call("tl", [X, 1]), [1]),
        call("=:=", call("tl", ImproperList([1], 2)), 2),
        call("=:=", call("tl", ImproperList([1, 2], 3)), ImproperList([2], 3)),
        call("=:=", call("length", [X]), 1),
        call("=:=", call("map_get", b"k", {b"k": X}), 3),
        call("=:=", call("map_size", {b"k": X}), 1),
        call("is_map_key", b"k", {b"k": X}),
        call("is_integer", X),
        call("is_number", X),
        call("is_atom", True),
        call("is_float", 1.0),
        call("is_list", []),
        call("is_tuple", ((),)),
        call("is_map", {}),
        call("is_binary", b""),
        call("not", call("is_function", X)),
        call("not", call("is_integer", True)),
        call("is_record", call("const", (Atom("r"), 1)), Atom("r")),
        call("is_record", call("const", (Atom("r"), 1)), Atom("r"), 2),
        call("=:=", Atom("$_"), call("const", (3, 4))),
        call("=:=", Atom("$$"), [3, 4]),
    ],
)
def test_a_guard_holds(guard: Any) -> None:
    assert check_guards([guard], {1, 2}) is None
    assert matches((X, Y), [guard], (3, 4))


@pytest.mark.parametrize(
    "guard",
    [
        3,
        call("hd", X),
        call("length", X),
        call("abs", b"a"),
        call("band", 1.0, 1),
        call("div", 1, 0),
        call("element", 3, ((X,),)),
        call("map_get", b"k", {}),
        call("map_size", X),
        call("size", X),
        call("not", 1),
        call("andalso", 1, True),
        call(">", call("*", 1e200, 1e200), 0),
    ],
)
def test_a_guard_that_fails_does_not_hold(guard: Any) -> None:
    assert check_guards([guard], {1}) is None
    assert not matches(X, [guard], 3)


@pytest.mark.parametrize(
    "guard",
    [
        Y,
        [Y],
        {b"k": Y},
        ((Y,),),
        ANY,
        call("node"),
        call("length"),
        call("const"),
        call("+", Y, 1),
        call("andalso"),
        (1, 2),
    ],
)
def test_a_guard_that_does_not_compile_is_told(guard: Any) -> None:
    assert check_guards([guard], {1}) is not None


def test_the_variables_of_a_pattern_are_found_wherever_they_stand() -> None:
    assert variables((X, [Y], {b"k": MatchVariable(3)}, ImproperList([1], MatchVariable(4)))) == {1, 2, 3, 4}

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, BitString, ErlangMap, ImproperList, Pid, Reference
from bridge.khepri.memory.order import compare, name_key, names_key, same
from bridge.khepri.paths import Name

NODE = Atom("n@h")
ASCENDING: list[Any] = [
    -1,
    0,
    0.5,
    1,
    Atom("Z"),
    Atom("a"),
    False,
    True,
    Reference(NODE, 1, (1,)),
    Pid(NODE, 1, 0, 1),
    (),
    (9,),
    (1, 2),
    {},
    {Atom("a"): 2},
    ErlangMap([(1, 0), (1.0, 0)]),
    [],
    ImproperList([1], 2),
    [1],
    [1, 2],
    [2],
    b"",
    BitString(b"\x40", 2),
    b"a",
    b"ab",
]
terms = st.sampled_from(ASCENDING)


def test_terms_are_in_the_order_of_erlang() -> None:
    assert all(compare(lower, higher) < 0 < compare(higher, lower) for lower, higher in pairwise(ASCENDING))


@given(st.lists(terms))
def test_sorting_puts_any_of_them_in_that_order(found: list[Any]) -> None:
    places = [next(i for i, term in enumerate(ASCENDING) if same(term, one)) for one in found]
    ordered = sorted(found, key=cmp_to_key(compare))
    assert all(same(one, ASCENDING[place]) for one, place in zip(ordered, sorted(places), strict=True))


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), ([1], [1.0]), ((1,), (1.0,)), ({b"a": 1}, {b"a": 1.0})]
)
def test_numbers_of_two_types_are_equal_and_not_the_same(left: Any, right: Any) -> None:
    assert compare(left, right) == 0
    assert not same(left, right)


def test_a_key_that_is_a_float_comes_after_any_integer() -> None:
    assert compare({2: 0}, {1.0: 0}) < 0


def test_names_sort_as_terms_do() -> None:
    paths: list[list[Name]] = [[], [Atom("b")], [Atom("b"), b"a"], [b"A"], [b"a"], [b"a", Atom("z")]]
    assert sorted(set(map(tuple, paths)), key=names_key) == list(map(tuple, paths))
    assert name_key(Atom("z")) < name_key(b"a")

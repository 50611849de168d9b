"""Encoding, and a second implementation's opinion of it."""

from __future__ import annotations

import importlib
from collections import UserDict
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf import Atom, decode_term, encode_term, term_identity

# Not an import statement: to the type checker the name is this project's folder of Erlang sources.
_erlang_py: Any = importlib.import_module("erlang")

_shared: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple)),
    max_leaves=15,
)


@given(_shared)
def test_erlang_py_reads_what_is_written(term: Any) -> None:
    assert _erlang_py.binary_to_term(encode_term(term)) == term


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), object(), {"a": {1}}, "\ud800", [None]])
def test_what_is_no_term_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError):
        encode_term(value)


def test_a_list_inside_itself_ends_at_the_depth_limit() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(LimitExceededError, match="max_depth"):
        encode_term(endless)


class _Colour(IntEnum):
    RED = 300


class _Point(NamedTuple):
    x: int
    y: int


class _Bytes(bytes):
    pass


class _Text(str):
    __slots__ = ()


class _Number(float):
    pass


class _Items(list[int]):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (_Colour.RED, 300),
        (_Point(1, 2), (1, 2)),
        (_Bytes(b"x"), b"x"),
        (_Text("x"), b"x"),
        (_Number(1.5), 1.5),
        (_Items([1]), [1]),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (MappingProxyType({1: b"x"}), {1: b"x"}),
        (MappingProxyType({}), {}),
        (UserDict({1: b"x"}), {1: b"x"}),
    ],
)
def test_what_stands_for_a_plain_value_is_encoded_as_it(value: Any, plain: Any) -> None:
    assert encode_term([value, (value,)]) == encode_term([plain, (plain,)])


@pytest.mark.parametrize(
    "number",
    [0, 255, 256, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**2039, 2**2040 - 1, 2**2040, -(2**2040)],
)
def test_integers_at_each_change_of_form_survive(number: int) -> None:
    assert decode_term(encode_term(number)) == number


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_sizes_at_each_change_of_form_survive(size: int) -> None:
    for term in ((1,) * size, [1] * size, bytes(size), dict.fromkeys(range(size), 1)):
        assert decode_term(encode_term(term)) == term


def test_maps_are_identical_whatever_their_order_and_values_of_different_kinds_are_not() -> None:
    assert term_identity({1: b"a", 2: [b"b"]}) == term_identity({2: [b"b"], 1: b"a"})
    kinds: list[Any] = [1, 1.0, True, [1], (1,), b"1", Atom("1"), 0.0, -0.0, {}, {1: 1}]
    assert len({term_identity(kind) for kind in kinds}) == len(kinds)


def test_text_is_a_binary_and_atoms_of_one_text_are_one_object() -> None:
    assert encode_term("é") == encode_term("é".encode())
    assert Atom("stone") is Atom("sto" + "ne")
    assert encode_term(Atom("true")) == encode_term(True)
    with pytest.raises(ConfigurationError, match="255"):
        Atom("x" * 256)

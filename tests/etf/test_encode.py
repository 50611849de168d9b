"""Encoding, and a second implementation's opinion of it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf import Atom, encode_term

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


def test_text_is_a_binary_and_atoms_of_one_text_are_one_object() -> None:
    assert encode_term("é") == encode_term("é".encode())
    assert Atom("stone") is Atom("sto" + "ne")
    assert encode_term(Atom("true")) == encode_term(True)
    with pytest.raises(ConfigurationError, match="255"):
        Atom("x" * 256)

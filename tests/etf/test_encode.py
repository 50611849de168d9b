"""Encoding, and a second implementation's opinion of it."""

from __future__ import annotations

import importlib
import re
from collections import UserDict
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf import Atom, decode_term, encode_term, term_identity
from tests.support.terms import binary_keyed_terms
from tests.support.vectors import otp_vectors

VECTORS = otp_vectors()

# Not an import statement: to the type checker the name is this project's folder of Erlang sources.
_erlang_py: Any = importlib.import_module("erlang")

# To it, 1, 1.0 and true are one key.
_NOT_ITS = re.compile("map_(numbers|zeros|map_keys$)")


def _through_erlang_py(encoded: bytes) -> Any:
    """What is ours once a second implementation has read it and written it."""
    return decode_term(_erlang_py.term_to_binary(_erlang_py.binary_to_term(encoded)))


@given(binary_keyed_terms)
def test_erlang_py_reads_what_is_written_and_its_own_is_read(term: Any) -> None:
    assert term_identity(_through_erlang_py(encode_term(term))) == term_identity(term)


@pytest.mark.parametrize("release", VECTORS)
def test_erlang_py_and_this_take_what_otp_wrote_for_the_same_terms(release: int) -> None:
    tried = 0
    for name, encoded in VECTORS[release].items():
        if name == "local" or _NOT_ITS.match(name):
            continue
        term = decode_term(encoded)
        assert term_identity(_through_erlang_py(encoded)) == term_identity(term), name
        assert term_identity(_through_erlang_py(encode_term(term))) == term_identity(term), name
        tried += 1
    assert tried > 150


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

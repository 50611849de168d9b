"""Maps that Python's ``dict`` cannot hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf import Atom, ErlangMap, ImproperList, decode_term, encode_term, term_identity

_keys: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.integers(-3, 3),
        st.sampled_from([0.0, 1.0, 2.0]),
        st.booleans(),
        st.sampled_from(["a", "b"]).map(Atom),
        st.binary(max_size=2),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.binary(max_size=2), inner),
    ),
    max_leaves=5,
)


def _differ(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return list({encode_term(key): (key, value) for key, value in pairs}.values())


@given(st.lists(st.tuples(_keys, st.integers())).map(_differ))
def test_every_key_finds_its_own_value_and_survives_the_wire(pairs: list[tuple[Any, Any]]) -> None:
    term = ErlangMap(pairs)
    assert len(term) == len(pairs)
    assert [term[key] for key, _ in pairs] == [value for _, value in pairs]
    again = decode_term(encode_term(term))
    assert term == again
    assert all(again[key] == value for key, value in pairs)


def test_the_decoder_gives_a_dict_wherever_that_loses_nothing() -> None:
    assert type(decode_term(encode_term(ErlangMap([(1, b"a"), ((Atom("k"), 2), b"b")])))) is dict
    assert type(decode_term(encode_term(ErlangMap([(1, b"a"), (1.0, b"b")])))) is ErlangMap
    assert type(decode_term(encode_term(ErlangMap([([], b"a")])))) is ErlangMap


def test_a_missing_key_and_what_is_no_term_are_key_errors() -> None:
    term = ErlangMap({1: b"a"})
    assert 1.0 not in term
    assert True not in term
    assert None not in term
    with pytest.raises(KeyError) as caught:
        term[object]
    assert caught.value.args == (object,)


def test_order_of_keys_inside_a_key_does_not_matter() -> None:
    assert ErlangMap([({1: b"a", 2: b"b"}, 3)])[{2: b"b", 1: b"a"}] == 3


def test_pairs_come_in_the_order_of_the_wire_without_a_look_up() -> None:
    pairs = [([n], n * 2) for n in range(20)]
    term = decode_term(encode_term(ErlangMap(pairs)))
    assert list(term.items()) == pairs
    assert (list(term), list(term.values())) == ([[n] for n in range(20)], [n * 2 for n in range(20)])
    assert ([3], 6) in term.items()
    assert ([3], 7) not in term.items()
    assert 38 in term.values()
    assert len(term.items()) == 20


@pytest.mark.slow
@pytest.mark.parametrize("others", [b"", b"a\x02a\x03"])
def test_maps_that_are_keys_of_maps_that_are_keys_take_linear_time(others: bytes) -> None:
    # Comparing by an encoding in the order of keys would take 2 ** 20,000 steps.
    levels = 20_000
    count = 2 if others else 1
    raw = b"\x83" + (b"t\0\0\0" + bytes((count,))) * levels + b"t\0\0\0\0" + (b"a\x01" + others) * levels
    term = decode_term(raw)
    assert encode_term(term) == raw
    assert term_identity(term) == term_identity(decode_term(raw))
    assert term_identity(term) != term_identity(next(iter(term)))


def test_identity_tells_maps_apart_by_keys_values_and_which_belongs_to_which() -> None:
    maps: list[Any] = [
        {},
        {1: {}},
        {1: {1: 1}},
        {1: 2, 3: 4},
        {1: 4, 3: 2},
        {1: 1, 2: 2},
        {1: 1.0, 2: 2},
        ErlangMap([({1: 1}, 1)]),
        ErlangMap([({1: 1.0}, 1)]),
        ErlangMap([([{}], 1)]),
        (ImproperList([{}], 1),),
        (ImproperList([1], {}),),
    ]
    assert len({term_identity(term) for term in maps}) == len(maps)
    assert term_identity(maps[3]) == term_identity(ErlangMap([(3, 4), (1, 2)]))
    assert ErlangMap([(term, 1) for term in maps])[{1: 4, 3: 2}] == 1


def test_a_map_in_itself_has_no_identity() -> None:
    endless: dict[int, Any] = {}
    endless[1] = endless
    with pytest.raises(LimitExceededError, match="max_depth"):
        term_identity(endless)


def test_it_equals_a_dict_of_the_same_keys_and_nothing_else() -> None:
    term = ErlangMap([(1, b"a"), (b"k", [])])
    assert term == {1: b"a", b"k": []}
    assert term != {1.0: b"a", b"k": []}
    assert term != {1: b"b", b"k": []}
    assert term != [(1, b"a")]


def test_a_key_twice_and_a_key_that_is_no_term_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        ErlangMap([(1, b"a"), (1, b"b")])
    with pytest.raises(ConfigurationError, match="no term"):
        ErlangMap([(None, b"a")])


def test_it_is_no_key_of_a_dict_and_prints_its_pairs() -> None:
    with pytest.raises(TypeError):
        hash(ErlangMap())
    assert repr(ErlangMap([(1, [])])) == "ErlangMap([(1, [])])"

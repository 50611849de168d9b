"""Decoding of what nobody vouches for."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import Atom, BitString, ErlangMap, ImproperList, Pid, TermLimits, decode_term, encode_term

_atoms = st.text(max_size=20).filter(lambda text: text not in ("true", "false")).map(Atom)
_leaves = st.one_of(
    _atoms,
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=40),
    st.builds(Pid, _atoms, *[st.integers(0, 2**32 - 1)] * 3),
    st.builds(BitString, st.binary(min_size=1, max_size=4), st.integers(1, 7)),
)
terms: st.SearchStrategy[Any] = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.one_of(_atoms, st.binary(max_size=5)), inner, max_size=5),
        st.builds(ImproperList, st.lists(inner, min_size=1, max_size=3), _atoms),
    ),
    max_leaves=25,
)


@given(terms)
def test_what_is_encoded_decodes_to_an_equal_term(term: Any) -> None:
    assert decode_term(encode_term(term)) == term


@given(terms, st.data())
def test_altered_bytes_raise_only_what_is_promised(term: Any, data: st.DataObject) -> None:
    raw = bytearray(encode_term(term))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for candidate in (bytes(raw), bytes(raw[:cut])):
        try:
            decoded = decode_term(candidate)
        except (DecodeError, LimitExceededError):
            continue
        assert decode_term(encode_term(decoded)) == decoded


def test_one_and_one_point_zero_and_true_are_three_keys() -> None:
    term = decode_term(
        encode_term(ErlangMap([(1, b"int"), (1.0, b"float"), (True, b"bool"), ([1], b"list")]))
    )
    assert [term[key] for key in (1, 1.0, True, [1])] == [b"int", b"float", b"bool", b"list"]


def test_a_nesting_of_100_000_levels_decodes() -> None:
    raw = b"\x83" + b"l\0\0\0\x01" * 100_000 + b"j" + b"j" * 100_000
    assert encode_term(decode_term(raw)) == raw


@pytest.mark.parametrize(
    ("limits", "raw"),
    [
        (TermLimits(max_depth=2), b"\x83" + b"l\0\0\0\x01" * 3 + b"jjjj"),
        (TermLimits(max_elements=3), b"\x83h\x04jjjj"),
        (TermLimits(max_elements=3), b"\x83k\0\x04abcd"),
        (TermLimits(max_bytes=3), b"\x83w\x02ok"),
        (TermLimits(max_atoms=1), b"\x83h\x02w\x0anever_seenw\x0bnever_seen2"),
        (TermLimits(max_inflated_bytes=9), b"\x83P\0\0\0\x0a" + zlib.compress(b"m\0\0\0\x05abcde")),
    ],
)
def test_each_limit_is_named_when_it_is_passed(limits: TermLimits, raw: bytes) -> None:
    name = next(
        field
        for field in TermLimits.__dataclass_fields__
        if getattr(limits, field) != getattr(TermLimits(), field)
    )
    with pytest.raises(LimitExceededError, match=name):
        decode_term(raw, limits=limits)


def test_a_zip_bomb_is_held_to_the_size_it_claims() -> None:
    bomb = b"\x83P\0\0\0\x0a" + zlib.compress(bytes(10_000_000))
    with pytest.raises(DecodeError, match="10 bytes it claims"):
        decode_term(bomb)


def test_duplicate_keys_and_trailing_bytes_are_refused() -> None:
    with pytest.raises(DecodeError, match="twice"):
        decode_term(b"\x83t\0\0\0\x02a\x01ja\x01j")
    with pytest.raises(DecodeError, match="follow"):
        decode_term(b"\x83jj")


def test_a_key_nested_too_deep_to_hash_is_kept_all_the_same() -> None:
    raw = b"\x83t\0\0\0\x01" + b"h\x01" * 100_000 + b"a\x01" + b"j"
    term = decode_term(raw)
    assert isinstance(term, ErlangMap)
    assert encode_term(term) == raw

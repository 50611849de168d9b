"""A term decoded in steps is the term decoded at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError, PeerLimitError
from bridge.etf import (
    Atom,
    Decoding,
    ErlangMap,
    ImproperList,
    TermLimits,
    decode_bare_untrusted,
    encode_bare,
)
from tests.support.terms import terms

_SIZES = st.integers(1, 12)


def _steps(decoding: Decoding) -> int:
    """How many steps the term took."""
    count = 1
    while not decoding.step_untrusted():
        count += 1
    return count


def _outcome(decode: Any) -> Any:
    """What comes of the bytes: a term as it would be encoded, or the class of the error."""
    try:
        return encode_bare(decode())
    except (DecodeError, PeerLimitError) as error:
        return type(error)


def _in_steps(raw: bytes, limits: TermLimits, size: int) -> Any:
    decoding = Decoding(raw, limits, size=size)
    _steps(decoding)
    return decoding.value


def _at_once(raw: bytes, limits: TermLimits) -> Any:
    value, end = decode_bare_untrusted(raw, 0, limits)
    if end != len(raw):
        raise DecodeError("bytes follow")
    return value


@given(terms, _SIZES, st.integers(1, 60), st.integers(1, 12))
def test_terms_and_refusals_are_those_of_decoding_at_once(
    term: Any, size: int, elements: int, depth: int
) -> None:
    raw = encode_bare(term)
    for limits in (TermLimits(), TermLimits(max_elements=elements), TermLimits(max_depth=depth)):
        expected = _outcome(lambda limits=limits: _at_once(raw, limits))
        assert _outcome(lambda limits=limits: _in_steps(raw, limits, size)) == expected


@given(terms, _SIZES, st.data())
def test_damage_is_found_in_steps_too(term: Any, size: int, data: st.DataObject) -> None:
    raw = bytearray(encode_bare(term))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(raw[: data.draw(st.integers(1, len(raw)))])
    limits = TermLimits(max_elements=1_000)
    assert _outcome(lambda: _in_steps(damaged, limits, size)) == _outcome(lambda: _at_once(damaged, limits))


@pytest.mark.parametrize(
    "term",
    [
        list(range(300, 5_300)),
        tuple(range(300, 5_300)),
        [{Atom("a"): n} for n in range(2_500)],
        dict.fromkeys(range(2500), b"x"),
        ErlangMap(([b"path", n], {Atom("data"): n}) for n in range(1_700)),
        ImproperList(list(range(300, 5_300)), b"tail"),
        [[n] * 20 for n in range(250, 500)],
    ],
    ids=["list", "tuple", "maps", "map", "map of paths", "improper list", "lists"],
)
def test_no_step_takes_more_than_a_few_times_its_elements(term: Any) -> None:
    decoding = Decoding(encode_bare((Atom("ok"), term)), size=100)
    # 5,000 elements or so in each term; a step may end within those of a container around it.
    assert _steps(decoding) >= 5_000 // 200
    assert decoding.value == (Atom("ok"), term)


def test_elements_are_counted_over_all_steps() -> None:
    raw = encode_bare([[n] for n in range(1_000)])
    assert _in_steps(raw, TermLimits(max_elements=2_000), 10) == [[n] for n in range(1_000)]
    with pytest.raises(PeerLimitError, match="max_elements"):
        _in_steps(raw, TermLimits(max_elements=1_999), 10)


def test_a_list_that_goes_on_in_a_list_and_a_string_are_taken_in_steps() -> None:
    chain = b"l\0\0\0\2a\1a\2" * 40 + b"j"
    assert _in_steps(chain, TermLimits(), 7) == [1, 2] * 40
    with pytest.raises(PeerLimitError):
        _in_steps(chain, TermLimits(max_elements=79), 7)
    text = b"l\0\0\0\2" + b"k\0\x20" + bytes(32) + b"k\0\x20" + bytes(32) + b"j"
    assert _in_steps(text, TermLimits(max_elements=66), 7) == [[0] * 32, [0] * 32]
    with pytest.raises(PeerLimitError):
        _in_steps(text, TermLimits(max_elements=65), 7)


def test_a_key_that_occurs_twice_in_a_large_map_is_found() -> None:
    keys = [*range(2_000), 7]
    raw = b"t" + len(keys).to_bytes(4, "big") + b"".join(encode_bare(key) + b"j" for key in keys)
    with pytest.raises(DecodeError, match="twice"):
        _in_steps(raw, TermLimits(), 100)


def test_what_follows_the_term_and_too_many_bytes_are_refused() -> None:
    with pytest.raises(DecodeError, match="follow"):
        _in_steps(b"jj", TermLimits(), 1)
    with pytest.raises(PeerLimitError, match="max_bytes"):
        _in_steps(b"m\0\0\0\1x", TermLimits(max_bytes=5), 1)

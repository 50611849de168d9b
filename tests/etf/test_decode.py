"""Decoding of what nobody vouches for."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import (
    Atom,
    ImproperList,
    Pid,
    Port,
    Reference,
    TermLimits,
    decode_bare_untrusted,
    decode_term,
    encode_bare,
    encode_term,
    term_identity,
)
from tests.support.terms import every_term, maps

_NAMES: list[Atom | bool] = [Atom("n@h"), Atom("module"), True, False, Atom("naïve"), Atom("")]


@given(every_term)
def test_what_is_encoded_decodes_to_an_equal_term(term: Any) -> None:
    raw = encode_term(term)
    again = decode_term(raw)
    assert again == term
    # Python's == takes 1, 1.0 and True for one another; this does not.
    assert term_identity(again) == term_identity(term)
    assert encode_term(again) == raw


@given(every_term)
def test_a_compressed_term_is_the_same_one(term: Any) -> None:
    bare = encode_bare(term)
    compressed = b"\x83P" + len(bare).to_bytes(4, "big") + zlib.compress(bare)
    assert term_identity(decode_term(compressed)) == term_identity(term)


def _numbered(term: Any, table: list[Atom | bool]) -> bytes:
    """Like ``encode_bare``, but with the atoms of the table as numbers, wherever they are."""
    raw = encode_bare(term)
    for index, atom in enumerate(table):
        raw = raw.replace(encode_bare(atom), bytes((82, index)))
    return raw


@given(
    st.recursive(
        st.sampled_from(_NAMES),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            maps(inner, inner),
            st.builds(
                Pid, st.sampled_from([Atom("n@h"), Atom("module")]), st.just(0), st.just(0), st.just(0)
            ),
        ),
    )
)
def test_atoms_as_numbers_of_a_table_give_the_same_term(term: Any) -> None:
    numbered = _numbered(term, list(_NAMES))
    decoded, end = decode_bare_untrusted(numbered, 0, atoms=_NAMES)
    assert end == len(numbered)
    assert term_identity(decoded) == term_identity(term)


def _measure(term: Any) -> tuple[int, int]:
    """Levels and elements of a term, as the limits count them."""
    levels = elements = 0
    pending = [(term, 0)]
    while pending:
        inner, level = pending.pop()
        children: list[Any] = []
        if isinstance(inner, ImproperList):
            children = [*inner.elements, inner.tail]
            elements -= 1  # what is after the bar is none of the elements that are counted
        elif isinstance(inner, (list, tuple)):
            children = list(inner)
        elif isinstance(inner, Mapping):
            children = [part for pair in inner.items() for part in pair]
        elements += len(children)
        if children:
            levels = max(levels, level + 1)
            pending += [(child, level + 1) for child in children]
    return levels, elements


@given(every_term, st.integers(1, 5), st.integers(1, 12), st.integers(1, 200))
def test_a_limit_is_passed_exactly_when_it_is_said_to_be(
    term: Any, max_depth: int, max_elements: int, max_bytes: int
) -> None:
    raw = encode_term(term)
    levels, elements = _measure(term)
    limits = TermLimits(max_depth=max_depth, max_elements=max_elements, max_bytes=max_bytes)
    over = {
        name
        for name, used, most in (
            ("max_depth", levels, max_depth),
            ("max_elements", elements, max_elements),
            ("max_bytes", len(raw), max_bytes),
        )
        if used > most
    }
    if not over:
        decode_term(raw, limits=limits)
        return
    with pytest.raises(LimitExceededError) as caught:
        decode_term(raw, limits=limits)
    assert caught.value.limit in over


@given(every_term, st.data())
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


def test_what_follows_the_term_is_refused() -> None:
    with pytest.raises(DecodeError, match="follow"):
        decode_term(b"\x83jj")


_ATOM = b"w\x03n@h"


@pytest.mark.parametrize(
    ("raw", "term"),
    [
        (b"d\x00\x02ok", Atom("ok")),  # ATOM_EXT
        (b"d\x00\x02\xe9t", Atom("ét")),  # in Latin-1
        (b"s\x02\xe9t", Atom("ét")),  # SMALL_ATOM_EXT
        (b"v\x00\x04true", True),  # ATOM_UTF8_EXT
        (b"g" + _ATOM + b"\0\0\0\1\0\0\0\2\3", Pid(Atom("n@h"), 1, 2, 3)),  # PID_EXT
        (b"e" + _ATOM + b"\0\0\0\1\3", Reference(Atom("n@h"), 3, (1,))),  # REFERENCE_EXT
        (b"r\0\2" + _ATOM + b"\3\0\0\0\1\0\0\0\2", Reference(Atom("n@h"), 3, (1, 2))),  # NEW_REFERENCE_EXT
        (b"f" + _ATOM + b"\0\0\0\1\3", Port(Atom("n@h"), 1, 3)),  # PORT_EXT
        (b"Y" + _ATOM + b"\0\0\0\1\0\0\0\3", Port(Atom("n@h"), 1, 3)),  # NEW_PORT_EXT
        (b"c" + b"1.50000000000000000000e+00".ljust(31, b"\0"), 1.5),  # FLOAT_EXT
        (b"k\0\2ab", [97, 98]),  # STRING_EXT is a list, whatever it looks like
        (b"o\0\0\0\1\1\7", -7),  # LARGE_BIG_EXT
        (b"i\0\0\0\1a\1", (1,)),  # LARGE_TUPLE_EXT
        (b"M\0\0\0\1\x08a", b"a"),  # BIT_BINARY_EXT whose last byte is full
        (b"l\0\0\0\1a\1l\0\0\0\1a\2j", [1, 2]),  # a list whose tail is one
        (b"l\0\0\0\1a\1k\0\1\2", [1, 2]),
        (b"l\0\0\0\0a\7", 7),  # nothing before the bar
        (b"P\0\0\0\2" + zlib.compress(b"a\1"), 1),
    ],
)
def test_every_form_that_some_otp_writes_is_read(raw: bytes, term: Any) -> None:
    decoded = decode_term(b"\x83" + raw)
    assert decoded == term
    assert type(decoded) is type(term)
    assert decode_term(memoryview(b"\x83" + raw)) == term  # type: ignore[arg-type]  # taken all the same


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "truncated"),
        (b"F\x7f\xf0\0\0\0\0\0\0", "not finite"),
        (b"F\x7f\xf8\0\0\0\0\0\0", "not finite"),
        (b"c" + b"inf".ljust(31, b"\0"), "not finite"),
        (b"c" + b"one".ljust(31, b"\0"), "no number"),
        (b"n\1\2\7", "sign"),
        (b"r\0\0" + _ATOM, "reference of 0 words"),
        (b"l\0\0\0\1jl\0\0\0\1jj" + b"j", "follow"),
        (b"w\2\xff\xff", "UTF-8"),
        (b"v\x01\x00" + b"x" * 256, "256 characters"),
        (b"Z\0\0" + _ATOM, "reference of 0 words"),
        (b"Z\0\6" + _ATOM, "reference of 6 words"),
        (b"X" + b"a\1" + bytes(12), "where an atom belongs"),
        (b"q" + _ATOM + _ATOM + b"b\0\0\0\1", "arity"),
        (b"p\0\0\0\x20" + bytes(28), "too short"),
        (b"p\0\0\1\0" + bytes(28), "truncated"),
        (b"M\0\0\0\1\x09a", "9 bits"),
        (b"M\0\0\0\1\x00a", "0 bits"),
        (b"M\0\0\0\0\x01", "1 bits"),
        (b"M\0\0\0\2\x01a", "truncated"),
        (b"c1.5", "truncated"),
        (b"k\0\5a", "truncated"),
        (b"l\0\0\0\1jl\0\0\0\7j", "truncated"),
        (b"P\0\0\0\2nothing that inflates", "does not inflate"),
        (b"P\0\0\0\3" + zlib.compress(b"a\1"), "3 bytes it claims"),
        (b"P\0\0\0\2" + zlib.compress(b"a\1") + b"x", "2 bytes it claims"),
        (b"P\0\0\0\2" + zlib.compress(b"jj"), "inside the compressed"),
        (b"\x4b", "tag 75"),
        (b"R\0", "tag 82"),
    ],
)
def test_what_is_malformed_is_refused_for_its_reason(raw: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        decode_term(b"\x83" + raw)


def test_what_does_not_start_with_131_is_refused() -> None:
    with pytest.raises(DecodeError, match="131, not 130"):
        decode_term(b"\x82j")
    with pytest.raises(DecodeError, match="truncated"):
        decode_term(b"")


@given(every_term)
def test_every_shortened_term_is_truncated(term: Any) -> None:
    raw = encode_term(term)
    for end in range(len(raw)):
        with pytest.raises(DecodeError):
            decode_term(raw[:end])


def test_a_bare_term_is_one_without_131_and_tells_where_it_ends() -> None:
    raw = b"ctl" + encode_bare((Atom("ok"), [1])) + encode_bare(b"next")
    term, end = decode_bare_untrusted(raw, 3)
    assert term == (Atom("ok"), [1])
    assert decode_bare_untrusted(raw, end) == (b"next", len(raw))
    assert b"\x83" + encode_bare(term) == encode_term(term)
    assert decode_bare_untrusted(memoryview(raw), 3) == (term, end)  # type: ignore[arg-type]  # taken all the same


def test_a_bare_term_holds_to_the_same_promises() -> None:
    for raw in (b"", b"h\2j", b"w\2\xff\xff", b"R", b"XR", b"\x83j", b"P\0\0\0\1" + zlib.compress(b"j")):
        with pytest.raises(DecodeError):
            decode_bare_untrusted(raw, 0, atoms=[Atom("a")])
    with pytest.raises(LimitExceededError, match="max_bytes"):
        decode_bare_untrusted(b"m\0\0\0\1x", 0, TermLimits(max_bytes=5))

"""Whatever a peer sends can be told to people: in few characters, and in a time that it cannot choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.etf import Atom, BitString, Closure, ErlangMap, ImproperList, Pid, Reference, shorten

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.integers() | st.binary(max_size=9), inner)
    ),
    max_leaves=30,
)


@given(_PLAIN, st.integers(0, 600))
def test_what_fits_reads_as_repr_writes_it(term: Any, characters: int) -> None:
    text, full = shorten(term, characters), repr(term)
    if len(full) <= characters:
        assert text == full
    else:
        assert (text[:-1], text[-1]) == (full[:characters], "…")


def test_every_kind_of_term_has_a_text() -> None:
    pid = Pid(Atom("a@h"), 1, 0, 1)
    for term in (Atom("a"), pid, Reference(Atom("a@h"), 1, (1, 2, 3))):
        assert shorten(term) == repr(term)
    assert shorten(ImproperList([1, 2], b"t")) == "[1, 2 | b't']"
    assert shorten(BitString(b"\xf0", 4)) == "BitString(b'\\xf0', 4)"
    assert shorten(ErlangMap([(1, 2), (1.0, [3])])) == "{1: 2, 1.0: [3]}"
    assert shorten(Closure(b"\x02rest")) == "<a fun of arity 2>"
    assert shorten(Closure(b"")) == "<a fun>"


class _Counted(list[int]):
    """A list that counts who reads it."""

    read = 0

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            self.read += 1
            yield item


def test_no_more_of_a_large_term_is_read_than_is_told() -> None:
    many = _Counted(range(100_000))
    assert len(shorten(many)) == 501
    assert many.read < 200
    assert len(shorten(bytes(1_000_000))) == 501
    assert shorten(BitString(bytes(1_000_000) + b"\x80", 1)).startswith("BitString(b'")


def test_neither_a_long_integer_nor_a_deep_term_nor_a_bad_repr_raises() -> None:
    assert shorten([10**5_000]) == "[<an integer of 16610 bits>]"
    assert shorten(-(10**600)) == repr(-(10**600))[:500] + "…"
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert shorten(deep) == "(" * 32 + "…" + ",)" * 32
    while deep:  # taken apart by hand: freeing it in one go would go as deep
        (deep,) = deep

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert shorten((Broken(),)) == "(<Broken>,)"
    with pytest.raises(ValueError, match="no"):
        repr(Broken())

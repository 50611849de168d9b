"""The atom cache as a reader sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dist.headers import CACHE_SIZE, AtomCache, size_without_new_atoms
from bridge.errors import DecodeError
from bridge.etf import Atom
from tests.support.headers import references

_TEXTS = st.one_of(st.sampled_from(["true", "false", "", "rex", "名" * 60]), st.text(max_size=20)).filter(
    lambda text: text.isprintable()
)


def _value(text: str) -> Atom | bool:
    return {"true": True, "false": False}.get(text, Atom(text))


@given(st.lists(st.lists(st.tuples(st.integers(0, CACHE_SIZE - 1), _TEXTS), max_size=20), max_size=8))
def test_a_reader_knows_what_the_writer_put_where(packets: list[list[tuple[int, str]]]) -> None:
    cache = AtomCache()
    places: dict[int, str] = {}
    for packet in packets:
        entries = []
        for place, text in packet:
            entries.append((place, None if places.get(place) == text else text.encode()))
            places[place] = text
        data = b"??" + references(entries) + b"rest"
        atoms, end = cache.read_untrusted(data, 2)
        assert list(atoms) == [_value(text) for _, text in packet]
        assert data[end:] == b"rest"
        if not any(text is not None for _, text in entries):
            assert end == 2 + size_without_new_atoms(len(entries))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 254, 255])
def test_a_header_without_new_atoms_has_a_size_that_its_number_of_references_tells(count: int) -> None:
    cache = AtomCache()
    cache.read_untrusted(references([(2047, b"a")]), 0)
    header = references([(2047, None)] * count)
    atoms, end = cache.read_untrusted(header, 0)
    assert len(atoms) == count
    assert end == len(header) == size_without_new_atoms(count)


def test_all_places_of_all_segments_hold_an_atom_each() -> None:
    cache = AtomCache()
    for start in range(0, CACHE_SIZE, 128):
        cache.read_untrusted(references([(place, b"p%d" % place) for place in range(start, start + 128)]), 0)
    assert cache.replaced == 0
    for place in range(CACHE_SIZE):
        assert cache.read_untrusted(references([(place, None)]), 0)[0] == (Atom(f"p{place}"),)


def test_long_atoms_have_lengths_of_two_bytes() -> None:
    text = "名" * 255
    atoms, _ = AtomCache().read_untrusted(references([(5, text.encode()), (6, b"s")], long_atoms=True), 0)
    assert atoms == (Atom(text), Atom("s"))


def test_another_atom_in_a_place_is_counted_and_the_same_one_is_not() -> None:
    cache = AtomCache()
    for text, replaced in ((b"one", 0), (b"one", 0), (b"two", 1), (b"one", 2)):
        cache.read_untrusted(references([(7, text)]), 0)
        assert cache.replaced == replaced
    cache.read_untrusted(references([(8, b"one")]), 0)
    assert cache.replaced == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (references([(1, b"atom")])[:-1], "truncated"),
        (references([(1, b"atom")])[:3], "truncated"),
        (references([(1, b"atom")], long_atoms=True)[:4], "truncated"),
        (b"\x02", "truncated"),
        (references([(300, None)]), "place 300, which is empty"),
        (references([(1, b"\xff")]), "UTF-8"),
        (references([(1, b"a" * 256)], long_atoms=True), "256 characters"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        AtomCache().read_untrusted(data, 0)


@given(st.binary(max_size=40))
def test_any_other_bytes_raise_only_what_is_promised(data: bytes) -> None:
    try:
        AtomCache().read_untrusted(data, 0)
    except DecodeError:
        return

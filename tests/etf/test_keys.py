"""Maps that a ``dict`` holds, and those that it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.errors import DecodeError
from bridge.etf import Atom, ErlangMap, decode_term, encode_bare, encode_term


def test_one_and_one_point_zero_and_true_are_three_keys() -> None:
    term = decode_term(
        encode_term(ErlangMap([(1, b"int"), (1.0, b"float"), (True, b"bool"), ([1], b"list")]))
    )
    assert [term[key] for key in (1, 1.0, True, [1])] == [b"int", b"float", b"bool", b"list"]


@pytest.mark.parametrize(
    "key",
    [
        b"a\x01",
        b"w\x02ok",
        b"h\x01a\x01",
        b"l\0\0\0\x01a\x01j",
        b"t\0\0\0\0",
        b"l\0\0\0\x01jj",
        b"F" + bytes(8),
    ],
)
@pytest.mark.parametrize("others", [0, 1, 2, 600])
def test_a_key_twice_is_refused_whatever_it_is_and_however_many_others_there_are(
    key: bytes, others: int
) -> None:
    pairs = [b"b" + n.to_bytes(4, "big") + b"j" for n in range(1_000, 1_000 + others)]
    for raw in ((key + b"j") * 2 + b"".join(pairs), key + b"j" + b"".join(pairs) + key + b"j"):
        with pytest.raises(DecodeError, match="twice"):
            decode_term(b"\x83t" + (others + 2).to_bytes(4, "big") + raw)
    assert (
        len(decode_term(b"\x83t" + (others + 1).to_bytes(4, "big") + key + b"j" + b"".join(pairs)))
        == others + 1
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 511, 512, 513])
def test_maps_of_each_size_decode_to_a_dict(count: int) -> None:
    for pairs in ({n: Atom("x") for n in range(count)}, {(Atom("k"), n): [n] for n in range(count)}):
        term = decode_term(encode_term(pairs))
        assert type(term) is dict
        assert term == pairs


def test_numbers_side_by_side_are_kept_among_many_others_too() -> None:
    pairs: list[tuple[Any, Any]] = [(n, n) for n in range(600)]
    pairs += [(1.0, b"float"), (True, b"bool"), (-0.0, b"minus")]
    term = decode_term(encode_term(ErlangMap(pairs)))
    assert [term[key] for key in (1, 1.0, True, 0, -0.0)] == [1, b"float", b"bool", 0, b"minus"]


def test_a_key_nested_too_deep_to_hash_is_kept_all_the_same() -> None:
    raw = b"\x83t\0\0\0\x01" + b"h\x01" * 100_000 + b"a\x01" + b"j"
    term = decode_term(raw)
    assert isinstance(term, ErlangMap)
    assert encode_term(term) == raw


def test_tuples_as_deep_as_that_in_lists_and_beside_other_keys_are_kept_too() -> None:
    deep = b"h\x01" * 1_000 + b"a\x01"
    raw = b"\x83t\0\0\0\x02" + b"l\0\0\0\x01" + deep + b"j" + b"j" + b"l\0\0\0\x01a\x01j" + b"j"
    assert encode_term(decode_term(raw)) == raw
    # A deep value makes no key deep.
    assert type(decode_term(b"\x83h\x02" + deep + b"t\0\0\0\x01h\x01a\x01j")[1]) is dict


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key,), lambda key: [key]])
def test_keys_made_to_have_one_hash_take_linear_time(wrap: Callable[[int], Any]) -> None:
    # Python's hash of an integer is its remainder by this prime; a dict of such keys takes minutes.
    pairs = [(wrap(n * (2**61 - 1)), n) for n in range(100_000)]
    raw = encode_term(ErlangMap.of_distinct([key for key, _ in pairs], [value for _, value in pairs]))
    term = decode_term(raw)
    assert list(term.items()) == pairs
    with pytest.raises(DecodeError, match="twice"):
        decode_term(b"\x83t\0\1\x86\xa1" + raw[6:] + encode_bare(pairs[7][0]) + b"j")

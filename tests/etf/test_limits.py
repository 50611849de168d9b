"""Each limit holds at exactly its number: one below, at it, one above."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from bridge.errors import ConfigurationError, DecodeError, LimitExceededError
from bridge.etf import TermLimits, decode_term, encode_term


def _nested(levels: int) -> bytes:
    return b"\x83" + b"h\x01" * levels + b"j"


def _elements(count: int) -> bytes:
    return encode_term(((),) * count)


def _string(count: int) -> bytes:
    return b"\x83k" + count.to_bytes(2, "big") + bytes(count)


def _list(count: int) -> bytes:
    return encode_term([()] * count)


def _pairs(count: int) -> bytes:
    # A pair counts twice, so only even numbers can be met exactly; one more element makes it odd.
    return encode_term(({n: n for n in range((count - 1) // 2)},) + ((),) * ((count - 1) % 2))


def _continued(count: int) -> bytes:
    """A list whose tail is a list: the tail's elements count like the others."""
    return b"\x83l\0\0\0\x01jl" + (count - 1).to_bytes(4, "big") + b"j" * (count - 1) + b"j"


def _binary(size: int) -> bytes:
    return b"\x83m" + (size - 6).to_bytes(4, "big") + bytes(size - 6)


def _compressed(size: int) -> bytes:
    return b"\x83P" + size.to_bytes(4, "big") + zlib.compress(_binary(size + 1)[1:])


_runs = iter(range(10**9))


def _atoms(count: int) -> bytes:
    """Atoms that no earlier term held, since known ones cost nothing."""
    run = next(_runs)
    names = [f"limit_{run}_{n}".encode() for n in range(count)]
    return b"\x83h" + bytes((count,)) + b"".join(bytes((119, len(name))) + name for name in names)


@pytest.mark.parametrize(
    ("name", "maximum", "make"),
    [
        ("max_depth", 5, _nested),
        ("max_elements", 7, _elements),
        ("max_elements", 7, _string),
        ("max_elements", 7, _list),
        ("max_elements", 7, _pairs),
        ("max_elements", 7, _continued),
        ("max_bytes", 40, _binary),
        ("max_inflated_bytes", 40, _compressed),
        ("max_atoms", 9, _atoms),
    ],
)
def test_a_limit_lets_its_number_pass_and_not_one_more(
    name: str, maximum: int, make: Callable[[int], bytes]
) -> None:
    limits = TermLimits(**{name: maximum})
    decode_term(make(maximum - 1), limits=limits)
    decode_term(make(maximum), limits=limits)
    with pytest.raises(LimitExceededError) as caught:
        decode_term(make(maximum + 1), limits=limits)
    assert (caught.value.limit, caught.value.maximum) == (name, maximum)


def test_the_depth_limit_holds_for_encoding_too() -> None:
    term: object = ()
    for _ in range(5):
        term = (term,)
    assert encode_term(term, limits=TermLimits(max_depth=5)) == b"\x83" + b"h\x01" * 5 + b"h\0"
    with pytest.raises(LimitExceededError, match="max_depth=4 levels"):
        encode_term(term, limits=TermLimits(max_depth=4))


def test_a_count_that_the_bytes_cannot_hold_is_refused_before_anything_is_made_for_it() -> None:
    for tag in (b"i", b"l", b"t"):
        with pytest.raises(DecodeError, match="truncated"):
            decode_term(b"\x83" + tag + b"\xff\xff\xff\xff")


@pytest.mark.parametrize("name", list(TermLimits.__dataclass_fields__))
def test_a_limit_below_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        TermLimits(**{name: 0})

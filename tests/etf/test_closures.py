"""Funs whose atoms are numbers of a packet's table."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.errors import DecodeError, LimitExceededError
from bridge.etf import (
    Atom,
    Closure,
    ImproperList,
    Pid,
    Port,
    Reference,
    TermLimits,
    decode_bare_untrusted,
    decode_term,
    encode_bare,
    encode_term,
)

_TABLE: list[Atom | bool] = [Atom("n@h"), Atom("module"), True]


def _fun(*terms: bytes, free: int | None = None) -> bytes:
    """A closure of module, index, uniq, pid and free variables, each already encoded."""
    content = b"\x02" + bytes(16) + bytes(4) + (len(terms) - 4 if free is None else free).to_bytes(4, "big")
    content += b"".join(terms)
    return b"p" + (len(content) + 4).to_bytes(4, "big") + content


def _with(*free: bytes, node: bytes = b"w\x03n@h", module: bytes = b"w\x06module") -> bytes:
    return _fun(module, b"a\x00", b"a\x00", b"X" + node + bytes(12), *free)


def _numbered(*free: bytes) -> bytes:
    return _with(*free, node=b"R\x00", module=b"R\x01")


def _decode(raw: bytes, atoms: Sequence[Atom | bool] = _TABLE) -> bytes:
    closure, end = decode_bare_untrusted(raw, 0, atoms=atoms)
    assert isinstance(closure, Closure)
    assert end == len(raw)
    return encode_bare(closure)


def test_numbered_atoms_are_written_out_wherever_they_are() -> None:
    node = Atom("n@h")
    free = [
        Port(node, 1, 2),
        Reference(node, 3, (4, 5, 6)),
        {b"key": [1, 2.5, 1 << 70, -(1 << 2100)], (node,): "text"},
        ImproperList([1], Pid(node, 1, 2, 3)),
    ]
    written = [encode_bare(term) for term in free]
    numbered = [raw.replace(b"w\x03n@h", b"R\x00") for raw in written]
    assert numbered != written
    assert _decode(_numbered(*numbered, b"R\x02")) == _with(*written, b"w\x04true")


def test_the_size_of_a_fun_inside_a_fun_follows_what_was_written_out() -> None:
    assert _decode(_numbered(b"a\x01", _numbered(_numbered(b"R\x02"), b"j"), b"R\x01")) == _with(
        b"a\x01", _with(_with(b"w\x04true"), b"j"), b"w\x06module"
    )


def test_every_kind_of_term_is_walked_over() -> None:
    kinds = [
        b"k\0\2ab",
        b"c" + b"1.5".ljust(31, b"\0"),
        b"s\1a",
        b"d\0\1a",
        b"v\0\1a",
        b"M\0\0\0\1\7a",
        b"i\0\0\0\1j",
        b"h\2jj",
        b"gw\1n" + bytes(9),
        b"ew\1n" + bytes(5),
        b"r\0\2w\1n" + bytes(9),
        b"Yw\1n" + bytes(8),
        b"fd\0\1n" + bytes(5),
        b"qw\1mw\1fa\2",
    ]
    assert _decode(_with(*kinds)) == _with(*kinds)
    assert encode_term(decode_term(b"\x83" + _with(*kinds))) == b"\x83" + _with(*kinds)


def test_funs_inside_funs_take_no_recursion() -> None:
    layer = b"\x02" + bytes(20) + b"\0\0\0\1" + b"R\1a\0a\0XR\0" + bytes(12)
    levels = 3_000
    # A size counts itself and everything further in: the layers, their tags and sizes, and the innermost [].
    sizes = [(levels - n) * (len(layer) + 5) for n in range(levels)]
    raw = b"".join(b"p" + size.to_bytes(4, "big") + layer for size in sizes)
    _decode(raw + b"j")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (_with(b"R\x03"), "atom 3 of a table of 3"),
        (_with(node=b"R\x09"), "atom 9 of a table of 3"),
        (_with(b"\x4b"), "tag 75 inside a fun"),
        (_with(node=b"a\x01"), "tag 97 where an atom belongs"),
        (_fun(b"w\1m", b"a\0", b"a\0", b"Xw\1n" + bytes(12), b"j", free=0), "not of the size"),
        (_fun(b"w\1m", b"a\0", b"a\0", b"Xw\1n" + bytes(12), free=1), "truncated"),
        (_fun(b"w\1m", b"a\0", b"a\0", b"Xw\1n" + bytes(12), free=0xFFFF_FFFF), "truncated"),
        (_with(b"l\xff\xff\xff\xffj"), "truncated"),
        (_with(b"m\0\0\0\x09"), "not of the size"),
    ],
)
def test_what_does_not_add_up_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        decode_bare_untrusted(raw, 0, atoms=_TABLE)


def test_atoms_written_out_count_so_that_two_bytes_cannot_become_a_thousand_without_end() -> None:
    numbered = _numbered(b"R\x00")
    decode_bare_untrusted(b"h\x02" + numbered * 2, 0, TermLimits(max_atoms=6), _TABLE)
    for maximum in (2, 5):
        with pytest.raises(LimitExceededError, match="max_atoms"):
            decode_bare_untrusted(b"h\x02" + numbered * 2, 0, TermLimits(max_atoms=maximum), _TABLE)

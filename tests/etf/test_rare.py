"""Atoms, however they are written, and kinds that calls seldom hold."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import DecodeError
from bridge.etf import (
    Atom,
    ExportFun,
    Pid,
    Port,
    Reference,
    decode_bare_untrusted,
    decode_term,
    encode_term,
)


def test_more_atoms_than_are_kept_decode_all_the_same() -> None:
    atoms = [Atom(f"kept_{n}") for n in range(9_000)]
    assert decode_term(encode_term(atoms)) == atoms


def test_a_packets_table_gives_atoms_wherever_an_atom_can_be() -> None:
    table: list[Atom | bool] = [Atom("n@h"), True, False, Atom("true")]
    node = b"R\0"
    cases: list[tuple[bytes, Any]] = [
        (b"R\0", Atom("n@h")),
        (b"R\1", True),
        (b"h\2R\2a\1", (False, 1)),
        (b"X" + node + bytes(12), Pid(Atom("n@h"), 0, 0, 0)),
        (b"g" + node + bytes(9), Pid(Atom("n@h"), 0, 0, 0)),
        (b"Z\0\1" + node + bytes(8), Reference(Atom("n@h"), 0, (0,))),
        (b"r\0\1" + node + bytes(5), Reference(Atom("n@h"), 0, (0,))),
        (b"e" + node + bytes(5), Reference(Atom("n@h"), 0, (0,))),
        (b"x" + node + bytes(12), Port(Atom("n@h"), 0, 0)),
        (b"Y" + node + bytes(8), Port(Atom("n@h"), 0, 0)),
        (b"f" + node + bytes(5), Port(Atom("n@h"), 0, 0)),
        (b"qR\0R\1a\2", ExportFun(Atom("n@h"), Atom("true"), 2)),
        (b"XR\1" + bytes(12), Pid(Atom("true"), 0, 0, 0)),
    ]
    for raw, term in cases:
        decoded, end = decode_bare_untrusted(raw, 0, atoms=table)
        assert (decoded, end) == (term, len(raw))
        assert type(decoded) is type(term)
        with pytest.raises(DecodeError, match="of a table of 0"):
            decode_bare_untrusted(raw, 0)
        with pytest.raises(DecodeError, match="of a table of 0"):
            decode_term(b"\x83" + raw)


def test_a_node_may_be_called_true() -> None:
    for name in (b"w\x04true", b"s\x04true", b"v\0\x04true", b"d\0\x04true"):
        pid = decode_term(b"\x83X" + name + bytes(12))
        assert pid == Pid(Atom("true"), 0, 0, 0)
        assert decode_term(encode_term(pid)) == pid
        reference = decode_term(b"\x83Z\0\1" + name + bytes(8))
        assert reference == Reference(Atom("true"), 0, (0,))


@pytest.mark.parametrize("sign", [0, 1])
def test_an_integer_of_a_megabyte_takes_linear_time(sign: int) -> None:
    size = 1_000_000
    raw = b"\x83o" + size.to_bytes(4, "big") + bytes((sign,)) + b"\xa5" * size
    number = decode_term(raw)
    assert (number < 0) == bool(sign)
    assert number.bit_length() == 8 * size
    assert encode_term(number) == raw

"""Atoms, and the terms that calls and their answers seldom hold.

Source of the format: Erlang "External Term Format", section by tag.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import Any, Final, NoReturn

from bridge.errors import DecodeError, PeerLimitError
from bridge.etf.closures import spell_out
from bridge.etf.limits import TermLimits
from bridge.etf.terms import (
    MAX_ATOM_CHARACTERS,
    Atom,
    BitString,
    Closure,
    ExportFun,
    Pid,
    Port,
    Reference,
)

_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from
_PID: Final = struct.Struct(">III").unpack_from
_OLD_PID: Final = struct.Struct(">IIB").unpack_from
_OLD_PORT: Final = struct.Struct(">IB").unpack_from
_NEW_PORT: Final = struct.Struct(">II").unpack_from
_V4_PORT: Final = struct.Struct(">QI").unpack_from
WORDS: Final = [struct.Struct(f">{n}I").unpack_from for n in range(7)]
REFERENCE_WORDS: Final = range(1, 6)

_CACHE_SIZE: Final = 8_192
"""entries of the cache of atoms; when full it is emptied, since a hit is only a saving"""
known_atoms: Final[dict[bytes, Any]] = {}
"""values of atoms met before, by their encoding"""


def truncated() -> NoReturn:
    """Raise the ``DecodeError`` of data that ends too early."""
    raise DecodeError("the term is truncated")


def _count_atom(unseen: int, limits: TermLimits) -> int:
    if not unseen:
        raise PeerLimitError("max_atoms", limits.max_atoms, "new atoms")
    return unseen - 1


def _new_atom(raw: bytes, text: str) -> Any:
    if len(text) > MAX_ATOM_CHARACTERS:
        raise DecodeError(f"an atom of {len(text)} characters; {MAX_ATOM_CHARACTERS} is the most")
    value: Any = {"true": True, "false": False}.get(text)
    if value is None:
        value = Atom(text)
    if len(known_atoms) >= _CACHE_SIZE:
        known_atoms.clear()
    known_atoms[raw] = value
    return value


def not_cached(cached: Sequence[Atom | bool], index: int) -> NoReturn:
    """Raise the ``DecodeError`` of a number that a packet's table of atoms does not have."""
    raise DecodeError(f"tag 82 refers to atom {index} of a table of {len(cached)}")


def _cached_name(cached: Sequence[Atom | bool], index: int) -> Atom:
    if index >= len(cached):
        not_cached(cached, index)
    value = cached[index]
    return Atom("true" if value else "false") if isinstance(value, bool) else value


def atom_at(data: bytes, pos: int, unseen: int, limits: TermLimits) -> tuple[Any, int, int]:
    """The atom at its tag: value (a bool for true and false), its end, what is left of the budget."""
    tag = data[pos]
    if tag in (119, 115):
        start, length = pos + 2, data[pos + 1]
    elif tag in (118, 100):
        start, length = pos + 3, _U16(data, pos + 1)[0]
    else:
        raise DecodeError(f"tag {tag} where an atom belongs")
    end = start + length
    if end > len(data):
        truncated()
    raw = data[pos:end]
    value = known_atoms.get(raw)
    if value is None:
        unseen = _count_atom(unseen, limits)
        value = _new_atom(raw, data[start:end].decode("utf-8" if tag in (119, 118) else "latin-1"))
    return value, end, unseen


def _name_at(
    data: bytes, pos: int, unseen: int, limits: TermLimits, cached: Sequence[Atom | bool]
) -> tuple[Atom, int, int]:
    tag = data[pos]
    if tag == 119:
        end = pos + 2 + data[pos + 1]
        value = known_atoms.get(data[pos:end])
        if type(value) is Atom:
            return value, end, unseen
    if tag == 82:
        return _cached_name(cached, data[pos + 1]), pos + 2, unseen
    value, end, unseen = atom_at(data, pos, unseen, limits)
    if type(value) is bool:
        value = Atom("true" if value else "false")
    return value, end, unseen


def rare_at(
    tag: int, data: bytes, pos: int, unseen: int, limits: TermLimits, cached: Sequence[Atom | bool]
) -> tuple[Any, int, int]:
    """One element of a rarer kind; ``pos`` is after its tag.

    Returns:
        its value, where it ends, and how many new atoms the term may still bring.

    Raises:
        DecodeError: malformed.
        PeerLimitError: too many new atoms.
        IndexError, struct.error, UnicodeDecodeError: truncated, or an atom that is no text.
    """
    value: Any
    match tag:
        case 90:  # NEWER_REFERENCE_EXT
            (count,) = _U16(data, pos)
            if count not in REFERENCE_WORDS:
                raise DecodeError(f"a reference of {count} words")
            node, end, unseen = _name_at(data, pos + 2, unseen, limits, cached)
            words = WORDS[count + 1](data, end)
            return Reference(node, words[0], words[1:]), end + 4 * count + 4, unseen
        case 118 | 115 | 100:  # ATOM_UTF8_EXT, SMALL_ATOM_EXT, ATOM_EXT
            return atom_at(data, pos - 1, unseen, limits)
        case 88 | 103:  # NEW_PID_EXT, PID_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            pos = end + (12 if tag == 88 else 9)
            if tag == 88:
                number, serial, creation = _PID(data, end)
            else:
                number, serial, creation = _OLD_PID(data, end)
            return Pid(node, number, serial, creation), pos, unseen
        case 114:  # NEW_REFERENCE_EXT
            (count,) = _U16(data, pos)
            if count not in REFERENCE_WORDS:
                raise DecodeError(f"a reference of {count} words")
            node, end, unseen = _name_at(data, pos + 2, unseen, limits, cached)
            return Reference(node, data[end], WORDS[count](data, end + 1)), end + 1 + 4 * count, unseen
        case 101:  # REFERENCE_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            number, creation = _OLD_PORT(data, end)
            return Reference(node, creation, (number,)), end + 5, unseen
        case 120:  # V4_PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_V4_PORT(data, end)), end + 12, unseen
        case 89:  # NEW_PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_NEW_PORT(data, end)), end + 8, unseen
        case 102:  # PORT_EXT
            node, end, unseen = _name_at(data, pos, unseen, limits, cached)
            return Port(node, *_OLD_PORT(data, end)), end + 5, unseen
        case 113:  # EXPORT_EXT
            module, end, unseen = _name_at(data, pos, unseen, limits, cached)
            function, end, unseen = _name_at(data, end, unseen, limits, cached)
            if data[end] != 97:
                raise DecodeError("the arity of an export fun is a small integer")
            return ExportFun(module, function, data[end + 1]), end + 2, unseen
        case 112:  # NEW_FUN_EXT; its size counts itself
            end = pos + _U32(data, pos)[0]
            if end > len(data):
                truncated()
            # arity 1, uniq 16, index 4, number of free variables 4, then at least module, index, uniq and pid
            if end - pos < 4 + 25 + 4:
                raise DecodeError("a fun is too short to be one")
            content, written = spell_out(data, pos + 4, end, partial(_cached_name, cached), limits)
            if written > unseen:
                raise PeerLimitError("max_atoms", limits.max_atoms, "atoms written out in funs")
            return Closure(content), end, unseen - written
        case 77:  # BIT_BINARY_EXT
            (length,) = _U32(data, pos)
            bits = data[pos + 4]
            end = pos + 5 + length
            if end > len(data):
                truncated()
            raw = data[pos + 5 : end]
            if bits > 8 or (length == 0) != (bits == 0):
                raise DecodeError(f"a bit string of {length} bytes with {bits} bits in the last")
            return (raw if bits in (0, 8) else BitString(raw, bits)), end, unseen
        case 99:  # FLOAT_EXT
            end = pos + 31
            if end > len(data):
                truncated()
            try:
                value = float(data[pos:end].rstrip(b"\0"))
            except ValueError:
                raise DecodeError("a float is no number") from None
            if not isfinite(value):
                raise DecodeError("a float is not finite")
            return value, end, unseen
        case 121:  # LOCAL_EXT
            raise DecodeError("a term written with the option local is read only by the node that wrote it")
        case _:
            raise DecodeError(f"tag {tag} is none of the format, or of a part of it that was not agreed")


def big_at(tag: int, data: bytes, pos: int) -> tuple[int, int]:
    """The integer of a SMALL_BIG_EXT or LARGE_BIG_EXT after its tag, and where it ends; takes linear time."""
    if tag == 110:
        length = data[pos]
        pos += 1
    else:
        (length,) = _U32(data, pos)
        pos += 4
    sign = data[pos]
    end = pos + 1 + length
    if end > len(data):
        truncated()
    if sign > 1:
        raise DecodeError(f"the sign of an integer is 0 or 1, not {sign}")
    value = int.from_bytes(data[pos + 1 : end], "little")
    return (-value if sign else value), end

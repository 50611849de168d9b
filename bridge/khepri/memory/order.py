"""Erlang's order of terms.

Source: Erlang Reference Manual, "Expressions", section "Term Comparisons": number < atom < reference < fun <
port < pid < tuple < map < nil < list < bit string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cmp_to_key
from typing import Any, Final

from bridge.etf import Atom, BitString, Closure, ExportFun, ImproperList, Pid, Port, Reference, term_identity
from bridge.khepri.paths import Name

NamesKey = tuple[tuple[int, str | bytes], ...]


def names_key(path: Sequence[Name]) -> NamesKey:
    """A key that sorts native paths as Erlang sorts lists of atoms and binaries."""
    return tuple([name_key(name) for name in path])


def name_key(name: Name) -> tuple[int, str | bytes]:
    """The same for one name: atoms come before binaries."""
    return (0, name.text) if isinstance(name, Atom) else (1, name)


def same(left: Any, right: Any) -> bool:
    """Whether two terms are ``=:=``."""
    return term_identity(left) == term_identity(right)


def compare(left: Any, right: Any) -> int:
    """Below 0, 0 or above 0 as ``left`` is less than, equal (``==``) to, or greater than ``right``.

    Pids, ports, references and funs are ordered by their encoding, which is not Erlang's order.
    """
    kind, other = _kind(left), _kind(right)
    if kind != other:
        return kind - other
    match kind:
        case 0:
            return _sign(left, right)
        case 1:
            return _sign(_text(left), _text(right))
        case 6:
            return (len(left) - len(right)) or _elements(left, right)
        case 7:
            return (len(left) - len(right)) or _maps(left, right)
        case 9:
            return _lists(left, right)
        case 10:
            return _sign(_bits(left), _bits(right))
        case _:
            return _sign(term_identity(left), term_identity(right))


_KINDS: Final = ((Reference, 2), (ExportFun, 3), (Closure, 3), (Port, 4), (Pid, 5), (tuple, 6))


def _kind(term: Any) -> int:
    match term:
        case bool() | Atom():
            return 1
        case int() | float():
            return 0
        case bytes() | BitString():
            return 10
        case list():
            return 9 if term else 8
        case ImproperList():
            return 9
        case Mapping():
            return 7
    return next(rank for cls, rank in _KINDS if isinstance(term, cls))


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _text(atom: Any) -> str:
    return atom.text if isinstance(atom, Atom) else "true" if atom else "false"


def _bits(term: bytes | BitString) -> tuple[bytes, int]:
    # The unused bits of a last byte are zero, and what ends earlier comes first.
    return (term.data, term.bits - 8) if isinstance(term, BitString) else (term, 0)


def _elements(left: Sequence[Any], right: Sequence[Any]) -> int:
    for one, other in zip(left, right, strict=False):
        if found := compare(one, other):
            return found
    return 0


def _lists(left: Any, right: Any) -> int:
    heads, tail = _parts(left)
    others, end = _parts(right)
    if found := _elements(heads, others):
        return found
    # What is left of the longer one is a list with elements, whichever they are.
    if len(heads) > len(others):
        return compare([0], end)
    return compare(tail, [0] if len(heads) < len(others) else end)


def _parts(term: Any) -> tuple[Sequence[Any], Any]:
    return (term.elements, term.tail) if isinstance(term, ImproperList) else (term, [])


def _maps(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> int:
    keys = sorted(left, key=cmp_to_key(_key_order))
    others = sorted(right, key=cmp_to_key(_key_order))
    for key, other in zip(keys, others, strict=True):
        if found := _key_order(key, other):
            return found
    for key in keys:
        if found := compare(left[key], right[key]):
            return found
    return 0


def _key_order(left: Any, right: Any) -> int:
    """In keys an integer comes before a float that equals it."""
    both = type(left) in (int, float) and type(right) in (int, float)
    if both and type(left) is not type(right):
        return -1 if type(left) is int else 1
    return compare(left, right)

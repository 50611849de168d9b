"""Whether a node meets a condition.

Source: Khepri 0.16, ``khepri_condition:is_met/3`` and ``compile/1``; ``khepri_path`` for what a component
targets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from bridge.etf import Atom
from bridge.khepri.conditions import (
    AllOf,
    AnyOf,
    ChildListLength,
    ChildListVersion,
    Condition,
    DataMatches,
    HasData,
    HasPayload,
    HasSproc,
    NameMatches,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
)
from bridge.khepri.memory.match_spec import matches
from bridge.khepri.memory.nodes import Node
from bridge.khepri.paths import Name

_COMPARISONS: Final = {
    "eq": int.__eq__,
    "ne": int.__ne__,
    "lt": int.__lt__,
    "le": int.__le__,
    "gt": int.__gt__,
    "ge": int.__ge__,
}


def unmet(condition: Condition, name: Name, node: Node) -> Condition | None:
    """The condition, or the part of it, that a node of this name does not meet; ``None`` if it meets it."""
    match condition:
        case Atom() | bytes():
            return None if condition == name else condition
        case AllOf(several):
            return next((left for one in several if (left := unmet(one, name, node)) is not None), None)
        case AnyOf(several):
            return None if any(unmet(one, name, node) is None for one in several) else condition
        case Not(inner):
            return condition if unmet(inner, name, node) is None else None
        case _:
            return None if _is_met(condition, name, node) else condition


def _is_met(condition: Condition, name: Name, node: Node) -> bool:
    match condition:
        case NameMatches(regex) | PathMatches(regex):
            return regex is None or compiled(_octets(regex)).search(name_bytes(name)) is not None
        case HasPayload(expected) | HasData(expected):
            return (node.payload is not None) is expected
        case HasSproc(expected):
            return not expected
        case NodeExists(expected):
            return expected
        case PayloadVersion(comparison, number):
            return _COMPARISONS[comparison](node.payload_version, number)
        case ChildListVersion(comparison, number):
            return _COMPARISONS[comparison](node.child_list_version, number)
        case ChildListLength(comparison, number):
            return _COMPARISONS[comparison](len(node.children), number)
        case DataMatches(pattern, guards):
            return node.payload is not None and matches(pattern, guards, node.payload.data)
    return False


def compile_condition(condition: Condition) -> Condition:
    """The condition as Khepri keeps it in a pattern: names first, and no list of one."""
    match condition:
        case Not(inner):
            return Not(compile_condition(inner))
        case AllOf(several):
            made = [compile_condition(one) for one in several]
            names = [one for one in reversed(made) if isinstance(one, Atom | bytes)]
            return _unwrapped(AllOf, names + [one for one in made if not isinstance(one, Atom | bytes)])
        case AnyOf(several):
            return _unwrapped(AnyOf, [compile_condition(one) for one in several])
    return condition


def _unwrapped(kind: type[AllOf | AnyOf], conditions: Sequence[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else kind(*conditions)


def is_recursive(condition: Condition) -> bool:
    """Whether a component of a pattern applies to grandchildren too, as ``**`` does."""
    match condition:
        case PathMatches():
            return True
        case Not(inner):
            return is_recursive(inner)
        case AllOf(several) | AnyOf(several):
            return any(map(is_recursive, several))
    return False


def may_create(condition: Condition) -> bool:
    """Whether a write may make a node that was to meet this condition and does not exist."""
    match condition:
        case Atom() | bytes():
            return True
        case NodeExists(expected):
            return not expected
        case AllOf(several):
            return all(map(may_create, several))
        case AnyOf(several):
            return any(map(may_create, several))
    return False


@lru_cache(maxsize=1_024)
def compiled(regex: bytes) -> re.Pattern[bytes]:
    """A regular expression of Erlang in Python's dialect.

    Raises:
        re.error: it has something that Python does not know, or knows as something else.
    """
    if b"[[:" in regex or b"[[." in regex or b"[[=" in regex:
        raise re.error("character classes with a name are Erlang's only")
    return re.compile(regex)


def name_bytes(name: Name) -> bytes:
    """What a regular expression sees of a name."""
    return name.text.encode("latin-1") if isinstance(name, Atom) else name


def _octets(regex: str | bytes) -> bytes:
    return regex.encode() if isinstance(regex, str) else regex

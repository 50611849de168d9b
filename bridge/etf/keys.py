"""Which mapping of Python holds the keys of a map.

A plain ``dict`` where that loses nothing: its keys can be hashed, none equals another one in Python, and
hashing them is safe. Otherwise an ``ErlangMap``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from bridge.errors import ConfigurationError, DecodeError
from bridge.etf.mapping import ErlangMap

MAX_HASHED_DEPTH: Final = 64
"""levels of a tuple used as a key of ``dict``; a deeper one makes the map an ``ErlangMap``"""
CROWD: Final = 1_024
"""items of a map, two for each key, from which on it is worth looking whether their hashes collide"""
_AT_ONCE: Final = 4_096
"""keys between two stops: a millisecond or two"""
_MAX_COLLISIONS: Final = 64
"""keys that share a hash with another one before it takes them for an attack; honest ones hardly ever do"""


def wary_map(items: list[Any]) -> Any:
    """A map of keys and values in turn, of which nothing is known.

    Raises:
        DecodeError: a key occurs twice.
    """
    return _at_once(build_map(items, wary=True))


def erlang_map(items: list[Any]) -> Any:
    """A map of keys and values in turn, none of them a tuple too deep for ``hash``, that are few.

    Raises:
        DecodeError: a key occurs twice.
    """
    return _at_once(build_map(items, wary=False))


def build_map(items: list[Any], *, wary: bool) -> Generator[None, None, Any]:
    """Make a map of keys and values in turn, with a stop after each thousands of them.

    Args:
        items: keys and values in turn.
        wary: a key may be a tuple nested too deep for ``hash``.

    Returns:
        A ``dict``, or an ``ErlangMap`` of keys that no ``dict`` can hold.

    Raises:
        DecodeError: a key occurs twice.
    """
    keys = items[::2]
    values = items[1::2]
    if (yield from _hash_well(keys, wary=wary)):
        plain: dict[Any, Any] = {}
        for start in range(0, len(keys), _AT_ONCE):
            plain.update(zip(keys[start : start + _AT_ONCE], values[start : start + _AT_ONCE], strict=True))
            yield
        if len(plain) == len(keys):
            return plain
    if len(keys) == 1:
        return ErlangMap.of_distinct(keys, values)
    # Keys differ where tuples in place of lists do, which is found faster than by encoding them.
    flat: list[Any] = []
    for start in range(0, len(keys), _AT_ONCE):
        flat += [tuple(key) if type(key) is list else key for key in keys[start : start + _AT_ONCE]]
        yield
    if (yield from _hash_well(flat, wary=wary)):
        seen: set[Any] = set()
        for start in range(0, len(flat), _AT_ONCE):
            seen.update(flat[start : start + _AT_ONCE])
            yield
        if len(seen) == len(flat):
            return ErlangMap.of_distinct(keys, values)
    try:
        return ErlangMap(zip(keys, values, strict=True))
    except ConfigurationError:
        raise DecodeError("a key occurs twice in a map") from None


def _at_once(building: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(building)
        except StopIteration as end:
            return end.value


def _hash_well(keys: list[Any], *, wary: bool) -> Generator[None, None, bool]:
    """Whether all keys can be hashed, and not many have one hash.

    Anybody can bring that about for numbers and tuples of them, and a ``dict`` of such takes quadratic time.
    A set of the hashes does not, since those of one value are equal.
    """
    hashes: set[int] = set()
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        if wary and not all(type(key) is not tuple or _is_shallow(key) for key in some):
            return False
        try:
            hashes.update(map(hash, some))
        except TypeError:
            return False  # a list or a map among the keys
        yield
    return len(keys) - len(hashes) <= _MAX_COLLISIONS


def _is_shallow(key: tuple[Any, ...]) -> bool:
    """Whether Python may hash a tuple: it recurses in C without a check, which a deep one takes down."""
    level = [key]
    for _ in range(MAX_HASHED_DEPTH):
        level = [inner for outer in level for inner in outer if type(inner) is tuple]
        if not level:
            return True
    return False

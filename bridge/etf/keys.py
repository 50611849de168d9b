"""Which mapping of Python holds the keys of a map.

A plain ``dict`` where that loses nothing: its keys can be hashed, none equals another one in Python, and
hashing them is safe. Otherwise an ``ErlangMap``.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.errors import ConfigurationError, DecodeError
from bridge.etf.mapping import ErlangMap

MAX_HASHED_DEPTH: Final = 64
"""levels of a tuple used as a key of ``dict``; a deeper one makes the map an ``ErlangMap``"""
CROWD: Final = 1_024
"""items of a map, two for each key, from which on it is worth looking whether their hashes collide"""
_MAX_COLLISIONS: Final = 64
"""keys that share a hash with another one before it takes them for an attack; honest ones hardly ever do"""


def wary_map(items: list[Any]) -> Any:
    """A map of keys and values in turn, of which nothing is known.

    Raises:
        DecodeError: a key occurs twice.
    """
    keys = items[::2]
    if all(type(key) is not tuple or _is_shallow(key) for key in keys):
        try:
            if not _collide(keys):
                plain = dict(zip(keys, items[1::2], strict=True))
                if len(plain) == len(keys):
                    return plain
        except TypeError:
            pass  # a list or a map among the keys
    return erlang_map(items, wary=True)


def erlang_map(items: list[Any], *, wary: bool) -> ErlangMap:
    """A map of keys and values in turn that no ``dict`` can hold.

    Args:
        items: keys and values in turn.
        wary: a key may be a tuple nested too deep for ``hash``.

    Raises:
        DecodeError: a key occurs twice.
    """
    keys = items[::2]
    values = items[1::2]
    if len(keys) == 1:
        return ErlangMap.of_distinct(keys, values)
    # Keys differ where tuples in place of lists do, which is found faster than by encoding them.
    flat = [tuple(key) if type(key) is list else key for key in keys]
    if not wary or all(type(key) is not tuple or _is_shallow(key) for key in flat):
        try:
            if not _collide(flat) and len(set(flat)) == len(flat):
                return ErlangMap.of_distinct(keys, values)
        except TypeError:
            pass  # a map, or a list in a list
    try:
        return ErlangMap(zip(keys, values, strict=True))
    except ConfigurationError:
        raise DecodeError("a key occurs twice in a map") from None


def _collide(keys: list[Any]) -> bool:
    """Whether many keys have one hash, which for numbers and tuples of them anybody can bring about.

    A ``dict`` of such takes quadratic time. A set of the hashes does not, since those of one value are equal.
    """
    return len(keys) > _MAX_COLLISIONS and len(keys) - len(set(map(hash, keys))) > _MAX_COLLISIONS


def _is_shallow(key: tuple[Any, ...]) -> bool:
    """Whether Python may hash a tuple: it recurses in C without a check, which a deep one takes down."""
    level = [key]
    for _ in range(MAX_HASHED_DEPTH):
        level = [inner for outer in level for inner in outer if type(inner) is tuple]
        if not level:
            return True
    return False

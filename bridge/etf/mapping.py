"""Maps whose keys Python's ``dict`` cannot tell apart or cannot hash."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from hashlib import blake2b
from itertools import chain
from typing import Any, Final, Self

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf.encode import encode_bare, encode_parts
from bridge.etf.limits import DEFAULT_LIMITS
from bridge.etf.terms import ImproperList

_NESTING: Final = (tuple, list, Mapping, ImproperList)


def term_identity(term: Any) -> bytes:
    """Bytes that are equal exactly for terms that are ``=:=`` in Erlang (as of OTP 27 for ``-0.0``).

    They are the encoding with a digest in place of each map. Encoding maps in the order of their keys instead
    takes exponential time where maps are keys of maps that are keys.

    Raises:
        ConfigurationError: no term.
        LimitExceededError: nested too deep.
    """
    if not isinstance(term, _NESTING):
        return encode_bare(term)
    digests: dict[int, bytes] = {}
    # From the innermost outwards, so that a map finds the digests of those inside it.
    for mapping, pairs in reversed(_maps_inside(term)):
        known = mapping._digest if isinstance(mapping, ErlangMap) else None
        digests[id(mapping)] = known or _digest(mapping, pairs, digests)
    return _identity(term, digests)


def _identity(term: Any, digests: Mapping[int, bytes]) -> bytes:
    parts: list[bytes] = []
    encode_parts(term, parts, DEFAULT_LIMITS.max_depth, digests)
    return b"".join(parts)


def _digest(mapping: Mapping[Any, Any], pairs: list[tuple[Any, Any]], digests: Mapping[int, bytes]) -> bytes:
    sums = []
    for key, value in pairs:
        both = blake2b(_identity(key, digests), digest_size=32).digest()
        sums.append(both + blake2b(_identity(value, digests), digest_size=32).digest())
    # No encoded term starts like a map and goes on like this: its digest stands where elements would.
    whole = b"t" + blake2b(b"".join(sorted(sums)), digest_size=32).digest()
    if isinstance(mapping, ErlangMap):
        mapping._digest = whole
    return whole


def _maps_inside(term: Any) -> list[tuple[Mapping[Any, Any], list[tuple[Any, Any]]]]:
    """Each map in a term with its pairs, outer ones first; not what is inside one whose digest is known."""
    found: list[tuple[Mapping[Any, Any], list[tuple[Any, Any]]]] = []
    stack: list[Iterator[Any]] = []
    pending: Iterator[Any] = iter((term,))
    while True:
        for inner in pending:
            if not isinstance(inner, _NESTING):
                continue
            stack.append(pending)
            if isinstance(inner, Mapping):
                known = isinstance(inner, ErlangMap) and inner._digest is not None
                pairs = [] if known else list(inner.items())
                found.append((inner, pairs))
                pending = chain.from_iterable(pairs)
            elif isinstance(inner, ImproperList):
                pending = chain(inner.elements, (inner.tail,))
            else:
                pending = iter(inner)
            break
        else:
            if not stack:
                return found
            pending = stack.pop()
            continue
        if len(stack) > DEFAULT_LIMITS.max_depth:
            raise LimitExceededError("max_depth", DEFAULT_LIMITS.max_depth, "levels")


class ErlangMap(Mapping[Any, Any]):
    """A mapping with Erlang's ``=:=`` on keys: ``1``, ``1.0`` and ``True`` differ; lists and maps are keys.

    The decoder gives a plain ``dict`` wherever that loses nothing (all keys hashable, none equal in Python
    to another one), and this class elsewhere, so a reader that takes ``Mapping`` need not know which it got.
    It is immutable, and so must its keys be. Keys are compared by their canonical encoding, made at the first
    look-up; going through the pairs encodes nothing.

    Args:
        pairs: keys and values.

    Raises:
        ConfigurationError: a key occurs twice, or is no term.
    """

    __slots__ = ("_digest", "_index", "_keys", "_values")

    _digest: bytes | None
    """of keys and values, once it was asked for: going through a map in a map again and again adds up"""

    def __init__(self, pairs: Iterable[tuple[Any, Any]] | Mapping[Any, Any] = ()) -> None:
        self._keys: Sequence[Any]
        self._values: Sequence[Any]
        entries = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        self._keys = [key for key, _ in entries]
        self._values = [value for _, value in entries]
        self._digest = None
        self._index: dict[bytes, int] | None = None
        if len(self._places()) != len(entries):
            raise ConfigurationError("a key occurs twice in a map")

    @classmethod
    def of_distinct(cls, keys: Sequence[Any], values: Sequence[Any]) -> Self:
        """The map of keys that are terms and known to differ, and as many values; neither is copied."""
        made = cls.__new__(cls)
        made._keys = keys
        made._values = values
        made._digest = None
        made._index = None
        return made

    def _places(self) -> dict[bytes, int]:
        if self._index is None:
            self._index = {term_identity(key): place for place, key in enumerate(self._keys)}
        return self._index

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._values[self._places()[term_identity(key)]]
        except ConfigurationError:
            raise KeyError(key) from None
        except KeyError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    # Those of Mapping look every key up.
    def items(self) -> ItemsView[Any, Any]:
        """Keys and values, in the order they came."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Values, in the order of the keys."""
        return _Values(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = other if isinstance(other, ErlangMap) else ErlangMap(other)
        places, others = self._places(), theirs._places()
        if places.keys() != others.keys():
            return False
        return all(
            theirs._values[others[identity]] == self._values[place] for identity, place in places.items()
        )

    __hash__ = None  # type: ignore[assignment]  # like dict: values may be lists

    def __repr__(self) -> str:
        return f"ErlangMap({list(self.items())!r})"


class _Items(ItemsView[Any, Any]):
    __slots__ = ()
    _mapping: ErlangMap

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return zip(self._mapping._keys, self._mapping._values, strict=True)


class _Values(ValuesView[Any]):
    __slots__ = ()
    _mapping: ErlangMap

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping._values)

"""Maps whose keys Python's ``dict`` cannot tell apart or cannot hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.errors import ConfigurationError
from bridge.etf.encode import term_identity


class ErlangMap(Mapping[Any, Any]):
    """A mapping with Erlang's ``=:=`` on keys: ``1``, ``1.0`` and ``True`` differ; lists and maps are keys.

    The decoder gives a plain ``dict`` wherever that loses nothing (all keys hashable, none equal in Python
    to another one), and this class elsewhere, so a reader that takes ``Mapping`` need not know which it got.
    It is immutable. Keys are compared by their canonical encoding; a look-up encodes the key, which is why
    ``dict`` stays the rule.

    Args:
        pairs: keys and values.

    Raises:
        ConfigurationError: a key occurs twice, or is no term.
    """

    __slots__ = ("_entries",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]] | Mapping[Any, Any] = ()) -> None:
        self._entries: dict[bytes, tuple[Any, Any]] = {}
        for key, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
            identity = term_identity(key)
            if identity in self._entries:
                raise ConfigurationError("a key occurs twice in a map")
            self._entries[identity] = (key, value)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._entries[term_identity(key)][1]
        except ConfigurationError:
            raise KeyError(key) from None
        except KeyError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = other if isinstance(other, ErlangMap) else ErlangMap(other)
        if self._entries.keys() != theirs._entries.keys():
            return False
        return all(theirs._entries[identity][1] == value for identity, (_, value) in self._entries.items())

    __hash__ = None  # type: ignore[assignment]  # like dict: values may be lists

    def __repr__(self) -> str:
        return f"ErlangMap({list(self.items())!r})"

"""Child nodes by name: immutable to whoever holds them, changed in constant time.

The newest version holds the ``dict``, and each older one how it differs from the next: reading an older one
turns the differences round (H. G. Baker, "Shallow Binding Makes Functional Arrays Fast", 1991). So a
transaction that is undone just goes on from the version that it began with, and one write among 10,000
siblings copies none of them. Going to and fro between versions costs what changed between them.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from bridge.khepri.paths import Name

Value = TypeVar("Value")


class Children(Generic[Value]):
    """One version; ``len`` is how many there are. Made empty, or by ``put`` and ``without``."""

    __slots__ = ("_difference", "_entries", "_length")

    def __init__(self) -> None:
        self._entries: dict[Name, Value] | None = {}
        # The next version, a name, and what stood there in this one: a tuple of one value, or of none.
        self._difference: tuple[Children[Value], Name, tuple[Value, ...]] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, name: Name) -> Value | None:
        """The child of this name."""
        return self._held().get(name)

    def items(self) -> list[tuple[Name, Value]]:
        """Names and children, in no particular order."""
        return list(self._held().items())

    def names(self) -> list[Name]:
        """Names, in no particular order."""
        return list(self._held())

    def put(self, name: Name, value: Value) -> Children[Value]:
        """The version in which this child stands there."""
        entries = self._held()
        before = (entries[name],) if name in entries else ()
        entries[name] = value
        return self._next(entries, name, before)

    def without(self, name: Name) -> Children[Value]:
        """The version without the child of this name, which must be there."""
        entries = self._held()
        return self._next(entries, name, (entries.pop(name),))

    def _next(self, entries: dict[Name, Value], name: Name, before: tuple[Value, ...]) -> Children[Value]:
        made: Children[Value] = Children()
        made._entries = entries
        made._length = len(entries)
        self._entries = None
        self._difference = (made, name, before)
        return made

    def _held(self) -> dict[Name, Value]:
        if self._entries is not None:
            return self._entries
        chain: list[Children[Value]] = [self]
        while (difference := chain[-1]._difference) is not None:
            chain.append(difference[0])
        newest = chain.pop()
        entries = newest._entries
        assert entries is not None
        while chain:
            older = chain.pop()
            assert older._difference is not None
            _, name, before = older._difference
            after = (entries[name],) if name in entries else ()
            if before:
                entries[name] = before[0]
            else:
                del entries[name]
            newest._entries, newest._difference = None, (older, name, after)
            older._entries, older._difference = entries, None
            newest = older
        return entries

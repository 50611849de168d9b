"""Which nodes live only while conditions hold, found from either side.

Source: Khepri 0.16, ``khepri_tree`` ("Keep-while functions"): ``keep_while_conds`` and its reversed index. As
there, the conditions of a node that goes with its parent stay, and hold for a later node at the same path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bridge.khepri.conditions import AnyOf, ChildListLength, Condition, HasPayload
from bridge.khepri.paths import NativePath

Pattern = tuple[Condition, ...]
"""components: names and conditions"""
Conditions = Mapping[Pattern, Condition]
"""by the absolute path or pattern that is watched"""

IMPLICIT: Final = AnyOf(ChildListLength("gt", 0), HasPayload(True))
"""what a parent that was made on the way to a node must meet itself"""


class KeepWhiles:
    """Conditions by the path of the node that they keep; changes can be undone."""

    def __init__(self) -> None:
        self._conditions: dict[NativePath, Conditions] = {}
        self._watched = _Watched()
        self._undo: list[tuple[NativePath, Conditions | None]] = []

    def of(self, watcher: NativePath) -> Conditions | None:
        """The conditions that keep a node."""
        return self._conditions.get(watcher)

    def items(self) -> Iterator[tuple[NativePath, Conditions]]:
        """All of them."""
        return iter(self._conditions.items())

    def set(self, watcher: NativePath, conditions: Conditions | None) -> None:
        """Replace the conditions of a node, or take them away."""
        before = self._conditions.get(watcher)
        self._undo.append((watcher, before))
        self._replace(watcher, before, conditions)

    def watchers(self, watched: NativePath) -> list[NativePath]:
        """Nodes with a condition on exactly this path."""
        found = self._watched.at(watched)
        return [] if found is None else list(found.watchers)

    def watchers_below(self, watched: NativePath) -> list[NativePath]:
        """Nodes with a condition on this path or on one that begins with it."""
        found = self._watched.at(watched)
        return [] if found is None else list(dict.fromkeys(found.all_watchers()))

    def mark(self) -> int:
        """A moment to go back to, until ``forget``."""
        return len(self._undo)

    def undo(self, mark: int) -> None:
        """Go back to a moment."""
        while len(self._undo) > mark:
            watcher, before = self._undo.pop()
            self._replace(watcher, self._conditions.get(watcher), before)

    def forget(self) -> None:
        """What was changed up to now stays."""
        self._undo.clear()

    def _replace(self, watcher: NativePath, before: Conditions | None, after: Conditions | None) -> None:
        for watched in before or ():
            self._watched.remove(watched, watcher)
        for watched in after or ():
            self._watched.add(watched, watcher)
        if after is None:
            self._conditions.pop(watcher, None)
        else:
            self._conditions[watcher] = after


class _Watched:
    """Watchers by what they watch, as a tree of components: all below a path are found without the others."""

    __slots__ = ("below", "watchers")

    def __init__(self) -> None:
        self.watchers: dict[NativePath, None] = {}
        self.below: dict[object, _Watched] = {}

    def at(self, watched: Pattern) -> _Watched | None:
        place: _Watched | None = self
        for component in watched:
            if place is None:
                return None
            place = place.below.get(component)
        return place

    def add(self, watched: Pattern, watcher: NativePath) -> None:
        place = self
        for component in watched:
            place = place.below.setdefault(component, _Watched())
        place.watchers[watcher] = None

    def remove(self, watched: Pattern, watcher: NativePath) -> None:
        places = [self]
        for component in watched:
            places.append(places[-1].below[component])
        del places[-1].watchers[watcher]
        for component in reversed(watched):
            emptied = places.pop()
            if emptied.watchers or emptied.below:
                return
            del places[-1].below[component]

    def all_watchers(self) -> Iterator[NativePath]:
        pending = [self]
        while pending:
            place = pending.pop()
            yield from place.watchers
            pending.extend(place.below.values())

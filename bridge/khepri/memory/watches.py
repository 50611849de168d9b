"""What a subscriber of the feed wants to hear of.

Source: ``docs/protocol.md`` §3; the Erlang module ``kb_watch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri.conditions import AllOf, AnyOf, Condition, NameMatches, Not, PathMatches
from bridge.khepri.memory import requests
from bridge.khepri.memory.evaluate import unmet
from bridge.khepri.memory.keep_while import Pattern
from bridge.khepri.memory.nodes import Node
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.paths import Name, NativePath

MAX_PATTERNS: Final = 64
_NODE: Final = Node()
"""of which conditions on names say nothing"""


class Watch:
    """A path by names alone, for the node and all below it; or a pattern, for the nodes that it matches."""

    __slots__ = ("_below", "pattern")

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._below = all(isinstance(component, Atom | bytes) for component in pattern)

    def wants(self, path: NativePath) -> bool:
        """Whether a change at this path is to be told."""
        if self._below:
            return path[: len(self.pattern)] == self.pattern
        return _matches(self.pattern, path)

    def queries(self) -> Iterable[Pattern]:
        """What to look up for a snapshot of it."""
        if not self._below:
            return (self.pattern,)
        everything = (*self.pattern, PathMatches())
        return (self.pattern, everything) if self.pattern else (everything,)


def watches(patterns: Any) -> list[Watch]:
    """The watches of a subscription.

    Raises:
        RefusedError: ``invalid_path`` for conditions on more than names; ``invalid_options``.
    """
    if type(patterns) is not list or len(patterns) > MAX_PATTERNS:
        raise RefusedError("invalid_options", "patterns are a list of up to 64 paths or patterns")
    made = [requests.pattern(term) for term in patterns]
    for pattern in made:
        if not all(_is_on_name(component, top=True) for component in pattern):
            raise RefusedError("invalid_path", "a watch takes names, wildcards, and conditions on names")
    return [Watch(pattern) for pattern in made]


def _is_on_name(condition: Condition, *, top: bool) -> bool:
    match condition:
        case Atom() | bytes() | NameMatches():
            return True
        case PathMatches(regex):
            # Inside another condition it would match at any depth there too.
            return top and regex is None
        case Not(inner):
            return _is_on_name(inner, top=False)
        case AllOf(several) | AnyOf(several):
            return all(_is_on_name(inner, top=False) for inner in several)
    return False


def _matches(pattern: Sequence[Condition], path: Sequence[Name]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    first, rest = pattern[0], path[1:]
    if isinstance(first, PathMatches):
        return _matches(pattern[1:], rest) or _matches(pattern, rest)
    return unmet(first, path[0], _NODE) is None and _matches(pattern[1:], rest)

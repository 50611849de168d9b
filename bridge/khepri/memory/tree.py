"""A tree with Khepri's rules, as a value and functions over it: no clock, no store, nobody else.

Source: Khepri 0.16, ``khepri_tree``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri.conditions import Condition, condition_term
from bridge.khepri.memory.evaluate import compile_condition, may_create, unmet
from bridge.khepri.memory.keep_while import Conditions, KeepWhiles, Pattern
from bridge.khepri.memory.nodes import Node, Payload
from bridge.khepri.memory.order import compare, name_key, names_key
from bridge.khepri.memory.walk import Interruption, Step, TreeError, Walk
from bridge.khepri.paths import NativePath, NativePattern, Special, absolute_path


@dataclass(frozen=True, slots=True)
class Put:
    """What a write did to one node.

    Attributes:
        before: the node as it was, or ``None``.
        after: as the write left it, before anything that followed from that.
    """

    before: Node | None
    after: Node


@dataclass(frozen=True, slots=True)
class Change:
    """One node before and after a write; ``None`` where it did not exist."""

    path: NativePath
    before: Node | None
    after: Node | None


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Why a condition of ``keep_while`` does not hold: the pattern that it is on matches no node."""

    pattern: Pattern


KeepWhile = Mapping[NativePattern, Condition]
"""conditions by path, which may be relative to the node that they are to keep"""
_TERM_ORDER: Final = cmp_to_key(compare)
_NO_NAME: Final = Atom("")
"""what stands for the name of the root, where a condition asks for it"""


class Tree:
    """The tree; each write is whole or, where it raises ``TreeError``, not at all.

    Attributes:
        root: the root; a node never changes, so whoever keeps it keeps the tree as it is now.
        keep_while: conditions by the path of the node that they keep.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.keep_while = KeepWhiles()

    def find(
        self, pattern: Pattern, *, one: bool = False, include_root: bool = False
    ) -> dict[NativePath, Node]:
        """The nodes that a pattern matches, by path.

        Args:
            pattern: names and conditions.
            one: whether it stands for one node.
            include_root: whether a wildcard at the top matches the root too.

        Raises:
            TreeError: ``node_not_found``, if it stands for one node.
        """
        found: dict[NativePath, Node] = {}

        def visit(path: NativePath, node: Node | Interruption) -> Step:
            if isinstance(node, Node):
                found[path] = node
            elif one and node.reason == "node_not_found":
                raise _refused(node)
            return Step.KEEP

        Walk(self.keep_while, visit, one=one, include_root=include_root).run(self.root, _compiled(pattern))
        return found

    def node(self, path: NativePath) -> Node | None:
        """The node at a path."""
        return _at(self.root, path)

    def put(
        self,
        pattern: Pattern,
        payload: Payload | None,
        *,
        keep_while: KeepWhile | None = None,
        one: bool = False,
    ) -> tuple[dict[NativePath, Put], list[Change]]:
        """Replace the payload of the nodes that a pattern matches; an exact path is made where missing.

        Args:
            pattern: names and conditions.
            payload: what to store; ``None`` takes it away.
            keep_while: by path, absolute or relative to the node; only where the pattern stands for one node.
            one: whether the pattern stands for one node.

        Returns:
            What was written, by path; and all changes, in the order of the feed for a command of its own.

        Raises:
            TreeError: the node is missing or not as demanded, or a condition of ``keep_while`` does not hold.
        """
        written: dict[NativePath, Put] = {}

        def visit(path: NativePath, node: Node | Interruption) -> Node:
            if isinstance(node, Node):
                if path in written:
                    return node
                after = node.with_payload(payload)
                written[path] = Put(node, after)
            elif node.reason == "node_not_found" and _may_create(node):
                after = Node(payload) if node.is_target else Node()
                if not node.is_target:
                    return after
                written[path] = Put(None, after)
            else:
                raise _refused(node)
            if keep_while is not None:
                self._demand(path, absolute(keep_while, path))
            return after

        def then() -> None:
            if keep_while is not None:
                for path in written:
                    self.keep_while.set(path, absolute(keep_while, path))

        changes = self._write(Walk(self.keep_while, visit, one=one), pattern, written, then)
        return written, changes

    def delete(self, pattern: Pattern, *, one: bool = False) -> tuple[dict[NativePath, Node], list[Change]]:
        """Delete the nodes that a pattern matches, and what is below them.

        Returns:
            Those that were deleted themselves, by path; and all changes, as for ``put``.
        """
        deleted: dict[NativePath, Node] = {}

        def visit(path: NativePath, node: Node | Interruption) -> Step:
            if not isinstance(node, Node):
                return Step.KEEP
            deleted[path] = node
            return Step.DELETE

        return deleted, self._write(Walk(self.keep_while, visit, one=one), pattern, deleted)

    def _write(
        self,
        walk: Walk,
        pattern: Pattern,
        touched: Mapping[NativePath, object],
        then: Callable[[], None] | None = None,
    ) -> list[Change]:
        before = self.root
        mark = self.keep_while.mark()
        try:
            self.root = walk.run(before, _compiled(pattern))
            changed = dict(walk.changed)
            self._settle(changed)
            if then is not None:
                then()
        except TreeError:
            self.root = before
            self.keep_while.undo(mark)
            raise
        return _changes(before, self.root, touched, changed)

    def _settle(self, changed: dict[NativePath, Node | None]) -> None:
        """Delete what is kept no longer, then what those deletions keep no longer; adds to ``changed``.

        Khepri looks at all changes again after each deletion; those it has seen tell it nothing new.
        """
        pending = [iter(self._expired(changed, changed))]
        while pending:
            path = next(pending[-1], None)
            if path is None:
                pending.pop()
                continue
            walk = Walk(self.keep_while, lambda _, node: Step.DELETE if isinstance(node, Node) else Step.KEEP)
            self.root = walk.run(self.root, path)
            for where, node in walk.changed.items():
                if node is None or changed.get(where, node) is not None:
                    changed[where] = node
            pending.append(iter(self._expired(walk.changed, changed)))

    def _expired(
        self, fresh: Mapping[NativePath, Node | None], changed: Mapping[NativePath, Node | None]
    ) -> list[NativePath]:
        """Paths of nodes that changes leave without what kept them, those above first."""
        found: dict[NativePath, None] = {}
        for path, node in fresh.items():
            if node is None:
                watchers = self.keep_while.watchers_below(path)
            else:
                watchers = [
                    watcher
                    for watcher in self.keep_while.watchers(path)
                    if unmet(self._conditions(watcher)[path], path[-1], node) is not None
                ]
            for watcher in watchers:
                if watcher not in found and self._why_not(self._conditions(watcher)) is not None:
                    found[watcher] = None
        for path, node in fresh.items():
            if node is None:
                self.keep_while.set(path, None)
        chosen: dict[NativePath, None] = {}
        for path in sorted(found, key=lambda path: (len(path), names_key(path))):
            gone = path in changed and changed[path] is None
            if not gone and not any(path[:length] in chosen for length in range(1, len(path))):
                chosen[path] = None
        return sorted(chosen, key=names_key)

    def _conditions(self, watcher: NativePath) -> Conditions:
        conditions = self.keep_while.of(watcher)
        assert conditions is not None
        return conditions

    def _demand(self, path: NativePath, conditions: Conditions) -> None:
        on_others = {watched: condition for watched, condition in conditions.items() if watched != path}
        because = self._why_not(on_others)
        if because is not None:
            raise TreeError("keep_while_conditions_not_met", path=path, because=because)

    def _why_not(self, conditions: Conditions) -> object | None:
        """The first condition that does not hold, or the pattern that matches nothing."""
        for watched, condition in conditions.items():
            nodes = self.find(watched)
            if not nodes:
                return Unmatched(watched)
            for path, node in nodes.items():
                failed = unmet(condition, path[-1] if path else _NO_NAME, node)
                if failed is not None:
                    return failed
        return None


def absolute(keep_while: KeepWhile, path: NativePath) -> Conditions:
    """Conditions that may be on relative paths, on those that they mean for the node at ``path``.

    They are gone through in the order of Erlang's small maps, as Khepri does: of two paths that mean the same
    node the later one holds, and of several conditions that do not hold the first one is told.
    """
    given: dict[Any, Condition] = dict(keep_while)
    if len(given) > 1:
        given = dict(sorted(given.items(), key=_by_terms))
    # Without "." and ".." nothing but names and conditions is left.
    made: dict[Any, Condition] = {absolute_path(watched, path): one for watched, one in given.items()}
    return dict(sorted(made.items(), key=_by_terms)) if len(made) > 1 else made


def _by_terms(pair: tuple[Any, Condition]) -> Any:
    return _TERM_ORDER(
        [part.value if isinstance(part, Special) else condition_term(part) for part in pair[0]]
    )


def _compiled(pattern: Pattern) -> Pattern:
    return tuple([compile_condition(component) for component in pattern])


def _may_create(missing: Interruption) -> bool:
    return may_create(missing.path[-1] if missing.condition is None else missing.condition)


def _refused(interruption: Interruption) -> TreeError:
    props: dict[str, Any] = {"path": interruption.path}
    if interruption.condition is not None:
        props["condition"] = interruption.condition
    return TreeError(interruption.reason, **props)


def _at(root: Node, path: NativePath) -> Node | None:
    node: Node | None = root
    for name in path:
        if node is None:
            return None
        node = node.children.get(name)
    return node


def _changes(
    before: Node, after: Node, touched: Iterable[NativePath], changed: Mapping[NativePath, Node | None]
) -> list[Change]:
    """All changes, those below a deleted node before it. All of one tree are read before the other's."""
    paths: list[tuple[NativePath, Node | None]] = []
    for path in sorted({*touched, *changed}, key=names_key):
        node = _at(before, path)
        if node is not None and path in changed and changed[path] is None:
            paths.extend(_below(path, node))
        paths.append((path, node))
    return [Change(path, node, _at(after, path)) for path, node in paths]


def _below(path: NativePath, node: Node) -> Iterator[tuple[NativePath, Node]]:
    for name, child in sorted(node.children.items(), key=lambda item: name_key(item[0])):
        yield (*path, name), child
        yield from _below((*path, name), child)

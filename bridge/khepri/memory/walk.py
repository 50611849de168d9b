"""One walk down the tree along a pattern, and back up with what it changed.

Source: Khepri 0.16, ``khepri_tree:walk_down_the_tree/6``. It is followed step by step, since what a write
does where it meets many nodes depends on its order: below a wildcard for any depth (``**``), for one, Khepri
goes on from a child as it was before the write, so that its payload stays the old one where its children
change too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bridge.etf import Atom
from bridge.khepri.conditions import Condition
from bridge.khepri.memory.evaluate import is_recursive, unmet
from bridge.khepri.memory.keep_while import IMPLICIT, KeepWhiles, Pattern
from bridge.khepri.memory.nodes import Node
from bridge.khepri.memory.order import name_key
from bridge.khepri.paths import Name, NativePath, component_targets_specific_node


class Step(Enum):
    """What a visit can say instead of a new node."""

    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Interruption:
    """There is no such node, or it is not as demanded.

    Attributes:
        reason: ``node_not_found`` or ``mismatching_node``.
        path: of the node.
        condition: what was to be met; for a node that is not there ``None`` where a name alone stood.
        is_target: whether the pattern ends here.
    """

    reason: str
    path: NativePath
    condition: Condition | None
    is_target: bool


class TreeError(Exception):
    """The tree refuses a write or read of one node; nothing was changed.

    Attributes:
        reason: of ``docs/protocol.md`` §1.
        props: ``path``, and ``condition`` or ``because`` where there is one.
    """

    def __init__(self, reason: str, **props: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.props = props


Visit = Callable[[NativePath, Node | Interruption], Node | Step]
"""What is to be done at a node that matches, or where there is none: ``TreeError`` ends the walk."""
Found = Node | Step
"""a node, or ``Step.DELETE`` in its place"""
_Parents = tuple[Node, bool, Any] | None
"""the parent, whether the child is new to it, and its own parents"""


class Walk:
    """One walk.

    Args:
        keep_while: gets the conditions of parents that are made, which the caller takes back after a
            ``TreeError``.
        visit: called at every node that matches.
        one: whether the pattern stands for one node, whose absence is an interruption.
        include_root: whether a wildcard at the top matches the root too.

    Attributes:
        changed: nodes that were changed (as they are now) or deleted (``None``), by path; not new ones.
    """

    def __init__(
        self, keep_while: KeepWhiles, visit: Visit, *, one: bool = False, include_root: bool = False
    ) -> None:
        self._keep_while = keep_while
        self._visit = visit
        self._one = one
        self._include_root = include_root
        self.changed: dict[NativePath, Node | None] = {}
        self._changes = 0

    def run(self, root: Node, pattern: Pattern) -> Node:
        """The root as it is after the walk.

        Raises:
            TreeError: a visit refused.
        """
        found = self._down(root, pattern, (), None)
        if not isinstance(found, Node):
            raise TreeError("unknown", because="the root would go")
        return found

    def _down(self, node: Node, pattern: Pattern, path: NativePath, parents: _Parents) -> Found:
        while pattern:
            component, pattern = pattern[0], pattern[1:]
            is_name = isinstance(component, Atom | bytes)
            if not is_name and not self._one:
                return self._each(node, component, pattern, path, parents)
            name = component_targets_specific_node(component)
            if not isinstance(name, Atom | bytes):
                raise TreeError("invalid_path", path=[*path, component, *pattern])
            path, parents = (*path, name), (node, False, parents)
            child = node.children.get(name)
            condition = None if is_name else component
            if child is None:
                missing = Interruption("node_not_found", path, condition, not pattern)
                return self._interrupted(missing, pattern, path, parents)
            failed = None if condition is None else unmet(condition, name, child)
            if failed is not None:
                other = Interruption("mismatching_node", path, failed, not pattern)
                return self._interrupted(other, pattern, path, parents)
            node = child
        match self._visit(path, node):
            case Step.KEEP:
                return _start(node, parents)
            case changed:
                return self._up(changed, path, parents)

    def _interrupted(
        self, interruption: Interruption, pattern: Pattern, path: NativePath, parents: _Parents
    ) -> Found:
        made = self._visit(path, interruption)
        assert parents is not None
        if not isinstance(made, Node):
            return _start(parents[0], parents)
        if interruption.reason == "node_not_found":
            parents = (parents[0], True, parents[2])
        if not pattern:
            return self._up(made, path, parents)
        self._keep_while.set(path, {path: IMPLICIT})
        return self._down(made, pattern, path, parents)

    def _each(
        self, node: Node, condition: Condition, pattern: Pattern, path: NativePath, parents: _Parents
    ) -> Found:
        before = self._changes
        current: Found = node
        if not path and self._include_root:
            current = self._down(node, (), (), None)
        for name, child in sorted(node.children.items(), key=lambda item: name_key(item[0])):
            current = self._branch(current, name, child, condition, pattern, path)
        if current is node and self._changes == before:
            return _start(node, parents)
        # One write counts once, however many children it met.
        whole = current.squashed(node) if isinstance(current, Node) and current is not node else current
        return self._up(whole, path, parents)

    def _branch(
        self,
        current: Found,
        name: Name,
        child: Node,
        condition: Condition,
        pattern: Pattern,
        path: NativePath,
    ) -> Found:
        below = (*path, name)
        if unmet(condition, name, child) is None:
            current = self._down(child, pattern, below, (_alive(current), False, None))
        if isinstance(current, Node) and current.children.get(name) is not None and is_recursive(condition):
            current = self._down(child, (condition, *pattern), below, (current, False, None))
        return current

    def _up(self, found: Found, path: NativePath, parents: _Parents) -> Found:
        changed: dict[NativePath, Node | None] = {}
        while parents is not None:
            parent, is_new, parents = parents
            name = path[-1]
            if not isinstance(found, Node):
                changed[path] = None
                found = parent.without_child(name)
            elif is_new:
                found = parent.with_new_child(name, found)
            else:
                changed[path] = found
                path = path[:-1]
                found = parent.with_child(name, found)
                continue
            path = path[:-1]
            # A node that was made just now is not taken away at once.
            if not (parents is not None and parents[1]) and self._is_useless(path, found):
                found = Step.DELETE
        for where, node in changed.items():
            if node is None or self.changed.get(where, node) is not None:
                self.changed[where] = node
        self._changes += len(changed)
        return found

    def _is_useless(self, path: NativePath, node: Node) -> bool:
        """Whether a node whose list of children changed does not meet its condition on itself."""
        conditions: Mapping[Any, Condition] = self._keep_while.of(path) or {}
        return path in conditions and unmet(conditions[path], path[-1], node) is not None


def _start(node: Node, parents: _Parents) -> Node:
    """Where the walk began: nothing was changed on the way."""
    is_new = False
    while parents is not None:
        node, is_new, parents = parents
    if is_new:
        # Khepri's own code fails here: a pattern below a node of the top that is not there, to be written.
        raise TreeError("unknown", because="nothing is made at the top for a pattern")
    return node


def _alive(found: Found) -> Node:
    if not isinstance(found, Node):
        # Khepri's own code fails here, and the store's answer is that.
        raise TreeError("unknown", because="the node went while its children were written")
    return found

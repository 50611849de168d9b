"""Nodes of the tree, which never change: a write makes new ones up to the root.

Source: Khepri 0.16, ``khepri_tree`` ("Tree node functions").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bridge.etf import Atom
from bridge.khepri.memory.children import Children
from bridge.khepri.memory.order import name_key, same
from bridge.khepri.paths import Name


class Payload:
    """Data of a node, a term; none is ``None`` in place of this."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data


class Node:
    """One node.

    Attributes:
        payload: its data, or ``None``.
        payload_version: from 1, one more with every change of the payload.
        child_list_version: from 1, one more when a child appears or goes.
        children: by name.
    """

    __slots__ = ("child_list_version", "children", "payload", "payload_version")

    def __init__(
        self,
        payload: Payload | None = None,
        payload_version: int = 1,
        child_list_version: int = 1,
        children: Children[Node] | None = None,
    ) -> None:
        self.payload = payload
        self.payload_version = payload_version
        self.child_list_version = child_list_version
        self.children: Children[Node] = Children() if children is None else children

    def with_payload(self, payload: Payload | None) -> Node:
        """With this payload; the node itself if it has the same one."""
        mine = self.payload
        if mine is payload or (mine is not None and payload is not None and same(mine.data, payload.data)):
            return self
        return Node(payload, self.payload_version + 1, self.child_list_version, self.children)

    def with_new_child(self, name: Name, child: Node) -> Node:
        """With one child more; the child's versions begin anew."""
        fresh = Node(child.payload, 1, 1, child.children)
        children = self.children.put(name, fresh)
        return Node(self.payload, self.payload_version, self.child_list_version + 1, children)

    def with_child(self, name: Name, child: Node) -> Node:
        """With this child in the place of the one of its name."""
        if self.children.get(name) is child:
            return self
        children = self.children.put(name, child)
        return Node(self.payload, self.payload_version, self.child_list_version, children)

    def without_child(self, name: Name) -> Node:
        """Without the child of this name."""
        children = self.children.without(name)
        return Node(self.payload, self.payload_version, self.child_list_version + 1, children)

    def squashed(self, before: Node) -> Node:
        """With versions at most one above those that it had before: many changes of one write count once."""
        payload_version = min(self.payload_version, before.payload_version + 1)
        child_list_version = min(self.child_list_version, before.child_list_version + 1)
        return Node(self.payload, payload_version, child_list_version, self.children)


def properties(node: Node, wanted: Iterable[Atom]) -> dict[Atom, Any]:
    """The properties of a node as answers have them; those of it that it does not have are left out."""
    found: dict[Atom, Any] = {}
    for prop in wanted:
        match prop.text:
            case "payload_version":
                found[prop] = node.payload_version
            case "child_list_version":
                found[prop] = node.child_list_version
            case "child_list_length":
                found[prop] = len(node.children)
            case "child_names":
                found[prop] = sorted(node.children.names(), key=name_key)
            case "payload" if node.payload is not None:
                found[DATA] = node.payload.data
            case "has_payload" if node.payload is not None:
                found[_HAS_DATA] = True
    return found


DATA: Final = Atom("data")
_HAS_DATA: Final = Atom("has_data")

from __future__ import annotations

from bridge.etf import Atom
from bridge.khepri.memory.nodes import Node, Payload, properties
from bridge.khepri.memory.requests import ALL_PROPS


def test_the_same_data_leave_the_version_as_it_is() -> None:
    node = Node(Payload([1]))
    assert node.with_payload(Payload([1])) is node
    other = node.with_payload(Payload([1.0]))
    assert (other.payload_version, node.payload_version) == (2, 1)
    assert other.with_payload(None).payload_version == 3


def test_a_child_that_comes_or_goes_raises_the_version_of_the_list() -> None:
    node = Node().with_new_child(b"a", Node(Payload(1), 7, 7))
    child = node.children.get(b"a")
    assert child is not None
    assert (node.child_list_version, child.payload_version, child.child_list_version) == (2, 1, 1)
    assert node.with_child(b"a", child) is node
    assert node.with_child(b"a", Node()).child_list_version == 2
    assert node.without_child(b"a").child_list_version == 3


def test_many_changes_of_one_write_count_once() -> None:
    node = Node(Payload(1), 4, 5)
    squashed = Node(Payload(2), 9, 9).squashed(node)
    assert (squashed.payload_version, squashed.child_list_version) == (5, 6)
    assert Node(Payload(1), 4, 5).squashed(node).child_list_version == 5


def test_properties_are_told_where_a_node_has_them() -> None:
    node = Node(Payload(1)).with_new_child(b"b", Node()).with_new_child(Atom("a"), Node())
    assert {str(name): value for name, value in properties(node, ALL_PROPS).items()} == {
        "data": 1,
        "has_data": True,
        "payload_version": 1,
        "child_list_version": 3,
        "child_list_length": 2,
        "child_names": [Atom("a"), b"b"],
    }
    assert properties(Node(), [Atom("payload"), Atom("has_payload")]) == {}

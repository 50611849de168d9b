from __future__ import annotations

from typing import Any

import pytest

from bridge.khepri import (
    AllOf,
    AnyOf,
    ChildListLength,
    NameMatches,
    NodeExists,
    Not,
    PathMatches,
    PayloadVersion,
    Special,
)
from bridge.khepri.memory.nodes import Payload
from bridge.khepri.memory.tree import KeepWhile, Tree, Unmatched, absolute
from bridge.khepri.memory.walk import TreeError


def tree(*paths: bytes) -> Tree:
    made = Tree()
    for path in paths:
        made.put(tuple(path.split(b"/")), Payload(0), one=True)
    return made


def paths(made: Tree) -> set[bytes]:
    return {b"/".join(map(bytes, path)) for path in made.find((PathMatches(),))}  # type: ignore[arg-type]


def test_parents_made_on_the_way_go_with_their_last_child() -> None:
    made = tree(b"a/b/c", b"a/d")
    made.delete((b"a", b"b", b"c"))
    assert paths(made) == {b"a", b"a/d"}
    made.delete((b"a", b"d"))
    assert paths(made) == set()


def test_a_parent_with_data_of_its_own_stays() -> None:
    made = tree(b"a/b/c", b"a/b")
    made.delete((b"a", b"b", b"c"))
    assert paths(made) == {b"a", b"a/b"}
    made.put((b"a", b"b"), None, one=True)
    assert paths(made) == set()


def test_a_node_goes_with_what_keeps_it_and_takes_others_along() -> None:
    made = tree(b"host")
    made.put((b"guest",), Payload(1), keep_while={(b"host",): NodeExists()}, one=True)
    made.put((b"lodger",), Payload(1), keep_while={(Special.PARENT, b"guest"): NodeExists()}, one=True)
    _, changes = made.delete((b"host",))
    assert paths(made) == set()
    assert [change.path for change in changes] == [(b"guest",), (b"host",), (b"lodger",)]


def test_a_long_chain_of_nodes_that_keep_each_other_goes_at_once() -> None:
    made = tree(b"0")
    for number in range(1, 3_000):
        kept: KeepWhile = {(f"{number - 1}".encode(),): NodeExists()}
        made.put((f"{number}".encode(),), Payload(0), keep_while=kept, one=True)
    made.delete((b"0",))
    assert paths(made) == set()


def test_conditions_of_a_node_that_went_with_its_parent_hold_for_a_later_one() -> None:
    """As in Khepri 0.16, which forgets only those of the node that was deleted itself."""
    made = tree(b"host")
    made.put((b"p", b"guest"), Payload(1), keep_while={(b"host",): NodeExists()}, one=True)
    made.delete((b"p",))
    made.put((b"p", b"guest"), Payload(2), one=True)
    made.delete((b"host",))
    assert paths(made) == set()


def test_a_condition_that_does_not_hold_refuses_the_write() -> None:
    made = tree(b"host")
    for watched, because in [
        ((b"missing",), Unmatched((b"missing",))),
        ((b"host",), PayloadVersion("gt", 1)),
    ]:
        with pytest.raises(TreeError, match="keep_while_conditions_not_met") as caught:
            made.put((b"new", b"guest"), Payload(1), keep_while={watched: PayloadVersion("gt", 1)}, one=True)
        assert caught.value.props == {"path": (b"new", b"guest"), "because": because}
    assert paths(made) == {b"host"}
    assert list(made.keep_while.items()) == []


def test_a_node_that_is_not_as_demanded_refuses_the_write() -> None:
    made = tree(b"a")
    with pytest.raises(TreeError, match="mismatching_node") as caught:
        made.put((AllOf(b"a", NodeExists(False)),), Payload(1), one=True)
    assert caught.value.props == {"path": (b"a",), "condition": NodeExists(False)}
    with pytest.raises(TreeError, match="node_not_found"):
        made.put((AllOf(b"b", NodeExists()),), Payload(1), one=True)


def test_what_deletes_a_node_while_its_children_are_deleted_fails_as_in_khepri() -> None:
    made = tree(b"p/a", b"p/b", b"p/c")
    kept: KeepWhile = {(Special.THIS,): ChildListLength("gt", 2)}
    made.put((b"p",), Payload(1), keep_while=kept, one=True)
    with pytest.raises(TreeError, match="unknown"):
        made.delete((b"p", NameMatches()))
    assert paths(made) == {b"p", b"p/a", b"p/b", b"p/c"}


def test_a_pattern_for_any_depth_leaves_the_payload_of_those_above_what_it_changes() -> None:
    """As in Khepri 0.16: see ``bridge.khepri.memory.walk``."""
    made = tree(b"a/b", b"a/b/c")
    made.put((b"a", PathMatches()), Payload(1))
    data = {
        path: None if node.payload is None else node.payload.data
        for path, node in made.find((b"a", PathMatches())).items()
    }
    assert data == {(b"a", b"b"): 0, (b"a", b"b", b"c"): 1}


def test_changes_tell_both_sides_and_what_was_below_first() -> None:
    made = tree(b"a", b"a/b/c")
    _, changes = made.delete((b"a",))
    assert [(change.path, change.before is None, change.after is None) for change in changes] == [
        ((b"a", b"b"), False, True),
        ((b"a", b"b", b"c"), False, True),
        ((b"a",), False, True),
    ]


def test_conditions_on_relative_paths_come_in_the_order_of_terms() -> None:
    kept: Any = {(Special.THIS, b"z"): NodeExists(), (Special.PARENT, b"b"): Not(AnyOf())}
    assert list(absolute(kept, (b"p", b"a"))) == [(b"p", b"a", b"z"), (b"p", b"b")]


def test_of_two_paths_to_one_node_the_absolute_one_holds() -> None:
    kept: KeepWhile = {(b"p",): Not(AnyOf()), (Special.THIS,): NodeExists()}
    assert absolute(kept, (b"p",)) == {(b"p",): Not(AnyOf())}


def test_ten_thousand_children_and_guests_cost_what_they_are() -> None:
    """Not their square: each of these steps would take minutes."""
    made = tree(b"host")
    for number in range(10_000):
        name = f"{number}".encode()
        made.put((b"p", name), Payload(number), keep_while={(b"host",): NodeExists()}, one=True)
    made.put((b"p", NameMatches()), Payload(0))
    made.delete((b"host",))
    assert paths(made) == set()

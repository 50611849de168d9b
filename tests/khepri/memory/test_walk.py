from __future__ import annotations

import pytest

from bridge.khepri import AllOf, HasData, NameMatches, NodeExists, PathMatches
from bridge.khepri.memory.keep_while import IMPLICIT, KeepWhiles, Pattern
from bridge.khepri.memory.nodes import Node, Payload
from bridge.khepri.memory.walk import Interruption, Step, TreeError, Walk
from bridge.khepri.paths import NativePath

ROOT = Node().with_new_child(
    b"a", Node(Payload(1)).with_new_child(b"b", Node(Payload(2))).with_new_child(b"c", Node())
)


def visited(
    pattern: Pattern, *, one: bool = False, include_root: bool = False
) -> list[tuple[NativePath, Node | Interruption]]:
    found: list[tuple[NativePath, Node | Interruption]] = []

    def visit(path: NativePath, node: Node | Interruption) -> Step:
        found.append((path, node))
        return Step.KEEP

    walk = Walk(KeepWhiles(), visit, one=one, include_root=include_root)
    assert walk.run(ROOT, pattern) is ROOT
    assert walk.changed == {}
    return found


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ((), [()]),
        ((b"a", b"b"), [(b"a", b"b")]),
        ((b"a", NameMatches()), [(b"a", b"b"), (b"a", b"c")]),
        ((PathMatches(),), [(b"a",), (b"a", b"b"), (b"a", b"c")]),
        ((PathMatches(), HasData()), [(b"a", b"b")]),
        ((NameMatches("^x"),), []),
    ],
)
def test_every_node_that_matches_is_visited(pattern: Pattern, paths: list[NativePath]) -> None:
    assert [path for path, _ in visited(pattern)] == paths


def test_a_wildcard_at_the_top_may_match_the_root() -> None:
    assert [path for path, _ in visited((NameMatches(),), include_root=True)] == [(), (b"a",)]


def test_what_is_missing_or_different_is_told_where_one_node_is_meant() -> None:
    assert visited((b"a", b"x", b"y"), one=True) == [
        ((b"a", b"x"), Interruption("node_not_found", (b"a", b"x"), None, False))
    ]
    demanded = AllOf(b"c", HasData())
    assert visited((b"a", demanded), one=True) == [
        ((b"a", b"c"), Interruption("mismatching_node", (b"a", b"c"), HasData(), True))
    ]


def test_a_pattern_that_may_match_many_stands_for_no_one_node() -> None:
    with pytest.raises(TreeError, match="invalid_path"):
        visited((b"a", NodeExists()), one=True)


def test_parents_that_are_made_watch_themselves() -> None:
    keep_whiles = KeepWhiles()

    def visit(path: NativePath, node: Node | Interruption) -> Node:
        return Node(Payload(1) if len(path) == 3 else None)

    walk = Walk(keep_whiles, visit, one=True)
    root = walk.run(Node(), (b"x", b"y", b"z"))
    assert len(root.children) == 1
    assert dict(keep_whiles.items()) == {
        (b"x",): {(b"x",): IMPLICIT},
        (b"x", b"y"): {(b"x", b"y"): IMPLICIT},
    }
    assert walk.changed == {}


def test_a_parent_that_is_kept_no_longer_goes_with_its_last_child() -> None:
    keep_whiles = KeepWhiles()
    keep_whiles.set((b"x",), {(b"x",): IMPLICIT})
    root = Node().with_new_child(b"x", Node().with_new_child(b"y", Node(Payload(1))))
    walk = Walk(keep_whiles, lambda *_: Step.DELETE)
    assert len(walk.run(root, (b"x", b"y")).children) == 0
    assert walk.changed == {(b"x", b"y"): None, (b"x",): None}

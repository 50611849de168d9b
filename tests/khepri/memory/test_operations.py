from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bridge.etf import Atom
from bridge.khepri.memory.operations import checked, run
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.memory.tree import Tree

OK = Atom("ok")
DATA = Atom("data")


def operation(name: str, *arguments: Any) -> tuple[Any, ...]:
    return (Atom(name), *arguments)


def ran(tree: Tree, *operations: Any) -> list[Any]:
    results, _ = run(tree, checked(list(operations)))
    return [
        {tuple(key) if isinstance(key, list) else key: value for key, value in result.items()}
        if isinstance(result, Mapping)
        else result
        for result in results
    ]


def refused(tree: Tree, *operations: Any) -> tuple[str, Any]:
    before = tree.root
    with pytest.raises(RefusedError) as caught:
        ran(tree, *operations)
    assert tree.root is before
    return caught.value.reason, caught.value.props.get("index")


def test_operations_run_in_order_and_see_each_other() -> None:
    assert ran(
        Tree(),
        operation("put", b"/a/b", 1),
        operation("compare_and_swap", b"/a/b", 1, 2),
        operation("get", b"/a/b"),
        operation("get", b"/a"),
        operation("get_many", b"/**"),
        operation("count", b"/**"),
        operation("has_data", b"/a"),
        operation("is_sproc", b"/a/b"),
        operation("clear_payload", b"/missing"),
        operation("delete_many", b"/a/*"),
        operation("exists", b"/a"),
        operation("is_empty"),
    ) == [
        OK,
        OK,
        {DATA: 2},
        {},
        {(b"a",): {}, (b"a", b"b"): {DATA: 2}},
        2,
        False,
        False,
        OK,
        OK,
        False,
        True,
    ]


def test_one_that_fails_undoes_those_before_it() -> None:
    tree = Tree()
    ran(tree, operation("put", b"/a", 1))
    put = operation("put", b"/x/y", 1)
    assert refused(tree, put, operation("abort", b"why")) == ("aborted", 1)
    assert refused(tree, put, operation("create", b"/a", 1)) == ("mismatching_node", 1)
    assert refused(tree, put, operation("update", b"/b", 1)) == ("node_not_found", 1)
    assert refused(tree, put, operation("compare_and_swap", b"/a", 1.0, 2)) == ("mismatching_node", 1)
    assert refused(tree, put, operation("get", b"/b")) == ("node_not_found", 1)
    assert list(tree.keep_while.items()) == []


def test_an_adv_write_tells_the_old_payload_and_the_new_versions() -> None:
    told = ran(
        Tree(),
        operation("adv", operation("put", b"/a", 1)),
        operation("adv", operation("put", b"/a", 2)),
        operation("adv", operation("delete", b"/a")),
        operation("adv", operation("clear_payload", b"/a")),
    )
    versions = [[(props.get(DATA), props[Atom("payload_version")]) for props in one.values()] for one in told]
    assert versions == [[(None, 1)], [(1, 2)], [(2, 2)], []]


def test_put_many_with_conditions_gives_them_to_every_node() -> None:
    tree = Tree()
    ran(tree, *(operation("put", path, 1) for path in (b"/a/b", b"/a/c", b"/host")))
    kept = {Atom("keep_while"): {b"/host": (Atom("if_node_exists"), True)}}
    ran(tree, operation("put_many", b"/a/*", 2, kept), operation("put_many", b"/d", 2, kept))
    assert ran(tree, operation("delete", b"/host"), operation("count", b"/**")) == [OK, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        operation("unheard_of", b"/a"),
        operation("put", b"/a"),
        operation("put", b"/a", 1, {}, 2),
        operation("adv", operation("exists", b"/a")),
        operation("adv", operation("adv", operation("get", b"/a"))),
        b"put",
        (),
    ],
)
def test_what_is_no_operation_is_refused(wrong: Any) -> None:
    assert refused(Tree(), operation("exists", b"/a"), wrong) == ("invalid_operation", 1)


@pytest.mark.parametrize("wrong", [[], Atom("a"), [operation("is_empty")] * 1_001])
def test_a_transaction_has_up_to_a_thousand_operations(wrong: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        checked(wrong)
    assert caught.value.reason == "invalid_operation"


def test_results_are_bounded() -> None:
    tree = Tree()
    ran(tree, operation("put", b"/a", bytes(600_000)))
    assert refused(tree, operation("get", b"/a"), operation("get", b"/a")) == ("too_large", None)

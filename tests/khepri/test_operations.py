from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import (
    Abort,
    Adv,
    AnyOf,
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Count,
    Create,
    DataMatches,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    HoldsData,
    IsEmpty,
    IsSproc,
    NameMatches,
    NodeExists,
    NodeProps,
    Operation,
    OperationIds,
    PoisonError,
    Put,
    PutMany,
    Special,
    Update,
)
from bridge.khepri.operations import MAX_OPERATIONS, operation_result, wire_operations
from tests.support.terms import terms

KEPT = {"/:b": NodeExists(), (Special.PARENT, "c"): NodeExists(False)}
KEPT_TERM = {
    Atom("keep_while"): ErlangMap(
        [(b"/:b", (Atom("if_node_exists"), True)), ([94, b"c"], (Atom("if_node_exists"), False))]
    )
}
OPERATIONS: list[Operation] = [
    Put("/:a", 1),
    PutMany("/:a/*", 1),
    Create("/:a", 1),
    Update("/:a", 1),
    CompareAndSwap("/:a", 1, 2),
    Delete("/:a"),
    DeleteMany("/:a/*"),
    ClearPayload("/:a"),
    ClearManyPayloads("/:a/*"),
    Get("/:a"),
    GetMany("/:a/*"),
    Exists("/:a"),
    HoldsData("/:a"),
    IsSproc("/:a"),
    Count("/:a/*"),
    IsEmpty(),
    Adv(Get("/:a")),
    Abort(Atom("enough")),
]


@pytest.mark.parametrize(
    ("operation", "term"),
    [
        (Put("/:a", 1), (Atom("put"), b"/:a", 1)),
        (Put("/:a", 1, KEPT), (Atom("put"), b"/:a", 1, KEPT_TERM)),
        (PutMany("/:a/*", 1), (Atom("put_many"), b"/:a/*", 1)),
        (PutMany("/:a/*", 1, KEPT), (Atom("put_many"), b"/:a/*", 1, KEPT_TERM)),
        (Create([Atom("a")], 1), (Atom("create"), [Atom("a")], 1)),
        (Create([Atom("a")], 1, KEPT), (Atom("create"), [Atom("a")], 1, KEPT_TERM)),
        (Update("/:a", 1), (Atom("update"), b"/:a", 1)),
        (Update("/:a", 1, KEPT), (Atom("update"), b"/:a", 1, KEPT_TERM)),
        (CompareAndSwap("/:a", 1, 2), (Atom("compare_and_swap"), b"/:a", 1, 2)),
        (CompareAndSwap("/:a", 1, 2, KEPT), (Atom("compare_and_swap"), b"/:a", 1, 2, KEPT_TERM)),
        (Delete("/:a"), (Atom("delete"), b"/:a")),
        (
            DeleteMany(["a", NameMatches()]),
            (Atom("delete_many"), [b"a", (Atom("if_name_matches"), Atom("any"), Atom("undefined"))]),
        ),
        (ClearPayload("/:a"), (Atom("clear_payload"), b"/:a")),
        (ClearManyPayloads("/:a"), (Atom("clear_many_payloads"), b"/:a")),
        (Get("/:a"), (Atom("get"), b"/:a")),
        (GetMany("/:a/*"), (Atom("get_many"), b"/:a/*")),
        (Exists("/:a"), (Atom("exists"), b"/:a")),
        (HoldsData("/:a"), (Atom("has_data"), b"/:a")),
        (IsSproc("/:a"), (Atom("is_sproc"), b"/:a")),
        (Count("/:a/*"), (Atom("count"), b"/:a/*")),
        (IsEmpty(), (Atom("is_empty"),)),
        (Adv(Get("/:a")), (Atom("adv"), (Atom("get"), b"/:a"))),
        (Abort(Atom("enough")), (Atom("abort"), Atom("enough"))),
    ],
)
def test_an_operation_has_the_shape_of_the_protocol(operation: Operation, term: object) -> None:
    assert wire_operations([operation]) == [term]


def test_no_operation_is_left_out() -> None:
    assert {type(operation) for operation in OPERATIONS} == set(Operation.__args__)


@pytest.mark.parametrize(
    ("operation", "term", "result"),
    [
        (Put("/:a", 1), Atom("ok"), None),
        (Get("/:a"), {Atom("data"): 3}, 3),
        (Get("/:a"), {}, None),
        (
            GetMany("/:a"),
            ErlangMap([([Atom("a")], {Atom("data"): 3}), ([b"b"], {})]),
            {(Atom("a"),): 3, (b"b",): None},
        ),
        (Exists("/:a"), True, True),
        (IsEmpty(), False, False),
        (Count("/:a"), 3, 3),
        (
            Adv(Put("/:a", 1)),
            ErlangMap([([Atom("a")], {Atom("payload_version"): 3})]),
            {(Atom("a"),): NodeProps(payload_version=3)},
        ),
    ],
)
def test_a_result_is_that_of_its_operation(operation: Operation, term: Any, result: Any) -> None:
    assert operation_result(operation, term) == result


@pytest.mark.parametrize(
    ("operation", "term"),
    [
        (Put("/:a", 1), {}),
        (Get("/:a"), Atom("ok")),
        (Exists("/:a"), 1),
        (Count("/:a"), True),
        (Adv(Get("/:a")), 7),
        (Abort(1), Atom("ok")),
    ],
)
def test_a_result_of_another_operation_breaks_the_protocol(operation: Operation, term: Any) -> None:
    with pytest.raises(ProtocolError):
        operation_result(operation, term)


@given(st.sampled_from(OPERATIONS), terms)
def test_any_term_is_a_result_or_breaks_the_protocol(operation: Operation, term: Any) -> None:
    with contextlib.suppress(ProtocolError):
        operation_result(operation, term)


@pytest.mark.parametrize("inner", [Exists("/:a"), Abort(1), Adv(Get("/:a")), IsEmpty(), 7])
def test_properties_are_told_of_what_reads_or_writes_nodes(inner: Any) -> None:
    with pytest.raises(ConfigurationError, match="no operation"):
        wire_operations([Adv(inner)])


def test_a_keep_while_never_watches_data() -> None:
    with pytest.raises(PoisonError):
        wire_operations([Adv(Put("/:a", 1, {"/:b": AnyOf(NodeExists(), DataMatches(1))}))])


@pytest.mark.parametrize("count", [0, MAX_OPERATIONS + 1])
def test_a_transaction_is_neither_empty_nor_endless(count: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 1000"):
        wire_operations([Get("/:a")] * count)


def test_a_transaction_may_have_the_most_operations() -> None:
    assert len(wire_operations([Get("/:a")] * MAX_OPERATIONS)) == MAX_OPERATIONS


def test_an_id_names_client_incarnation_and_sequence() -> None:
    assert OperationIds("sim1", 7).open().term() == (b"sim1", 7, 1, 0)


@pytest.mark.parametrize("name", ["", "x" * 256, "ö" * 128])
def test_a_client_name_fits_255_bytes(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 255 bytes"):
        OperationIds(name, 1)


@given(st.lists(st.integers(0, 9)))
def test_the_low_water_mark_never_passes_an_id_whose_answer_is_due(closings: list[int]) -> None:
    ids = OperationIds("sim1", 1)
    due = []
    for choice in closings:
        made = ids.open()
        due.append(made)
        assert made.low_water == min(operation.sequence for operation in due) - 1
        assert made.low_water < made.sequence
        if choice < len(due):
            closed = due.pop(choice)
            ids.close(closed)
            ids.close(closed)


def test_sequences_rise_and_are_never_used_again() -> None:
    ids = OperationIds("sim1", 1)
    sequences = []
    for _ in range(5):
        made = ids.open()
        sequences.append(made.sequence)
        ids.close(made)
    assert sequences == [1, 2, 3, 4, 5]

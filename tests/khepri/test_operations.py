import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import (
    Abort,
    CompareAndSwap,
    Create,
    Delete,
    Exists,
    Get,
    Operation,
    OperationIds,
    Put,
    Update,
)
from bridge.khepri.operations import MAX_OPERATIONS, wire_operations

CONDITION = (Atom("if_node_exists"), True)


@pytest.mark.parametrize(
    ("operation", "term"),
    [
        (Put("/:a", 1), (Atom("put"), b"/:a", 1)),
        (
            Put("/:a", 1, {"/:b": CONDITION}),
            (Atom("put"), b"/:a", 1, {Atom("keep_while"): {b"/:b": CONDITION}}),
        ),
        (Create([Atom("a")], 1), (Atom("create"), [Atom("a")], 1)),
        (Update("/:a", 1), (Atom("update"), b"/:a", 1)),
        (CompareAndSwap("/:a", 1, 2), (Atom("compare_and_swap"), b"/:a", 1, 2)),
        (Delete("/:a"), (Atom("delete"), b"/:a")),
        (Get("/:a"), (Atom("get"), b"/:a")),
        (Exists("/:a"), (Atom("exists"), b"/:a")),
        (Abort(Atom("enough")), (Atom("abort"), Atom("enough"))),
    ],
)
def test_an_operation_has_the_shape_of_the_protocol(operation: Operation, term: object) -> None:
    assert wire_operations([operation]) == [term]


def test_a_keep_while_watches_a_path() -> None:
    with pytest.raises(ConfigurationError, match="no absolute path"):
        wire_operations([Put("/:a", 1, {"b": CONDITION})])


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

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import (
    Abort,
    Adv,
    AllOf,
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Count,
    Create,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    HasData,
    HoldsData,
    InvalidRequestError,
    IsEmpty,
    IsSproc,
    KeepWhileConditionsNotMetError,
    Khepri,
    MismatchingNodeError,
    NodeExists,
    NodeNotFoundError,
    NodeProps,
    Operation,
    OperationId,
    OtherPurposeError,
    Put,
    PutMany,
    TransactionAbortedError,
    UnknownOutcomeError,
    Update,
    native_path,
)
from bridge.node import HiddenNode
from tests.support.cluster import erlang, fresh
from tests.support.scripted_caller import ScriptedCaller, ok

EXISTS = NodeExists()


async def test_each_operation_has_its_own_result() -> None:
    answer = [
        Atom("ok"),
        {Atom("data"): 1},
        ErlangMap([([Atom("a")], {})]),
        1,
        ErlangMap([([Atom("a")], {Atom("payload_version"): 2})]),
    ]
    store = Khepri(ScriptedCaller(ok(answer)))
    operations: list[Operation] = [Put("/:a", 1), Get("/:a"), GetMany("/*"), Count("/*"), Adv(Put("/:a", 2))]
    assert await store.transaction(operations) == [
        None,
        1,
        {(Atom("a"),): None},
        1,
        {(Atom("a"),): NodeProps(payload_version=2)},
    ]


@pytest.mark.parametrize("answer", [[], [Atom("ok")] * 3, Atom("ok"), [Atom("ok"), Atom("ok")]])
async def test_results_that_do_not_fit_break_the_protocol(answer: Any) -> None:
    with pytest.raises(ProtocolError):
        await Khepri(ScriptedCaller(ok(answer))).transaction([Put("/:a", 1), Get("/:a")])


@erlang
async def test_a_transaction_answers_each_operation_in_order(store: Khepri, root: str) -> None:
    results = await store.transaction(
        [
            Exists(f"{root}/a"),
            Create(f"{root}/a", 1),
            Update(f"{root}/a", 2),
            CompareAndSwap(f"{root}/a", 2, 3),
            Get(f"{root}/a"),
            Exists(f"{root}/a"),
            Put(f"{root}/b/c", 1),
            Get(f"{root}/b"),
            Delete(f"{root}/a"),
        ]
    )
    assert results == [False, None, None, None, 3, True, None, None, None]


@erlang
@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (lambda root: Create(f"{root}/a", 9), MismatchingNodeError),
        (lambda root: Update(f"{root}/missing", 9), NodeNotFoundError),
        (lambda root: CompareAndSwap(f"{root}/a", 7, 9), MismatchingNodeError),
        (lambda root: CompareAndSwap(f"{root}/missing", 7, 9), NodeNotFoundError),
        (lambda root: Get(f"{root}/missing"), NodeNotFoundError),
        (lambda root: Abort((Atom("enough"), 3)), TransactionAbortedError),
        (
            lambda root: Put(f"{root}/kept", 1, {f"{root}/missing": EXISTS}),
            KeepWhileConditionsNotMetError,
        ),
    ],
    ids=["create", "update", "swap", "swap-missing", "get", "abort", "keep-while"],
)
async def test_a_failing_operation_undoes_the_ones_before_it(
    store: Khepri, root: str, failing: object, error: type[Exception]
) -> None:
    assert callable(failing)
    await store.put(f"{root}/a", 1)
    with pytest.raises(error) as caught:
        await store.transaction([Put(f"{root}/a", 2), Put(f"{root}/new", 1), failing(root)])
    assert isinstance(caught.value, TransactionAbortedError | error)
    assert getattr(caught.value, "props", {})["index"] == 2
    assert await store.get(f"{root}/a", favor="consistency") == 1
    with pytest.raises(NodeNotFoundError):
        await store.get(f"{root}/new", favor="consistency")


@erlang
async def test_an_abort_brings_its_reason_back(store: Khepri) -> None:
    with pytest.raises(TransactionAbortedError) as caught:
        await store.transaction([Abort((Atom("enough"), 3))])
    assert caught.value.props["reason"] == (Atom("enough"), 3)


@erlang
async def test_an_underscore_in_compare_and_swap_is_data_and_no_wildcard(store: Khepri, root: str) -> None:
    await store.put(f"{root}/a", 1)
    with pytest.raises(MismatchingNodeError):
        await store.transaction([CompareAndSwap(f"{root}/a", Atom("_"), 2)])


@erlang
async def test_the_same_operation_id_sent_twice_is_applied_once(
    node: HiddenNode, cluster: LocalCluster, store: Khepri, root: str
) -> None:
    operation = store.new_operation()
    first = await store.transaction(
        [Create(f"{root}/once", 1), Exists(f"{root}/once")], operation_id=operation
    )
    async with Khepri.connect(node, cluster.members[2], store=cluster.store) as elsewhere:
        again = await elsewhere.transaction(
            [Create(f"{root}/once", 1), Exists(f"{root}/once")], operation_id=operation
        )
    assert first == again == [None, True]


@erlang
async def test_a_refusal_is_repeated_as_it_was_told(store: Khepri, root: str) -> None:
    operation = store.new_operation()
    for _ in range(2):
        with pytest.raises(NodeNotFoundError):
            await store.transaction([Update(f"{root}/late", 1)], operation_id=operation)
        # What would succeed by now must not: the caller was told that it had failed.
        await store.put(f"{root}/late", 0)
    assert await store.get(f"{root}/late", favor="consistency") == 0


@erlang
async def test_an_id_below_the_low_water_mark_is_refused_as_unknown(store: Khepri, root: str) -> None:
    old = store.new_operation()
    await store.transaction([Put(f"{root}/a", 1)], operation_id=old)
    store.forget_operation(old)
    await store.put_once(f"{root}/a", 2)
    with pytest.raises(UnknownOutcomeError):
        await store.transaction([Put(f"{root}/a", 1)], operation_id=old)
    assert await store.get(f"{root}/a", favor="consistency") == 2


@erlang
async def test_an_id_of_an_earlier_start_is_refused_as_unknown(store: Khepri, root: str) -> None:
    client = fresh("restarted").encode()
    await store.transaction([Put(f"{root}/a", 1)], operation_id=OperationId(client, 2, 1, 0))
    with pytest.raises(UnknownOutcomeError):
        await store.transaction([Put(f"{root}/a", 2)], operation_id=OperationId(client, 1, 1, 0))


@erlang
async def test_ids_of_another_purpose_do_nothing(store: Khepri, root: str) -> None:
    def put(value: int, purpose: bytes | None, sequence: int) -> Awaitable[Any]:
        operation_id = OperationId(client, 1, sequence, 0, purpose)
        return store.transaction([Put(f"{root}/a", value)], operation_id=operation_id)

    client = fresh("purposeful").encode()
    await put(1, b"one", 1)
    for sequence in (1, 2):
        with pytest.raises(OtherPurposeError):
            await put(2, b"another", sequence)
    await put(1, b"one", 1)
    assert await store.get(f"{root}/a", favor="consistency") == 1
    await put(3, None, 2)
    assert await store.get(f"{root}/a", favor="consistency") == 3


@erlang
async def test_every_operation_sees_what_the_ones_before_it_did(store: Khepri, root: str) -> None:
    base = native_path(root)
    await store.put(f"{root}-beside", 0)  # what is deleted in the end must not be all there is
    operations: list[Operation] = [
        PutMany(f"{root}/a", 1),
        Create(f"{root}/b", 2),
        PutMany(f"{root}/*", 3),
        GetMany(f"{root}/*"),
        ClearPayload(f"{root}/a"),
        HoldsData(f"{root}/a"),
        HoldsData(f"{root}/b"),
        IsSproc(f"{root}/b"),
        ClearPayload(f"{root}/missing"),
        Exists(f"{root}/missing"),
        ClearManyPayloads(f"{root}/*"),
        GetMany(f"{root}/*"),
        Count(f"{root}/*"),
        DeleteMany(f"{root}/*"),
        Count(f"{root}/*"),
        IsEmpty(),
    ]
    results = await store.transaction(operations)
    assert [result for operation, result in zip(operations, results, strict=True) if result is not None] == [
        {(*base, b"a"): 3, (*base, b"b"): 3},
        False,
        True,
        False,
        False,
        {(*base, b"a"): None, (*base, b"b"): None},
        2,
        0,
        False,
    ]


@erlang
async def test_properties_are_told_inside_a_transaction_too(store: Khepri, root: str) -> None:
    native = native_path(f"{root}/a")
    results = await store.transaction(
        [
            Adv(Create(f"{root}/a", 1)),
            Adv(Put(f"{root}/a", 2)),
            Adv(CompareAndSwap(f"{root}/a", 2, 3)),
            Adv(Get(f"{root}/a")),
            Adv(GetMany(f"{root}/*")),
            Adv(Delete(f"{root}/a")),
        ]
    )
    told = [(props.get(native) or NodeProps()) for props in results]
    assert [(props.data, props.payload_version) for props in told] == [
        (None, 1),
        (1, 2),
        (2, 3),
        (3, 3),
        (3, 3),
        (3, 3),
    ]
    assert told[3].child_names == ()
    assert told[3].has_data is True


@erlang
async def test_an_operation_may_demand_more_of_its_node(store: Khepri, root: str) -> None:
    await store.put(f"{root}/a", 1)
    base = native_path(root)
    await store.transaction([Put([*base, AllOf("a", HasData())], 2)])
    with pytest.raises(MismatchingNodeError):
        await store.transaction([Put([*base, AllOf("a", HasData(False))], 3)])
    with pytest.raises(InvalidRequestError):
        await store.transaction([Put(f"{root}/*", 3)])
    assert await store.get(f"{root}/a", favor="consistency") == 2

"""The client against a real cluster: what is told is true, and what is repeated is applied once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bridge.errors import DeadlineError, OutcomeUnknownError
from bridge.etf import Atom, ExportFun
from bridge.homeserver.local import LocalCluster
from bridge.khepri import (
    Abort,
    AnyOf,
    AtomBudgetError,
    CompareAndSwap,
    Create,
    DataMatches,
    Delete,
    Exists,
    Get,
    InvalidRequestError,
    KeepWhileConditionsNotMetError,
    Khepri,
    KhepriConfig,
    MismatchingNodeError,
    NodeExists,
    NodeNotFoundError,
    Not,
    OperationId,
    PoisonError,
    Put,
    ReservedPathError,
    TooLargeError,
    TransactionAbortedError,
    UnknownOutcomeError,
    Update,
)
from bridge.node import Gateway, HiddenNode
from tests.support.cluster import fresh, hidden_node, local_cluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

WRITERS = 16
EXISTS = NodeExists()


async def test_what_was_put_is_read_through_every_member(
    node: HiddenNode, cluster: LocalCluster, store: Khepri, root: str
) -> None:
    await store.put(f"{root}/wood", {Atom("oak"): 3, b"pine": [1.5, (Atom("undefined"),)]})
    for member in cluster.members:
        async with Khepri.connect(node, member, store=cluster.store) as one:
            read = await one.get(f"{root}/wood", favor="consistency")
            assert read == {Atom("oak"): 3, b"pine": [1.5, (Atom("undefined"),)]}


async def test_a_node_without_data_reads_as_none_and_a_missing_one_is_an_error(
    store: Khepri, root: str
) -> None:
    await store.put(f"{root}/wood/oak", 1)
    assert await store.get(f"{root}/wood", favor="consistency") is None
    with pytest.raises(NodeNotFoundError):
        await store.get(f"{root}/stone", favor="consistency")


async def test_a_pattern_reads_many_nodes_by_native_path(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/:a", 1), Put(f"{root}/b", 2), Put(f"{root}/b/deep", 3)])
    found = await store.get_many(f"{root}/**", favor="consistency")
    assert {path[2:]: data for path, data in found.items()} == {
        (Atom("a"),): 1,
        (b"b",): 2,
        (b"b", b"deep"): 3,
    }
    assert len(await store.get_many(f"{root}/*", favor="consistency")) == 2


async def test_deleting_takes_what_is_below_along_and_may_be_repeated(store: Khepri, root: str) -> None:
    await store.put(f"{root}/wood/oak", 1)
    await store.delete(f"{root}/wood")
    await store.delete(f"{root}/wood")
    assert await store.get_many(f"{root}/wood/**", favor="consistency") == {}


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


async def test_an_abort_brings_its_reason_back(store: Khepri) -> None:
    with pytest.raises(TransactionAbortedError) as caught:
        await store.transaction([Abort((Atom("enough"), 3))])
    assert caught.value.props["reason"] == (Atom("enough"), 3)


async def test_an_underscore_in_compare_and_swap_is_data_and_no_wildcard(store: Khepri, root: str) -> None:
    await store.put(f"{root}/a", 1)
    with pytest.raises(MismatchingNodeError):
        await store.transaction([CompareAndSwap(f"{root}/a", Atom("_"), 2)])


async def test_a_node_goes_with_what_keeps_it(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/host", 1), Put(f"{root}/guest", 2, {f"{root}/host": EXISTS})])
    await store.delete(f"{root}/host")
    with pytest.raises(NodeNotFoundError):
        await store.get(f"{root}/guest", favor="consistency")


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


async def test_a_refusal_is_repeated_as_it_was_told(store: Khepri, root: str) -> None:
    operation = store.new_operation()
    for _ in range(2):
        with pytest.raises(NodeNotFoundError):
            await store.transaction([Update(f"{root}/late", 1)], operation_id=operation)
        # What would succeed by now must not: the caller was told that it had failed.
        await store.put(f"{root}/late", 0)
    assert await store.get(f"{root}/late", favor="consistency") == 0


async def test_an_id_below_the_low_water_mark_is_refused_as_unknown(store: Khepri, root: str) -> None:
    old = store.new_operation()
    await store.transaction([Put(f"{root}/a", 1)], operation_id=old)
    store.forget_operation(old)
    await store.put_once(f"{root}/a", 2)
    with pytest.raises(UnknownOutcomeError):
        await store.transaction([Put(f"{root}/a", 1)], operation_id=old)
    assert await store.get(f"{root}/a", favor="consistency") == 2


async def test_an_id_of_an_earlier_start_is_refused_as_unknown(store: Khepri, root: str) -> None:
    client = fresh("restarted").encode()
    await store.transaction([Put(f"{root}/a", 1)], operation_id=OperationId(client, 2, 1, 0))
    with pytest.raises(UnknownOutcomeError):
        await store.transaction([Put(f"{root}/a", 2)], operation_id=OperationId(client, 1, 1, 0))


async def test_what_would_crash_the_store_is_refused_and_the_store_lives(store: Khepri, root: str) -> None:
    """A ``keep_while`` on data kills Khepri's state machine on every member at a later write."""
    poison = AnyOf(NodeExists(), Not(DataMatches()))
    await store.put(f"{root}/host", 1)
    with pytest.raises(PoisonError):
        await store.transaction([Put(f"{root}/guest", 1, {f"{root}/host": poison})])
    await store.put_once(f"{root}/host", 2)
    assert (await store.health())[Atom("running")] is True


@pytest.mark.parametrize("path", ["/:bridge/:grants", "/:bridge", "/:stock/../:bridge/:grants"])
async def test_below_the_bridges_own_tree_nobody_writes(store: Khepri, path: str) -> None:
    with pytest.raises(ReservedPathError):
        await store.put(path, 1)
    with pytest.raises(ReservedPathError):
        await store.delete(path)
    with pytest.raises(ReservedPathError):
        await store.transaction([Put(path, 1)])


@pytest.mark.parametrize("path", ["/", "/a/*/b", "/" + "/".join("a" * 65)])
async def test_a_write_names_one_node(store: Khepri, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        await store.put(path, 1)


async def test_data_beyond_the_limit_is_refused_before_the_log(store: Khepri, root: str) -> None:
    await store.put(f"{root}/large", bytes(1_000_000))
    with pytest.raises(TooLargeError):
        await store.put(f"{root}/large", bytes(1_100_000))
    with pytest.raises(TooLargeError):
        await store.transaction([Put(f"{root}/{i}", bytes(300_000)) for i in range(4)])


async def test_new_atoms_are_refused_once_half_of_the_atom_table_is_used() -> None:
    """Atoms are never collected, so paths from outside must not be able to end the virtual machine."""
    with local_cluster(nodes=1) as cluster:
        member = cluster.members[0]
        async with hidden_node(cluster) as node, Khepri.connect(node, member, store=cluster.store) as store:
            await store.put("/:known", 1)
            limit = await node.call(member, "erlang", "system_info", [Atom("atom_limit")])
            used = await node.call(member, "erlang", "system_info", [Atom("atom_count")])
            make = ExportFun(Atom("erlang"), Atom("binary_to_atom"), 1)
            for start in range(used, limit // 2 + 1, 50_000):
                names = [b"filler%d" % number for number in range(start, start + 50_000)]
                await node.call(member, "lists", "foreach", [make, names], timeout=20)
            with pytest.raises(AtomBudgetError):
                await store.put("/:never_seen_before", 1)
            await store.put("/:known/never_seen_before", 2)
            assert await store.get("/:known/never_seen_before") == 2


async def test_a_client_of_a_store_that_is_not_there_is_told_so_in_time(
    node: HiddenNode, cluster: LocalCluster
) -> None:
    config = KhepriConfig(timeout=0.3, attempt_timeout=0.1)
    async with Khepri.connect(node, cluster.members, store="elsewhere", config=config) as nowhere:
        async with asyncio.timeout(20):
            with pytest.raises(OutcomeUnknownError, match="store_not_running"):
                await nowhere.put_once("/:a", 1)


async def test_a_call_that_nobody_answers_ends_at_its_deadline(
    node: HiddenNode, cluster: LocalCluster
) -> None:
    """Khepri's own default is to wait for ever."""
    async with Gateway(node, ["nobody@127.0.0.1"]) as gateway, asyncio.timeout(20):
        store = Khepri.connect(node, gateway, store=cluster.store, config=KhepriConfig(timeout=0.2))
        with pytest.raises(Exception) as caught:
            await store.get("/:a")
        assert not isinstance(caught.value, OutcomeUnknownError), "a read has no outcome"
        assert isinstance(caught.value, DeadlineError) or "nobody" in str(caught.value)


async def test_two_clients_share_a_gateway_and_keep_it(node: HiddenNode, cluster: LocalCluster) -> None:
    async with Gateway(node, cluster.members) as gateway:
        async with Khepri.connect(node, gateway, store=cluster.store) as one:
            await one.health()
        async with Khepri.connect(node, gateway, store=cluster.store) as two:
            assert (await two.health())[Atom("node")] == Atom(gateway.current or "")


async def increment(store: Khepri, path: str) -> None:
    """Add one, by compare-and-swap."""
    while True:
        value = await store.get(path, favor="consistency")
        try:
            await store.transaction([CompareAndSwap(path, value, value + 1)], timeout=20)
        except MismatchingNodeError:
            continue
        return


async def test_a_member_killed_under_sixteen_writers_loses_nothing_and_doubles_nothing(
    own_cluster: LocalCluster,
) -> None:
    """0 lost acknowledged writes, 0 writes applied twice, and the writers go on at another member."""
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async with hidden_node(own_cluster) as node, Gateway(node, own_cluster.members) as gateway:
        victim = await gateway.connect(timeout=5)
        counters = [f"/:counters/:c{number}" for number in range(4)]
        added: Counter[str] = Counter()
        async with Khepri.connect(node, gateway, store=own_cluster.store) as store:
            await store.transaction([Put(path, 0) for path in counters])

            async def write(writer: int) -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    if number % 4 == 0:
                        counter = counters[writer % 4]
                        await increment(store, counter)
                        added[counter] += 1
                    else:
                        await store.put_once(f"/:writes/w{writer}-{number}", number, timeout=20)
                        acknowledged.append(f"w{writer}-{number}")

            async with asyncio.TaskGroup() as writers:
                for writer in range(WRITERS):
                    writers.create_task(write(writer))
                while len(acknowledged) < 200:
                    await asyncio.sleep(0.01)
                own_cluster.kill_node(victim)
                before = len(acknowledged)
                while len(acknowledged) < before + 200:
                    await asyncio.sleep(0.01)
                stop.set()
            assert gateway.current not in (None, victim)
            written = await store.get_many("/:writes/*", favor="consistency")
            assert {str(path[1], "utf-8") for path in written if isinstance(path[1], bytes)} == set(
                acknowledged
            )
            for path in counters:
                assert await store.get(path, favor="consistency") == added[path]

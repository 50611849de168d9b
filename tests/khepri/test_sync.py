"""The blocking client says and does what the asynchronous one does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import math
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_type

import pytest

from bridge.cluster.embedded import embedded_store
from bridge.cluster.local import LocalCluster
from bridge.errors import ClosedError, ConfigurationError, DeadlineError, HandshakeError, InvalidStateError
from bridge.etf import Atom
from bridge.khepri import (
    CompareAndSwap,
    Khepri,
    KhepriConfig,
    MismatchingNodeError,
    NativePath,
    NodeNotFoundError,
    NodeProps,
    OperationId,
    Outcome,
    Put,
    Snapshot,
    Updated,
    fun,
    path_text,
)
from bridge.khepri.adv import AdvCalls
from bridge.khepri.cluster import Cluster
from bridge.khepri.procedures import Procedures
from bridge.khepri.projections import Projections
from bridge.khepri.sync import (
    BlockingAdv,
    BlockingCluster,
    BlockingKhepri,
    BlockingProcedures,
    BlockingProjections,
    blocking,
    connect,
)
from bridge.node import NodeConfig
from tests.support.cluster import erlang, fresh
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

FAMILIES: list[tuple[type, type]] = [
    (Khepri, BlockingKhepri),
    (AdvCalls, BlockingAdv),
    (Procedures, BlockingProcedures),
    (Projections, BlockingProjections),
    (Cluster, BlockingCluster),
]
OTHERWISE = {"connect", "close", "watch"}
"""methods of ``Khepri`` that are not one for one"""


def methods(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


@pytest.mark.parametrize(("asynchronous", "waiting"), FAMILIES, ids=lambda cls: cls.__name__)
def test_every_method_is_there_with_its_signature_and_its_text(asynchronous: type, waiting: type) -> None:
    assert methods(waiting) - OTHERWISE == methods(asynchronous) - OTHERWISE
    for name in methods(asynchronous) - OTHERWISE:
        theirs, ours = getattr(asynchronous, name), getattr(waiting, name)
        assert not inspect.iscoroutinefunction(ours), name
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert inspect.getdoc(ours) == inspect.getdoc(theirs), name


def test_watch_takes_what_the_asynchronous_one_takes_and_a_timeout() -> None:
    theirs = inspect.signature(Khepri.watch).parameters
    ours = dict(inspect.signature(BlockingKhepri.watch).parameters)
    assert ours.pop("timeout").default is None
    assert ours == dict(theirs)


@contextlib.contextmanager
def scripted(*answers: Any) -> Iterator[tuple[BlockingKhepri, ScriptedCaller]]:
    caller: list[ScriptedCaller] = []

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[Khepri]:
        caller.append(ScriptedCaller(*answers))
        yield Khepri(caller[0])

    with blocking(opening) as store:
        yield store, caller[0]


def test_each_family_asks_what_its_asynchronous_one_asks() -> None:
    stock = {(Atom("a"),): {Atom("data"): 2}}
    with scripted(ok({Atom("data"): 1}), ok(stock), ok([]), ok(True), ok([Atom("s")])) as (store, caller):
        assert store.get("/:a", favor="consistency") == 1
        assert store.adv.get("/:a")[(Atom("a"),)].data == 2
        assert store.procedures.functions() == []
        assert store.projections.has("p") is True
        assert store.cluster.stores() == ["s"]
    assert [asked.function for asked in caller.asked] == [
        "get",
        "get_many",
        "functions",
        "has_projection",
        "stores",
    ]


def test_refusals_are_the_same_exceptions() -> None:
    with scripted(refusal("node_not_found")) as (store, _), pytest.raises(NodeNotFoundError):
        store.get("/:a")


def test_functions_of_the_caller_run_in_its_thread_and_may_use_the_client() -> None:
    nodes = {(Atom("a"),): {Atom("data"): 1}, (Atom("b"),): {Atom("data"): 2}}
    here = threading.get_ident()
    data = [{Atom("data"): 5}, {Atom("data"): 6}]
    with scripted(ok(nodes), ok(data[0]), ok(data[1]), ok(nodes), ok(nodes), ok(nodes)) as (store, _):

        def other(path: Any, props: Any) -> Any:
            assert threading.get_ident() == here
            return props.data + store.get("/:c")

        assert store.map("/*", other) == {(Atom("a"),): 6, (Atom("b"),): 8}
        assert store.fold("/*", lambda path, props, total: total + props.data, 10) == 13
        assert store.filter("/*", lambda path, props: props.data == 2) == {(Atom("b"),): 2}
        seen: list[Any] = []
        store.for_each("/*", lambda path, props: seen.append(props.data))
        assert seen == [1, 2]


def test_what_such_a_function_raises_ends_the_call() -> None:
    with (
        scripted(ok({(Atom("a"),): {Atom("data"): 1}})) as (store, _),
        pytest.raises(ZeroDivisionError),
    ):
        store.map("/*", lambda path, props: 1 // 0)


def test_operations_are_opened_and_closed_in_the_loop() -> None:
    with scripted(ok([Atom("ok")])) as (store, caller):
        operation = store.new_operation()
        store.put("/:a", 1, operation_id=operation)
        store.forget_operation(operation)
    assert caller.asked[0].args[2] == operation.term()


async def test_inside_an_event_loop_it_says_what_to_use() -> None:
    with pytest.raises(InvalidStateError, match=r"bridge\.khepri\.Khepri"):
        connect("hs1@127.0.0.1", name="here@127.0.0.1", cookie="secret")


async def test_a_watch_does_not_stop_an_event_loop_either() -> None:
    opened = scripted()
    store, _ = await asyncio.to_thread(opened.__enter__)
    watch = await asyncio.to_thread(store.watch, "/:a")
    with pytest.raises(InvalidStateError, match="to_thread"):
        next(watch)
    await asyncio.to_thread(opened.__exit__, None, None, None)


def types(store: BlockingKhepri) -> None:
    """Never called: mypy holds that wrapping keeps every signature."""
    assert_type(store.count("/*"), int)
    assert_type(store.get_many("/*", favor="consistency"), dict[NativePath, Any])
    assert_type(store.map("/*", lambda path, props: path_text(path)), dict[NativePath, str])
    assert_type(store.fold("/*", lambda path, props, total: total + 1, 0), int)
    assert_type(store.pipeline({"a": Put("/:a", 1)}), dict[str, Outcome])
    assert_type(store.adv.put("/:a", 1), dict[NativePath, NodeProps])
    assert_type(store.cluster.leader(), str | None)
    assert_type(store.new_operation(), OperationId)
    store.get("/:a", favour="consistency")  # type: ignore[call-arg]
    store.put("/:a")  # type: ignore[call-arg]


def opened(cluster: LocalCluster, **options: Any) -> BlockingKhepri:
    return connect(
        cluster.members,
        name=f"{fresh('sync')}@127.0.0.1",
        cookie=cluster.cookie,
        store=cluster.store,
        node=NodeConfig(epmd_port=cluster.epmd_port, register=False),
        **options,
    )


@pytest.fixture
def sync_store(cluster: LocalCluster) -> Iterator[BlockingKhepri]:
    with opened(cluster) as store:
        yield store


@erlang
def test_it_reads_and_writes_a_real_store(sync_store: BlockingKhepri, root: str, tmp_path: Path) -> None:
    store = sync_store
    store.put(f"{root}/wood", 3)
    assert store.transaction([CompareAndSwap(f"{root}/wood", 3, 4), Put(f"{root}/iron", 1)]) == [None, None]
    with pytest.raises(MismatchingNodeError):
        store.compare_and_swap(f"{root}/wood", 3, 5)
    assert {path_text(path)[len(root) :]: data for path, data in store.get_many(f"{root}/*").items()} == {
        "/wood": 4,
        "/iron": 1,
    }
    assert store.adv.put(f"{root}/wood", 5).popitem()[1].data == 4
    outcomes = store.pipeline({number: Put(f"{root}/many/{number}", number) for number in range(50)})
    assert all(outcome.applied for outcome in outcomes.values())
    assert store.procedures.transaction(fun("kb_demo_functions:read/1"), [[Atom("none")]]) is Atom("missing")
    assert store.cluster.leader() in store.cluster.members()
    assert store.export_to(tmp_path / "part", f"{root}/**") >= 52


@erlang
def test_many_threads_share_one_client(sync_store: BlockingKhepri, root: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: sync_store.put_once(f"{root}/{number}", number), range(64)))
    assert sync_store.count(f"{root}/*") == 64


@erlang
def test_a_watch_is_an_iterator_that_goes_on_from_its_cursor(sync_store: BlockingKhepri, root: str) -> None:
    store = sync_store
    told = []
    with store.watch(root) as watch:
        assert isinstance(next(watch), Snapshot)
        store.put_once(f"{root}/a", 1)
        store.put_once(f"{root}/a", 2)
        for change in watch:
            assert isinstance(change, Updated)
            told.append(change.data)
            if change.data == 2:
                break
        kept = str(watch.cursor)
    assert list(watch) == []
    with store.watch(root, since=kept) as watch:
        told += [change.data for change in [watch.next(timeout=10)] if isinstance(change, Updated)]
    assert told == [1, 2, 2], "the second was handed out, and nobody had said that it is done"


@erlang
def test_a_deadline_for_a_change_loses_none(sync_store: BlockingKhepri, root: str) -> None:
    with sync_store.watch(root, timeout=0.01) as watch:
        watch.next(timeout=10)
        with pytest.raises(DeadlineError, match=r"no change within 0\.01 s"):
            next(watch)
        with pytest.raises(DeadlineError, match=r"no change within 0\.01 s"):
            watch.next()
        sync_store.put_once(f"{root}/a", 1)
        assert watch.next(timeout=math.inf) == Updated(watch_path(root, b"a"), 1)


def watch_path(root: str, name: bytes) -> tuple[Any, ...]:
    return (Atom("test"), root.rpartition("/")[2].encode(), name)


@erlang
def test_ctrl_c_ends_a_wait_for_a_change_and_loses_none(sync_store: BlockingKhepri, root: str) -> None:
    with sync_store.watch(root) as watch:
        next(watch)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(watch)
        timer.join()
        sync_store.put_once(f"{root}/a", 1)
        assert watch.next(timeout=10) == Updated(watch_path(root, b"a"), 1)


@erlang
def test_closing_a_watch_ends_the_iteration_of_another_thread(sync_store: BlockingKhepri, root: str) -> None:
    watch = sync_store.watch(root)
    begun = threading.Event()

    def iterate() -> int:
        count = 0
        for _ in watch:
            count += 1
            begun.set()
        return count

    with ThreadPoolExecutor(1) as pool:
        iterating = pool.submit(iterate)
        assert begun.wait(10)
        while not watch._reading.locked():
            pass
        with pytest.raises(InvalidStateError, match="one thread at a time"):
            watch.next()
        watch.close()
        assert iterating.result(10) == 1
    watch.close()
    with pytest.raises(ClosedError):
        watch.next()


@erlang
def test_closing_the_client_ends_watches_with_an_error(cluster: LocalCluster, root: str) -> None:
    store = opened(cluster)
    watch = store.watch(root)
    next(watch)
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        next(watch)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait(10)
        store.close()
        with pytest.raises(ClosedError):
            waiting.result(10)
    watch.close()


def test_a_watch_that_a_loop_drops_ends_its_subscription() -> None:
    subscribed = {
        Atom("subscription"): Atom("r"),
        Atom("cursor"): (bytes(8), 0),
        Atom("mode"): Atom("snapshot"),
        Atom("nodes"): [],
    }
    with scripted(ok(subscribed)) as (store, caller):
        for change in store.watch("/:a"):
            assert change == Snapshot({}, "member")
            break
        gc.collect()
        store.forget_operation(store.new_operation())  # the loop has done what came before
        assert caller.inbox.closed
        assert [cast[2] for cast in caller.cast_to] == ["unsubscribe"]


@erlang
def test_calls_and_watches_outlive_the_member_they_are_connected_to(own_cluster: LocalCluster) -> None:
    with opened(own_cluster) as store, store.watch("/:w", timeout=60) as watch:
        first = next(watch)
        assert isinstance(first, Snapshot)
        own_cluster.kill_node(first.member)
        store.put_once("/:w/a", 1, timeout=30)
        second = next(watch)
        assert isinstance(second, Snapshot)
        assert (second.gap, second.member != first.member) == (True, True)
        if second.nodes.get((Atom("w"), b"a")) != 1:
            # It was told before that member had applied the write.
            assert next(watch) == Updated((Atom("w"), b"a"), 1)
        assert store.get("/:w/a", favor="consistency", timeout=30) == 1


@erlang
def test_a_wrong_cookie_is_told_when_connecting(cluster: LocalCluster) -> None:
    with pytest.raises(HandshakeError, match="cookie"):
        connect(
            cluster.members,
            name=f"{fresh('sync')}@127.0.0.1",
            cookie="wrong",
            config=KhepriConfig(timeout=1.0),
            node=NodeConfig(epmd_port=cluster.epmd_port, register=False),
        )
    with pytest.raises(ConfigurationError):
        connect(cluster.members, name="nohost", cookie="wrong")


@erlang
def test_a_store_of_the_programs_own_blocks_too() -> None:
    with blocking(embedded_store) as store:
        store.put("/:stock/wood", 3)
        assert store.get("/:stock/wood") == 3

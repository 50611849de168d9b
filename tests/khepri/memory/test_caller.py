from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest

from bridge.errors import ClosedError, ConfigurationError, RemoteRaisedError
from bridge.khepri import (
    Caller,
    Deleted,
    InvalidRequestError,
    Khepri,
    NotAllowedError,
    PoisonError,
    Put,
    Snapshot,
    StoreUnavailableError,
    TooLargeError,
    Updated,
    native_path,
)
from bridge.khepri.memory import MemoryCaller
from tests.khepri import (
    test_adv,
    test_client,
    test_cluster,
    test_feed,
    test_reads,
    test_transactions,
    test_writes,
)

Test = Callable[..., Coroutine[Any, Any, None]]
MODULES = (test_adv, test_client, test_cluster, test_feed, test_reads, test_transactions, test_writes)


def shared_tests(modules: tuple[ModuleType, ...]) -> Iterator[Any]:
    """Those that need nothing but a store and a place in it."""
    for module in modules:
        for name, test in vars(module).items():
            if not name.startswith("test_") or not inspect.iscoroutinefunction(test):
                continue
            parameters = set(inspect.signature(test).parameters)
            if "store" in parameters and parameters <= {"store", "root"}:
                yield pytest.param(test, id=f"{module.__name__.rpartition('.')[2]}-{name}")


@pytest.mark.parametrize("test", list(shared_tests(MODULES)))
async def test_what_holds_of_a_homeserver_holds_in_memory(test: Test) -> None:
    store = Khepri(MemoryCaller())
    # Other tests leave something in the cluster that they share.
    await store.put("/:another", 0)
    given = {"store": store, "root": "/:test/own"}
    await test(**{name: given[name] for name in inspect.signature(test).parameters})


def test_it_is_a_caller() -> None:
    caller: Caller = MemoryCaller("me")
    assert (caller.name, caller.current) == ("me", "memory@nohost")
    caller.on_change(print)
    caller.off_change(print)
    caller.suspect("memory@nohost")


async def test_two_trees_know_nothing_of_each_other() -> None:
    one, other = Khepri(MemoryCaller()), Khepri(MemoryCaller())
    await one.put("/:a", 1)
    assert not await other.exists("/:a")
    assert await other.is_empty()


async def test_several_clients_share_the_tree_of_one_caller() -> None:
    caller = MemoryCaller()
    await Khepri(caller).put("/:a", 1)
    assert await Khepri(caller).get("/:a") == 1


async def test_data_are_copied_on_their_way_in_and_out() -> None:
    store = Khepri(MemoryCaller())
    data = {b"k": [1]}
    await store.put("/:a", data)
    data[b"k"].append(2)
    (await store.get("/:a"))[b"k"].append(3)
    assert await store.get("/:a") == {b"k": [1]}


async def test_what_is_no_term_is_refused_before_anything_happens() -> None:
    store = Khepri(MemoryCaller())
    with pytest.raises(ConfigurationError):
        await store.put("/:a", object())
    assert await store.is_empty()


async def test_a_feed_tells_a_snapshot_and_then_changes() -> None:
    async with MemoryCaller() as caller:
        store = Khepri(caller)
        await store.put("/:a/b", 1)
        async with store.watch("/:a") as feed:
            changes = aiter(feed)
            told = [await anext(changes)]
            await store.transaction([Put("/:a/c", 2), Put("/:a/b", 3)])
            await store.delete("/:a")
            told += [await anext(changes) for _ in range(4)]
        a = native_path("/:a")
        assert told == [
            Snapshot({a: None, (*a, b"b"): 1}, "memory@nohost"),
            Updated((*a, b"c"), 2),
            Updated((*a, b"b"), 3),
            Deleted((*a, b"b")),
            Deleted((*a, b"c")),
        ]


async def test_a_cursor_is_good_for_one_run_of_one_tree() -> None:
    store = Khepri(MemoryCaller())
    async with store.watch("/:a") as feed:
        changes = aiter(feed)
        await anext(changes)
        await store.put("/:a", 1)
        await store.put("/:a", 2)
        await anext(changes)
        await anext(changes)
        cursor = feed.cursor
    await store.put("/:a", 3)
    native = native_path("/:a")
    async with store.watch("/:a", since=cursor) as feed:
        changes = aiter(feed)
        assert [await anext(changes) for _ in range(2)] == [Updated(native, 2), Updated(native, 3)]
    async with Khepri(MemoryCaller()).watch("/:a", since=cursor) as feed:
        assert await anext(aiter(feed)) == Snapshot({}, "memory@nohost", gap=True)


async def test_what_takes_a_homeserver_is_refused() -> None:
    store = Khepri(MemoryCaller())
    for refused in (
        store.export_bytes(),
        store.import_bytes(b""),
        store.request("open_session", {}),
        store.procedures.transaction(("m", "f"), []),
        store.projections.has("p"),
    ):
        with pytest.raises(NotAllowedError):
            await refused
    with pytest.raises(RemoteRaisedError):
        await store.caller.call("erlang", "node", [], timeout=1, idempotent=True)


async def test_another_store_does_not_run_here() -> None:
    caller = MemoryCaller(store="mine")
    await Khepri(caller, store="mine").put("/:a", 1)
    with pytest.raises(StoreUnavailableError):
        await Khepri(caller).get("/:a", timeout=0.05)


async def test_what_many_ask_at_once_is_answered_to_each() -> None:
    store = Khepri(MemoryCaller())
    await asyncio.gather(*(store.put(f"/:a/{number}", number) for number in range(40)))
    swaps = (store.compare_and_swap(f"/:a/{number}", number, -number) for number in range(40))
    await asyncio.gather(*swaps)
    found = await asyncio.gather(*(store.get(f"/:a/{number}") for number in range(40)))
    assert found == [-number for number in range(40)]


async def test_refusals_are_those_of_a_homeserver() -> None:
    store = Khepri(MemoryCaller())
    with pytest.raises(InvalidRequestError):
        await store.put("/", 1)
    with pytest.raises(TooLargeError):
        await store.put("/:a", bytes(2_000_000))
    with pytest.raises(PoisonError):
        await store.get_many("/**/a/**/b/**")


async def test_nothing_is_answered_once_it_is_closed() -> None:
    caller = MemoryCaller()
    inbox = caller.mailbox()
    await caller.close()
    await caller.close()
    assert (caller.current, inbox.closed) == (None, True)
    with pytest.raises(ClosedError):
        await Khepri(caller).get("/:a")
    with pytest.raises(ClosedError):
        caller.mailbox()


async def test_a_tool_can_ask_for_versions_and_health() -> None:
    store = Khepri(MemoryCaller())
    assert (await store.cluster.versions()).khepri == "0.16.0"
    assert await store.cluster.wait_for_leader() == "memory@nohost"
    assert (await store.health()).running
    assert await store.procedures.functions() == []

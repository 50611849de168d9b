"""The client against a real cluster: what is told is true, and what is repeated is applied once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import DeadlineError, OutcomeUnknownError
from bridge.etf import Atom, ExportFun
from bridge.khepri import (
    AtomBudgetError,
    CompareAndSwap,
    Khepri,
    KhepriConfig,
    MismatchingNodeError,
    Put,
    StoreTimeoutError,
    StoreUnavailableError,
)
from bridge.node import Gateway, HiddenNode
from tests.support.cluster import hidden_node, local_cluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

WRITERS = 16


async def test_what_was_put_is_read_through_every_member(
    node: HiddenNode, cluster: LocalCluster, store: Khepri, root: str
) -> None:
    await store.put(f"{root}/wood", {Atom("oak"): 3, b"pine": [1.5, (Atom("undefined"),)]})
    for member in cluster.members:
        async with Khepri.connect(node, member, store=cluster.store) as one:
            read = await one.get(f"{root}/wood", favor="consistency")
            assert read == {Atom("oak"): 3, b"pine": [1.5, (Atom("undefined"),)]}


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
            assert (await two.health()).node == gateway.current


async def test_without_a_majority_reads_go_on_and_writes_end_in_time_as_unknown(
    own_cluster: LocalCluster,
) -> None:
    survivor, *others = own_cluster.members
    config = KhepriConfig(timeout=1.0, attempt_timeout=0.3)
    async with (
        hidden_node(own_cluster) as node,
        Khepri.connect(node, survivor, store=own_cluster.store, config=config) as store,
    ):
        await store.put("/:stock/wood", 1)
        await store.fence()
        for member in others:
            own_cluster.kill_node(member)
        async with asyncio.timeout(30):
            assert await store.get("/:stock/wood") == 1
            for write in (
                store.put("/:stock/wood", 2),
                store.delete("/:stock/stone"),
                store.put_once("/:stock/iron", 3),
                store.adv.put("/:stock/iron", 4),
            ):
                with pytest.raises(OutcomeUnknownError):
                    await write
            outcomes = await store.pipeline({"wood": Put("/:stock/wood", 5)}, timeout=1.0)
            assert isinstance(outcomes["wood"].error, OutcomeUnknownError)
            for read in (store.get("/:stock/wood", favor="consistency"), store.fence()):
                with pytest.raises((DeadlineError, StoreTimeoutError, StoreUnavailableError)) as caught:
                    await read
                assert not isinstance(caught.value, OutcomeUnknownError), "a read has no outcome"
            assert await store.get("/:stock/wood") == 1


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

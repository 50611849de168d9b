"""Kills members of a cluster under concurrent writers, and counts what was lost or applied twice.

Each writer has a node of its own and writes ever higher numbers to it, by a transaction of two puts: so every
application of it raises the node's version by two, a repeated one too. In the end the value tells whether an
acknowledged write was lost, and the version whether one was applied twice.

The writers are of four kinds, each with a client of its own. Some write alone; some together with others, as
what is made at once is; so do some of whose transactions every fourth aborts: its group fails, and each of it
is sent by itself. The last make plain puts, which are repeated by hand and may be applied twice: of them only
the value tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bridge.cluster.local import LocalCluster
from bridge.errors import BridgeError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri import (
    Abort,
    Khepri,
    KhepriConfig,
    Operation,
    Put,
    StoreUnavailableError,
    TransactionAbortedError,
)
from bridge.node import HiddenNode

_WRITE_SECONDS = 60.0
"""of one write; it outlives every election, so that no outcome stays unknown"""
_ROOT = "/:kills"
_Kind = Callable[[Khepri, str, int], Awaitable[None]]


@dataclass(slots=True)
class Toll:
    """What the kills cost.

    Attributes:
        kills: of members, ``leaders`` of them of the leader, ``connected`` of the one that writers called.
        writes: acknowledged.
        lost: acknowledged, and not there in the end.
        doubled: applied more than once.
        longest_s: the longest single write, in seconds.
    """

    kills: int = 0
    leaders: int = 0
    connected: int = 0
    writes: int = 0
    lost: int = 0
    doubled: int = 0
    longest_s: float = 0.0


async def run_kills(cluster: LocalCluster, node: HiddenNode, *, kills: int, writers: int) -> Toll:
    """Kill members one after another, the leader and the writers' own among them, and start them again.

    Raises:
        TimeoutError: a member that was started again did not become one within 60 s.
    """
    toll = Toll()
    over = asyncio.Event()
    config = KhepriConfig(timeout=_WRITE_SECONDS)
    async with Khepri.connect(node, cluster.members, store=cluster.store, config=config) as store:
        kinds = (_alone, _together, _together_with_some_that_abort, _plainly)
        clients = [Khepri(store.caller, store=cluster.store, config=config) for _ in kinds]
        tasks = [
            asyncio.create_task(_write(clients[number % 4], kinds[number % 4], number, over, toll))
            for number in range(writers)
        ]
        try:
            for turn in range(kills):
                await asyncio.sleep(0.5)
                await _kill_one(cluster, node, store, turn, toll)
        finally:
            over.set()
            acknowledged = await asyncio.gather(*tasks)
        await store.fence(timeout=30.0)
        for number, last in enumerate(acknowledged):
            (props,) = (await store.adv.get(f"{_ROOT}/{number}", favor="consistency", timeout=30.0)).values()
            toll.lost += max(0, last - int(props.data))
            if kinds[number % 4] is not _plainly:
                applied = (props.payload_version or 0) // 2
                toll.doubled += max(0, applied - int(props.data))
    return toll


def _twice(path: str, value: int) -> list[Operation]:
    return [Put(path, Atom("writing")), Put(path, value)]


async def _alone(store: Khepri, path: str, value: int) -> None:
    # A time-out of its own keeps it out of groups.
    await store.transaction(_twice(path, value), timeout=_WRITE_SECONDS)


async def _together(store: Khepri, path: str, value: int) -> None:
    await store.transaction(_twice(path, value))


async def _together_with_some_that_abort(store: Khepri, path: str, value: int) -> None:
    if value % 4 == 0:
        with contextlib.suppress(TransactionAbortedError):
            await store.transaction([*_twice(path, -value), Abort(value)])
            raise AssertionError("a transaction that aborts was applied")
    await store.transaction(_twice(path, value))


async def _plainly(store: Khepri, path: str, value: int) -> None:
    while True:
        try:
            await store.put(path, value)
        except (OutcomeUnknownError, StoreUnavailableError):
            continue
        return


async def _write(store: Khepri, kind: _Kind, number: int, over: asyncio.Event, toll: Toll) -> int:
    """The last number that was acknowledged."""
    path = f"{_ROOT}/{number}"
    for value in itertools.count(1):
        began = time.monotonic()
        await kind(store, path, value)
        toll.writes += 1
        toll.longest_s = max(toll.longest_s, time.monotonic() - began)
        if over.is_set():
            return value
    raise AssertionError("an endless count ended")


async def _kill_one(cluster: LocalCluster, node: HiddenNode, store: Khepri, turn: int, toll: Toll) -> None:
    connected = store.caller.current or cluster.members[0]
    leader = await _leader(node, cluster)
    victim = (leader, connected, cluster.members[turn % len(cluster.members)])[turn % 3]
    toll.kills += 1
    toll.leaders += victim == leader
    toll.connected += victim == connected
    cluster.kill_node(victim)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(cluster.start_node, victim)
    async with asyncio.timeout(60):
        # Two of three must be there before the next one goes.
        while not await _is_member(node, cluster, victim):
            await asyncio.sleep(0.1)


async def _leader(node: HiddenNode, cluster: LocalCluster) -> str:
    async with asyncio.timeout(60):
        while True:
            for member in cluster.members:
                try:
                    health = await node.call(member, "kb_api", "health", [Atom(cluster.store)], timeout=2.0)
                    leader = str(health[1][Atom("leader")])
                except BridgeError:
                    continue
                if leader in cluster.members:
                    return leader
            await asyncio.sleep(0.1)


async def _is_member(node: HiddenNode, cluster: LocalCluster, member: str) -> bool:
    """Whether it answers consistent reads, so has caught up."""
    try:
        async with Khepri.connect(node, member, store=cluster.store) as store:
            await store.get(f"{_ROOT}/0", favor="consistency", timeout=2.0)
    except BridgeError:
        return False
    return True

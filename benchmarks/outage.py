"""How long writes stop when the leader is killed, and when it is cut off: the worst of so many times.

Two clients write without a pause, one through the leader and one through a follower. An outage is the longest
time in which a client that had asked was answered nothing. Kills are on processes of this machine, cuts on
containers. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.errors import BridgeError
from bridge.khepri import Khepri, KhepriConfig, Put
from bridge.node import HiddenNode, NodeConfig
from tests.nemesis.containers import Network
from tests.support.containers import host_name, node_name
from tests.support.docker import built_image, daemon_client

RESULTS: Final = Path(__file__).parent / "results" / "outage.json"
_PEACE_SECONDS: Final = 1.0
_RECOVERY_SECONDS: Final = 30.0
_AFTER_SECONDS: Final = 1.0
"""of writing after the first answer, so that a second stop is seen too"""
_LATE_SECONDS: Final = 0.05
_NAMES: Final = ("hs1", "hs2", "hs3")


@dataclass(slots=True)
class Outages:
    """Milliseconds, one value for each time the leader was lost."""

    through_leader: list[float] = field(default_factory=list)
    through_follower: list[float] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """For JSON."""
        both = self.through_leader + self.through_follower
        return {
            "times": len(self.through_leader),
            "worst_ms": round(max(both), 1),
            "through_leader": _spread(self.through_leader),
            "through_follower": _spread(self.through_follower),
        }


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster whose leader can be lost and found; the calls block."""

    node: HiddenNode
    members: tuple[str, ...]
    store: str
    lose: Callable[[str], None]
    find: Callable[[str], None]


class Writer:
    """Writes as fast as it is answered, and keeps the longest time without an answer."""

    def __init__(self, store: Khepri, path: str) -> None:
        self._store = store
        self._path = path
        self.longest = 0.0
        self.last = time.monotonic()
        self.written = 0

    async def write(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._store.transaction([Put(self._path, self.written)])
            except BridgeError:
                continue
            now = time.monotonic()
            self.longest = max(self.longest, now - self.last)
            self.last = now
            self.written += 1


async def measure(scene: Scene, times: int, say: Callable[[str], None]) -> Outages:
    """Lose the leader so many times."""
    outages = Outages()
    for turn in range(times):
        leader = await _await_leader(scene)
        others = tuple(member for member in scene.members if member != leader)
        async with _writing(scene, ((leader, *others), (*others, leader))) as writers:
            await asyncio.sleep(_PEACE_SECONDS)
            for writer in writers:
                writer.longest = 0.0
            await asyncio.to_thread(scene.lose, leader)
            lost = time.monotonic()
            # Answers to what was written before the loss may come just after it.
            await _until(functools.partial(_answered, writers, lost + _LATE_SECONDS))
            await asyncio.sleep(_AFTER_SECONDS)
            through_leader, through_follower = (writer.longest * 1e3 for writer in writers)
        outages.through_leader.append(through_leader)
        outages.through_follower.append(through_follower)
        say(f"{turn + 1}: through the leader {through_leader:.0f} ms, a follower {through_follower:.0f} ms")
        await asyncio.to_thread(scene.find, leader)
        await _await_all(scene)
    return outages


@contextlib.asynccontextmanager
async def _writing(scene: Scene, orders: tuple[tuple[str, ...], ...]) -> AsyncIterator[list[Writer]]:
    async with contextlib.AsyncExitStack() as stack:
        writers, tasks = [], []
        for number, order in enumerate(orders):
            config = KhepriConfig(timeout=_RECOVERY_SECONDS)
            client = Khepri.connect(scene.node, order, store=scene.store, config=config)
            writer = Writer(await stack.enter_async_context(client), f"/:outage/{number}")
            writers.append(writer)
            tasks.append(asyncio.create_task(writer.write()))
        try:
            yield writers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _await_leader(scene: Scene) -> str:
    found = ""

    async def known() -> bool:
        nonlocal found
        leaders = {await _leader(scene, member) for member in scene.members}
        found = next(iter(leaders))
        return len(leaders) == 1 and found in scene.members

    await _until(known)
    return found


async def _await_all(scene: Scene) -> None:
    async def all_agree() -> bool:
        return len({await _leader(scene, member) for member in scene.members} - {""}) == 1

    await _until(all_agree)


async def _leader(scene: Scene, member: str) -> str:
    try:
        async with Khepri.connect(scene.node, member, store=scene.store) as store:
            await store.fence(timeout=2.0)
            return str((await store.health(timeout=1.0)).leader)
    except (BridgeError, TimeoutError):
        return ""


async def _answered(writers: list[Writer], since: float) -> bool:
    return all(writer.last > since for writer in writers)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        # Other processes are looked at, which tell of themselves only when asked.
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(values), 1),
        "worst_ms": round(max(values), 1),
        "best_ms": round(min(values), 1),
    }


async def kills(times: int, say: Callable[[str], None]) -> Outages:
    """Kill the leader of a cluster of this machine, and start it again."""
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
        async with HiddenNode("writers@127.0.0.1", cookie=cluster.cookie, config=config) as node:
            scene = Scene(node, cluster.members, cluster.store, cluster.kill_node, cluster.start_node)
            return await measure(scene, times, say)


async def cuts(times: int, say: Callable[[str], None]) -> Outages:
    """Take the leader's container off its network, and put it back."""
    with _containers() as network:
        addresses = {host_name(name): network.fixed[name] for name in _NAMES}
        config = NodeConfig(addresses=addresses, register=False)

        def cut_off(member: str) -> None:
            network.cut_off(member.partition("@")[0])

        def reconnect(member: str) -> None:
            network.reconnect_fixed(member.partition("@")[0])

        members = tuple(map(node_name, _NAMES))
        async with HiddenNode("writers@127.0.0.1", cookie=network.cookie, config=config) as node:
            return await measure(Scene(node, members, "homeserver", cut_off, reconnect), times, say)


@contextlib.contextmanager
def _containers() -> Iterator[Network]:
    with tempfile.TemporaryDirectory(prefix="kb-dockerd-") as own, daemon_client(Path(own)) as client:
        network = Network(client, built_image(client, "homeserver"))
        try:
            network.start_cluster(*_NAMES)
            yield network
        finally:
            network.close()


def main() -> None:
    """Lose leaders, and print how long writes stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", choices=("kills", "cuts"), help="one of the two")
    parser.add_argument("--keep", action="store_true", help=f"write the result to results/{RESULTS.name} too")
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result: dict[str, Any] = {"benchmark": "outage", "python": platform.python_version()}
    if arguments.only != "cuts":
        killed = asyncio.run(kills(arguments.times, say)).result()
        result |= {"write_outage_worst_ms": killed["worst_ms"], "kills": killed}
    if arguments.only != "kills":
        cut = asyncio.run(cuts(arguments.times, say)).result()
        result |= {"cut_outage_worst_ms": cut["worst_ms"], "cuts": cut}
    if arguments.keep:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

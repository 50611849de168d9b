"""The change feed under load, and a small call while a large answer comes in.

Prints one line of JSON. ``watch_p50_ms`` and ``watch_p99_ms``: from the call of ``put`` until the change is
handed out by a feed at a member that is not the leader, with eight writers at once at another member, three
homeservers. ``big_reply_s``: an answer of 64 MiB that lies ready. ``small_behind_big_p99_ms``: calls of
``erlang:node()``, one after another on the same connection while such answers come in. ``maps_reply_s`` and
``small_behind_maps_p99_ms``: the same where the answer is a list of small maps, which is decoded in steps.
All are medians over rounds. The limits of the same run: ``small_alone_p99_ms``, the same calls without large
ones, and ``copy_s``, 64 MiB through a pair of sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.etf import Atom, encode_bare
from bridge.khepri import Khepri, Updated
from bridge.node import HiddenNode, NodeConfig

RESULTS: Final = Path(__file__).parent / "results" / "khepri.json"
WRITERS: Final = 8
BIG: Final = 64 * 1024 * 1024
_READY: Final = Atom("bench_big")
_RECORD: Final = {Atom("count"): 3, Atom("name"): b"a small record of a world", Atom("at"): [1.5, 2.5, b"x"]}
_ROOT: Final = (Atom("bench"), b"watch")


async def measure_watch(reader: Khepri, writer: Khepri, puts: int) -> list[float]:
    """Milliseconds from each put to its change."""
    began: dict[bytes, float] = {}
    latencies: list[float] = []
    seen: set[bytes] = set()

    async def write(number: int) -> None:
        for turn in range(puts // WRITERS):
            data = b"%d-%d" % (number, turn)
            began[data] = time.perf_counter()
            await writer.put((*_ROOT, b"%d" % number), data)

    async with reader.watch(_ROOT) as feed:
        changes = aiter(feed)
        await anext(changes)

        async def read() -> None:
            async for change in changes:
                match change:
                    case Updated(data=bytes() as data) if data in began and data not in seen:
                        seen.add(data)
                        latencies.append((time.perf_counter() - began[data]) * 1e3)
                if len(seen) == puts // WRITERS * WRITERS:
                    return

        reading = asyncio.create_task(read())
        await asyncio.gather(*(write(number) for number in range(WRITERS)))
        async with asyncio.timeout(30):
            await reading
    return latencies


async def measure_big(node: HiddenNode, member: str) -> float:
    """Seconds of one answer of 64 MiB."""
    began = time.perf_counter()
    answer = await node.call(member, "persistent_term", "get", [_READY], timeout=30.0)
    took = time.perf_counter() - began
    if len(answer) != BIG:
        raise AssertionError("the answer is not whole")
    return took


async def measure_maps(node: HiddenNode, member: str) -> float:
    """Seconds of an answer of 64 MiB of small maps."""
    number = BIG // len(encode_bare(_RECORD))
    began = time.perf_counter()
    answer = await node.call(member, "lists", "duplicate", [number, _RECORD], timeout=120.0)
    took = time.perf_counter() - began
    if len(answer) != number or answer[-1] != _RECORD:
        raise AssertionError("the answer is not whole")
    return took


async def measure_small(node: HiddenNode, member: str, until: asyncio.Event) -> list[float]:
    """Milliseconds of small calls, one after another, until the event."""
    latencies = []
    while not until.is_set():
        began = time.perf_counter()
        await node.call(member, "erlang", "node", [], timeout=30.0)
        latencies.append((time.perf_counter() - began) * 1e3)
    return latencies


async def measure_both(
    node: HiddenNode, member: str, large: Callable[[HiddenNode, str], Awaitable[float]]
) -> tuple[float, list[float]]:
    """Seconds of one large answer, and milliseconds of the small calls beside it."""
    done = asyncio.Event()
    small = asyncio.create_task(measure_small(node, member, done))
    await asyncio.sleep(0.02)
    took = await large(node, member)
    done.set()
    return took, await small


async def measure_alone(node: HiddenNode, member: str, seconds: float) -> list[float]:
    """Milliseconds of the small calls with nothing beside them."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    return await measure_small(node, member, done)


def measure_copy() -> float:
    """Seconds that 64 MiB take through a pair of sockets, into memory that is there already."""
    one, two = socket.socketpair()
    data, target = bytes(BIG), bytearray(BIG)
    began = time.perf_counter()
    sending = threading.Thread(target=one.sendall, args=(data,))
    sending.start()
    view, got = memoryview(target), 0
    while got < BIG:
        got += two.recv_into(view[got:])
    took = time.perf_counter() - began
    sending.join()
    one.close()
    two.close()
    return took


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent are not above."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


async def measure(cluster: LocalCluster, rounds: int, puts: int) -> dict[str, Any]:
    """All of it."""
    load = round(os.getloadavg()[0], 1)
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    async with (
        HiddenNode("reader@127.0.0.1", cookie=cluster.cookie, config=config) as reading,
        HiddenNode("writer@127.0.0.1", cookie=cluster.cookie, config=config) as writing,
    ):
        async with Khepri.connect(reading, cluster.members, store=cluster.store) as any_member:
            leader = str((await any_member.health()).leader)
        followers = [member for member in cluster.members if member != leader]
        async with (
            Khepri.connect(reading, followers[0], store=cluster.store) as reader,
            Khepri.connect(writing, followers[1], store=cluster.store) as writer,
        ):
            watched = [await measure_watch(reader, writer, puts) for _ in range(rounds)]
        # Making it takes longer than sending it, and holds up the small calls there.
        await reading.call(leader, "persistent_term", "put", [_READY, bytes(BIG)], timeout=30.0)
        alone, beside, beside_maps, big, maps, copied = [], [], [], [], [], []
        for _ in range(rounds):
            alone.append(percentile(await measure_alone(reading, leader, 0.3), 99))
            big.append(await measure_big(reading, leader))
            beside.append(percentile((await measure_both(reading, leader, measure_big))[1], 99))
            took, small = await measure_both(reading, leader, measure_maps)
            maps.append(took)
            beside_maps.append(percentile(small, 99))
            copied.append(measure_copy())
        release = bytes(await reading.call(leader, "erlang", "system_info", [Atom("otp_release")])).decode()
    return {
        "benchmark": "khepri",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "otp": release,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": load,
        "rounds": rounds,
        "watch_p50_ms": round(statistics.median(percentile(one, 50) for one in watched), 2),
        "watch_p99_ms": round(statistics.median(percentile(one, 99) for one in watched), 2),
        "big_reply_s": round(statistics.median(big), 3),
        "small_behind_big_p99_ms": round(statistics.median(beside), 2),
        "maps_reply_s": round(statistics.median(maps), 3),
        "small_behind_maps_p99_ms": round(statistics.median(beside_maps), 2),
        "small_alone_p99_ms": round(statistics.median(alone), 2),
        "copy_s": round(statistics.median(copied), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--puts", type=int, default=4_000, help="per round, of all writers together")
    parser.add_argument(
        "--keep", action="store_true", help=f"write the result to benchmarks/results/{RESULTS.name} too"
    )
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        result = uvloop.run(measure(cluster, arguments.rounds, arguments.puts))
    if arguments.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

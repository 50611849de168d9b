"""What keeping sessions alive costs: processor time of three homeservers, for a thousand sessions.

They hold 100,000 entities. One Python node renews each of them every sixth of its lease, through the members
in turn. Processor time of the three virtual machines is read from the kernel over two stretches: with nobody
there, and with all sessions renewed. With ``--kills`` the lessor's node is killed that often besides, and
started again. Prints one line of JSON; shares are of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.errors import BridgeError
from bridge.etf import Atom, ExportFun
from bridge.jose import Jwk
from bridge.khepri import Khepri
from bridge.node import HiddenNode, Mailbox, NodeConfig
from bridge.registry import Homeserver

_LEASE_MS = 3000
_CHUNK = 1000
"""entities in one transaction; more would keep this process from renewing"""
_UNDEFINED = Atom("undefined")
_BRIDGE = Atom("bridge")
_LESSOR = Atom("kb_lessor")
_RENEWED = Atom("renewed")


class Renewing:
    """Sessions that one process keeps alive."""

    def __init__(self, node: HiddenNode, inbox: Mailbox, members: Sequence[str]) -> None:
        self._node = node
        self._inbox = inbox
        self._members = members
        self.sessions: list[bytes] = []
        self.load = 0
        self.away: set[str] = set()
        self.silence = 0.0
        self.acknowledgements = 0
        self.lost: set[bytes] = set()

    async def send(self) -> None:
        """Renew all sessions, evenly over each sixth of a lease, until cancelled."""
        period = _LEASE_MS / 6000
        number, due = 0, time.monotonic()
        while True:
            number += 1
            sessions = list(self.sessions)
            for index, session in enumerate(sessions):
                message: tuple[Any, ...] = (Atom("renew"), self._inbox.pid, session, number, number)
                message += (self.load, [])
                await self._send(index, message)
                if index % 20 == 19:
                    await asyncio.sleep(max(0.0, due + period * index / len(sessions) - time.monotonic()))
            due += period
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _send(self, index: int, message: tuple[Any, ...]) -> None:
        there = [member for member in self._members if member not in self.away]
        member = there[index % len(there)]
        try:
            await self._node.send((_LESSOR, member), message)
        except BridgeError:
            self.away.add(member)

    async def receive(self) -> None:
        """Take what members say, until cancelled."""
        last = time.monotonic()
        while True:
            message: Any = await self._inbox.receive()
            if message[0] is _RENEWED:
                now = time.monotonic()
                self.silence, last = max(self.silence, now - last), now
                self.acknowledgements += 1
            else:
                self.lost.add(message[1])


async def fill(node: HiddenNode, member: str, store: str, sessions: Sequence[bytes], entities: int) -> None:
    """Write records of entities as held by the sessions in turn: a few large transactions."""
    restore = ExportFun(Atom("kb_export"), Atom("restore"), 1)
    for begin in range(0, entities, _CHUNK):
        nodes: list[tuple[Any, ...]] = []
        held: dict[bytes, dict[bytes, Atom]] = {}
        for number in range(begin, min(begin + _CHUNK, entities)):
            holder = number % len(sessions)
            name = b"e%d" % number
            record = {
                "entity": name,
                "owner": b"p%d" % (number % 1000),
                "master": b"p",
                "default_owner": _UNDEFINED,
                "rule": Atom("allow"),
                "session": sessions[holder],
                "server": b"sim%d" % holder,
                "epoch": (1 << 48) + number,
                "awaiting": _UNDEFINED,
                "home": b"local",
                "version": 1,
            }
            data = {Atom(key): value for key, value in record.items()}
            nodes.append(([_BRIDGE, Atom("entities"), name], (Atom("p_data"), data)))
            held.setdefault(sessions[holder], {})[name] = Atom("held")
        for session, names in held.items():
            # Not the bucket that the homeserver would choose: a session's end reads all there are.
            path = [_BRIDGE, Atom("held"), session, b"%d" % begin]
            nodes.append((path, (Atom("p_data"), {Atom("entities"): names})))
        arguments = [Atom(store), restore, [nodes], Atom("rw"), {}]
        answer = await node.call(member, "khepri", "transaction", arguments, timeout=60.0)
        if answer != (Atom("ok"), Atom("restored")):
            raise RuntimeError(f"the entities were not written: {answer!r:.200}")


def processor_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def share(pids: Sequence[int], seconds: float) -> float:
    """Of one core, over a stretch of time."""
    begin, before = time.monotonic(), processor_seconds(pids)
    await asyncio.sleep(seconds)
    return (processor_seconds(pids) - before) / (time.monotonic() - begin)


async def kill_lessors(cluster: LocalCluster, store: Khepri, renewing: Renewing, kills: int) -> None:
    """Kill the lessor's node, wait two leases, start it again; so often."""
    for _ in range(kills):
        lessor = await store.get([_BRIDGE, Atom("lessor")], favor="consistency")
        name = lessor[Atom("node")].decode()
        await asyncio.to_thread(cluster.kill_node, name)
        await asyncio.sleep(_LEASE_MS / 500)
        await asyncio.to_thread(cluster.start_node, name)
        renewing.away.clear()
        await asyncio.sleep(_LEASE_MS / 1000)


async def measure(
    cluster: LocalCluster, sessions: int, entities: int, seconds: float, kills: int
) -> dict[str, Any]:
    """Shares of one core, and what was renewed meanwhile."""
    pids = [node.process.pid for node in cluster.state.nodes if node.process is not None]
    await asyncio.sleep(2.0)
    idle = await share(pids, seconds)
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False, mailbox_capacity=100_000)
    async with (
        HiddenNode("lease@127.0.0.1", cookie=cluster.cookie, config=config) as node,
        node.mailbox() as inbox,
        asyncio.TaskGroup() as tasks,
    ):
        store = Khepri.connect(node, cluster.members, store=cluster.store)
        renewing = Renewing(node, inbox, cluster.members)
        working = [tasks.create_task(renewing.send()), tasks.create_task(renewing.receive())]
        key = Jwk.generate("P-256")

        async def opened(number: int) -> None:
            session = secrets.token_bytes(16)
            await Homeserver(store, session).open_session(
                server=f"sim{number}",
                key=key.public().to_json().encode(),
                thumbprint=key.thumbprint(),
                address=("127.0.0.1", 4000),
            )
            renewing.sessions.append(session)

        for begin in range(0, sessions, 64):
            await asyncio.gather(*(opened(number) for number in range(begin, min(begin + 64, sessions))))
        renewing.load = entities // sessions
        await fill(node, cluster.members[0], cluster.store, renewing.sessions, entities)
        # What the filling left to do is none of the leases' cost.
        await asyncio.sleep(10.0)
        renewing.acknowledgements = 0
        before = processor_seconds([os.getpid()])
        kept = await share(pids, seconds)
        python = (processor_seconds([os.getpid()]) - before) / seconds
        acknowledgements = renewing.acknowledgements
        renewing.silence = 0.0
        await kill_lessors(cluster, store, renewing, kills)
        silence = renewing.silence
        open_still = await store.count("/:bridge/:sessions/*", favor="consistency")
        for task in working:
            task.cancel()
    return {
        "lease_cpu_share": round(kept, 4),
        "idle_cpu_share": round(idle, 4),
        "sessions": sessions,
        "entities": entities,
        "sessions_open_at_the_end": open_still,
        "sessions_lost": len(renewing.lost),
        "acknowledged_per_second": round(acknowledgements / seconds),
        "python_cpu_share": round(python, 4),
        **({"kills": kills, "longest_silence_s": round(silence, 3)} if kills else {}),
    }


def main() -> None:
    """Entry of ``scripts/bench lease``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two stretches")
    parser.add_argument("--kills", type=int, default=0, help="of the lessor's node, after that")
    parser.add_argument("--json", action="store_true", help="accepted for all benchmarks; the output is JSON")
    arguments = parser.parse_args()
    cluster_config = LocalClusterConfig(nodes=3, environment={"KB_LEASE_MS": str(_LEASE_MS)})
    with LocalCluster(cluster_config) as cluster:
        result = uvloop.run(
            measure(cluster, arguments.sessions, arguments.entities, arguments.seconds, arguments.kills)
        )
    print(
        json.dumps(
            result
            | {
                "lease_ms": _LEASE_MS,
                "seconds": arguments.seconds,
                "nodes": 3,
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()

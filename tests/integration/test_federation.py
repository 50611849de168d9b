"""Two instances, killed at every step of a transfer: services by themselves, homeservers from outside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster
from bridge.registry import Closed, EntityRecord, Grant
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.federation import Federation, Instance, federation_of, instance_cluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
GIVER_STEPS = ("ask", "answered", "closed")
RECEIVER_STEPS = ("asked", "decided")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """The service of one side, which may be started again."""

    side: Instance
    key_file: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, step: str = "") -> None:
        self.key_file.write_text(self.side.key.to_json())
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.federation_process",
            str(self.side.cluster.directory),
            str(self.key_file),
            str(self.port),
            step,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            await self.process.stdout.readline()

    async def killed_itself(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(60):
            assert await self.process.wait() == -9
        self.process = None

    async def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    def restart_homeserver(self) -> None:
        """Kill -9, and the same data again."""
        (name,) = self.side.cluster.members
        self.side.cluster.kill_node(name)
        self.side.cluster.start_node(name)


@dataclass
class Pair:
    """Both sides with their services, and a server in each."""

    federation: Federation
    x: Service
    y: Service
    a: Server
    b: Server


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    clusters: tuple[LocalCluster, LocalCluster]
    with instance_cluster("emerald") as first, instance_cluster("ruby") as second:
        clusters = (first, second)
        async with federation_of(clusters) as federation:
            x = Service(federation.x, tmp_path / "x.jwk")
            y = Service(federation.y, tmp_path / "y.jwk")
            await federation.x.escrows.pin(federation.y.as_peer(urls=(y.url,)))
            await federation.y.escrows.pin(federation.x.as_peer(urls=(x.url,)))
            a, b = federation.x.server(), federation.y.server()
            await a.open()
            await b.open()
            try:
                yield Pair(federation, x, y, a, b)
            finally:
                await x.kill()
                await y.kill()


async def moved(pair: Pair, giver: Service, record: EntityRecord) -> EntityRecord:
    """Have the entity pass from one side to the other; its record there."""
    there = pair.federation.other(giver.side)
    a, b = (pair.a, pair.b) if giver is pair.x else (pair.b, pair.a)
    await giver.side.push_abroad(record, a, there, b)
    return await arrived(pair, giver, record.entity)


async def arrived(pair: Pair, giver: Service, entity: str) -> EntityRecord:
    there = pair.federation.other(giver.side)
    await pair.federation.settled(entity)
    assert await pair.federation.places(entity) == [there.name]
    return await there.entity(entity)


async def test_both_sides_killed_at_every_step_lose_and_double_nothing(pair: Pair) -> None:
    """B-3, R4-16: whichever of the four processes is killed, at whichever step, it goes on by itself."""
    x, y, a, b = pair.x, pair.y, pair.a, pair.b
    record = await a.spawn(ball := fresh("ball"))
    epochs = [record.epoch]
    giver, receiver = x, y
    for step in (*GIVER_STEPS, *RECEIVER_STEPS):
        armed, other = (giver, receiver) if step in GIVER_STEPS else (receiver, giver)
        await armed.kill()
        await armed.start(step)
        if other.process is None:
            await other.start()
        sender, taker = (a, b) if giver is x else (b, a)
        await giver.side.push_abroad(record, sender, receiver.side, taker)
        await armed.killed_itself()
        # Its homeserver goes the same way, and comes back with what it had written; so does the other side.
        armed.restart_homeserver()
        assert len(await pair.federation.places(ball)) == 1
        if step in ("answered", "decided"):
            await other.kill()
            other.restart_homeserver()
            assert len(await pair.federation.places(ball)) == 1
            await other.start()
        await armed.start()
        record = await arrived(pair, giver, ball)
        assert isinstance(await taker.inbox(ball), Grant)
        assert isinstance(await sender.inbox(ball), Closed)
        assert record.session == taker.session
        epochs.append(record.epoch)
        giver, receiver = receiver, giver
    assert epochs == sorted(set(epochs))


async def test_services_killed_again_and_again_carry_everything(pair: Pair) -> None:
    """Many at once, with the services of both sides killed from outside at moments of no choice."""
    x, y = pair.x, pair.y
    records = [await pair.a.spawn(fresh("ball")) for _ in range(12)]
    await x.start()
    await y.start()

    async def push(record: EntityRecord) -> None:
        await x.side.push_abroad(record, pair.a, y.side, pair.b)

    pushing = asyncio.gather(*(push(record) for record in records))
    for turn in range(3):
        service = (x, y)[turn % 2]
        await asyncio.sleep(0.03)
        await service.kill()
        for record in records:
            assert len(await pair.federation.places(record.entity)) == 1
        await service.start()
    await pushing
    for record in records:
        there = await arrived(pair, x, record.entity)
        assert (there.session, there.epoch > record.epoch) == (pair.b.session, True)

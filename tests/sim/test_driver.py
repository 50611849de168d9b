"""The driver's end, with servers in processes of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

import pytest

from bridge.authority import decode_entries
from bridge.cluster.local import LocalCluster
from bridge.errors import ClosedError, ConfigurationError
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.registry import Rule
from bridge.sim.driver import CommandFailedError, SimulationProcess
from bridge.sim.events import Asked, EntityDeleted, ServerEvent, StateAccepted
from tests.support.cluster import fresh
from tests.support.simulation import children, is_alive

pytestmark = pytest.mark.slow


class Told:
    """Events of servers, as a driver takes them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ServerEvent]] = []
        self._changed = asyncio.Event()

    def __call__(self, server: str, event: ServerEvent) -> None:
        self.events.append((server, event))
        self._changed.set()

    async def accepted(self, server: str, epoch: int) -> None:
        await self.until(
            lambda: any(
                name == server and isinstance(event, StateAccepted) and event.epoch == epoch
                for name, event in self.events
            )
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def command(cluster: LocalCluster, name: str) -> list[str]:
    base = [sys.executable, "-m", "bridge.cli", "sim", "--dir", str(cluster.directory), "--commands"]
    return [*base, "--name", name]


def descendants(pid: int) -> set[int]:
    found = children(pid)
    return found.union(*(descendants(child) for child in found)) if found else set()


@pytest.mark.erlang
async def test_ownership_is_read_after_every_simulation_server_was_killed(
    cluster: LocalCluster, store: Khepri
) -> None:
    """R0-1: metadata is the homeserver's; commands of dead servers fail at once."""
    before = children()
    told = Told()
    one, two = (
        SimulationProcess(name, command(cluster, name), told) for name in (fresh("sim"), fresh("sim"))
    )
    ball = fresh("ball")
    try:
        await asyncio.gather(one.start(), two.start())
        epoch = await one.spawn(ball, owner="Player1", position=(1.0, 2.0, 0.0))
        await told.accepted(two.name, epoch)
        pushed = await one.kick(
            ball, owner="Player2", to=two.name, position=(1.0, 2.0, 0.0), velocity=(3.0, 0.0, 0.0)
        )
        await told.accepted(one.name, pushed)
        taken = await one.take(ball, owner="Player1")
        assert epoch < pushed < taken
        given = await one.kick(
            ball, owner="Player3", to=one.name, position=(1.0, 2.0, 0.0), velocity=(0.0, 0.0, 0.0)
        )
        assert given == taken
        with pytest.raises(CommandFailedError, match=r"InvalidStateError: .* does not hold"):
            await two.kick(ball, owner="P", to=one.name, position=(0, 0, 0), velocity=(0, 0, 0))
        report = await two.report()
        assert decode_entries(report.history)
        assert report.malformed == 0
        servers = children() - before
        processes = servers.union(*(descendants(pid) for pid in servers))
        assert len(processes) == 6
        for pid in servers:
            os.kill(pid, signal.SIGSTOP)
        waiting = asyncio.create_task(two.report())
        await asyncio.sleep(0)
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ClosedError, match="ended"):
            await waiting
        record = await store.get([Atom("bridge"), Atom("entities"), ball], favor="consistency")
        # Their guardians may have ended their sessions by now, which changes the authority alone.
        assert record[Atom("owner")] == b"Player3"
    finally:
        await one.close()
        await two.close()
    with pytest.raises(ClosedError):
        await two.take(ball, owner="P")
    async with asyncio.timeout(20):
        while any(is_alive(pid) for pid in processes):
            await asyncio.sleep(0.01)
    assert children() == before


@pytest.mark.erlang
async def test_a_driver_asks_for_players_and_answers_for_masters(cluster: LocalCluster) -> None:
    """R0-8."""
    told = Told()
    one, two = (
        SimulationProcess(name, command(cluster, name), told) for name in (fresh("sim"), fresh("sim"))
    )
    gun, mia, bob = fresh("gun"), fresh("Mia"), fresh("Bob")
    try:
        await asyncio.gather(one.start(), two.start())
        await one.enter(mia)
        await two.enter(bob)
        epoch = await one.spawn(gun, owner=mia, position=(0.0, 0.0, 0.0), rule=Rule.ASK)
        await told.accepted(two.name, epoch)
        for grant in (False, True):
            waiting = asyncio.create_task(two.request(gun, player=bob))
            await told.until(lambda: any(isinstance(event, Asked) for _, event in told.events))
            told.events.clear()
            answered = await one.answer(gun, player=bob, by=mia, grant=grant)
            if grant:
                assert await waiting == answered > epoch
            else:
                with pytest.raises(CommandFailedError, match="DeniedError"):
                    await waiting
        with pytest.raises(CommandFailedError, match="NotMasterError"):
            await one.delete(gun, by=bob)
        assert await one.delete(gun, by=mia) > answered
        await told.until(
            lambda: EntityDeleted in (type(event) for name, event in told.events if name == two.name)
        )
    finally:
        await one.close()
        await two.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('no such cluster')", "no such cluster"),
        ("print('hello', flush=True)", "hello"),
        ("", "no reason given"),
    ],
)
async def test_a_server_that_ends_instead_of_starting_says_why(script: str, reason: str) -> None:
    process = SimulationProcess("sim1", [sys.executable, "-c", script], Told())
    with pytest.raises(ConfigurationError, match=f"sim1 ended: .*{reason}"):
        await process.start()
    await process.close()


async def test_a_start_that_nobody_waits_for_any_more_fails_in_silence() -> None:
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    server = SimulationProcess("sim1", [sys.executable, "-c", "input()"], Told())
    starting = asyncio.create_task(server.start())
    while server._reading is None:
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await server.close()
    del server, starting
    gc.collect()
    assert noise == []


async def test_a_server_that_was_never_started_takes_no_command() -> None:
    process = SimulationProcess("sim1", ["false"], Told())
    with pytest.raises(ClosedError, match="does not run"):
        await process.report()
    await process.close()

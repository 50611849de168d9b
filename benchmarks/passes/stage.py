"""Two simulation servers in processes of their own, and homeservers at the other end of a road."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.passes.proxy import HOST, port_mapper, proxied
from benchmarks.passes.road import Road
from benchmarks.passes.series import SERVERS, Crossing
from bridge.authority import Message
from bridge.cli.connection import local_way, open_store
from bridge.cluster.local import LocalCluster
from bridge.node.epmd import names
from bridge.registry import OPERATOR, Ownership
from bridge.sim.driver import SimulationProcess
from bridge.sim.events import (
    AuthorityGained,
    EntityUpdated,
    PeerSessionChanged,
    Problem,
    ServerEvent,
    StateAccepted,
)
from bridge.sim.match import Match, spread

_CONNECT_SECONDS: Final = 60.0
_COMMITS: Final = 60
_CENTRE: Final = (52.5, 34.0, 0.0)


class Stage:
    """Running servers, the balls they hold, and passes of each kind between them.

    Attributes:
        servers: by name.
        instances: by name of a server, where there is more than one.
    """

    def __init__(self) -> None:
        self.servers: dict[str, SimulationProcess] = {}
        self.instances: dict[str, str] = {}
        self.problems: list[str] = []
        self._up: set[str] = set()
        self._free: defaultdict[str, deque[str]] = defaultdict(deque)
        self._numbers = itertools.count(1)
        # A ball that went to another instance in an earlier cell is not to be made again.
        self._prefix = secrets.token_hex(4)
        self._waiting: dict[tuple[str, str, str], asyncio.Future[int]] = {}
        self._changed = asyncio.Event()

    def on_event(self, server: str, event: ServerEvent) -> None:
        """Take an event of a server."""
        match event:
            case AuthorityGained(entity=entity, at_ns=at_ns):
                self._tell(("acts", server, entity), at_ns)
            case StateAccepted(entity=entity, at_ns=at_ns):
                self._tell(("sees", server, entity), at_ns)
            case EntityUpdated(entity=entity, at_ns=at_ns):
                self._tell(("obeys", server, entity), at_ns)
            case PeerSessionChanged(up=up):
                (self._up.add if up else self._up.discard)(server)
                self._changed.set()
            case Problem(text=text):
                self.problems.append(f"{server}: {text}")

    async def begin(self, match: Match) -> None:
        """Wait for the datagram sessions, and let the players enter."""
        async with asyncio.timeout(_CONNECT_SECONDS):
            while len(self._up) < len(self.servers):
                self._changed.clear()
                await self._changed.wait()
        home = spread(match.players, SERVERS)
        await asyncio.gather(*(self.servers[server].enter(player) for player, server in home.items()))

    async def messages(self) -> list[Message]:
        """Every message that crossed so far, of both servers."""
        reports = await asyncio.gather(*(server.report() for server in self.servers.values()))
        return [message for report in reports for message in report.messages]

    async def push(self, crossing: Crossing) -> tuple[float, float | None]:
        """Case 2: the passer's server gives ball and authority away."""
        return await self._kick(crossing, "push")

    async def abroad(self, crossing: Crossing) -> tuple[float, float | None]:
        """Case 1: the passer's server gives to one of another instance."""
        giver, taker = crossing.giver, crossing.taker
        ball = await self._ball(giver)
        acts, sees = self._expect("acts", taker, ball), self._expect("sees", giver, ball)
        begin = time.monotonic_ns()
        giving = asyncio.create_task(
            self.servers[giver].push_abroad(
                ball, owner=crossing.play.receiver, instance=self.instances[taker], to=taker
            )
        )
        return await self._outcome(giving, begin, acts, sees, ball, taker)

    async def switch(self, crossing: Crossing) -> tuple[float, float | None]:
        """R0-33: the passer's server offers, the receiver's claims."""
        return await self._kick(crossing, "offer")

    async def pull(self, crossing: Crossing) -> tuple[float, float | None]:
        """Case 2: the receiver's server takes the ball."""
        giver, taker = crossing.giver, crossing.taker
        ball = await self._ball(giver)
        acts, sees = self._expect("acts", taker, ball), self._expect("sees", giver, ball)
        begin = time.monotonic_ns()
        taking = asyncio.create_task(self.servers[taker].take(ball, owner=crossing.play.receiver))
        return await self._outcome(taking, begin, acts, sees, ball, taker)

    async def update(self, crossing: Crossing) -> tuple[float, float | None]:
        """Case 3: the receiver's server holds the ball; the passer owns it, at the other server."""
        giver, taker, play = crossing.giver, crossing.taker, crossing.play
        ball = await self._ball(taker)
        await self.servers[taker].kick(
            ball, owner=play.passer, to=taker, position=_CENTRE, velocity=(0.0, 0.0, 0.0)
        )
        obeys = self._expect("obeys", taker, ball)
        begin = time.monotonic_ns()
        updating = asyncio.create_task(
            self.servers[giver].update(ball, by=play.passer, velocity=play.velocity, owner=play.receiver)
        )
        return await self._outcome(updating, begin, obeys, None, ball, taker)

    async def _kick(self, crossing: Crossing, way: str, *, instance: str = "") -> tuple[float, float | None]:
        giver, taker, play = crossing.giver, crossing.taker, crossing.play
        ball = await self._ball(giver)
        acts, sees = self._expect("acts", taker, ball), self._expect("sees", giver, ball)
        begin = time.monotonic_ns()
        kicking = asyncio.create_task(
            self.servers[giver].kick(
                ball,
                owner=play.receiver,
                to=taker,
                position=(*play.origin, 0.0),
                velocity=play.velocity,
                way=way,
            )
        )
        return await self._outcome(kicking, begin, acts, sees, ball, taker)

    async def _outcome(
        self,
        command: asyncio.Task[int],
        begin_ns: int,
        done: asyncio.Future[int],
        seen: asyncio.Future[int] | None,
        ball: str,
        holder: str,
    ) -> tuple[float, float | None]:
        """Wait for all that a pass brings; the ball is free again only after that."""
        try:
            await command
            done_ms = (await done - begin_ns) / 1e6
            seen_ms = None if seen is None else (await seen - begin_ns) / 1e6
        finally:
            command.cancel()
        self._free[holder].append(ball)
        return done_ms, seen_ms

    async def _ball(self, holder: str) -> str:
        """A ball that this server holds and the other one has seen, made where none is free."""
        if self._free[holder]:
            return self._free[holder].popleft()
        ball = f"ball-{self._prefix}-{next(self._numbers)}"
        (other,) = (name for name in self.servers if name != holder)
        sees = self._expect("sees", other, ball)
        await self.servers[holder].spawn(ball, owner="nobody", position=_CENTRE)
        if not self.instances:
            await sees
        return ball

    def _expect(self, what: str, server: str, ball: str) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[what, server, ball] = future
        return future

    def _tell(self, key: tuple[str, str, str], at_ns: int) -> None:
        future = self._waiting.pop(key, None)
        if future is not None and not future.done():
            future.set_result(at_ns)


@asynccontextmanager
async def stage(cluster: LocalCluster, road: Road, match: Match) -> AsyncIterator[Stage]:
    """Servers whose every link to another host is that road; homeservers are one site, near each other."""
    running = Stage()
    async with AsyncExitStack() as stack:
        started = [start_server(stack, cluster, name, road, running.on_event) for name in SERVERS]
        running.servers = dict(zip(SERVERS, await asyncio.gather(*started), strict=True))
        await running.begin(match)
        yield running


async def start_server(
    stack: AsyncExitStack,
    cluster: LocalCluster,
    name: str,
    road: Road,
    on_event: Callable[[str, ServerEvent], None],
) -> SimulationProcess:
    """A simulation server in a process of its own, the road before it on every side; ends with the stack."""
    epmd_port = cluster.epmd_port
    network = road.datagrams()
    if network is not None:
        ports = await names(HOST, epmd_port)
        members = {member.partition("@")[0] for member in cluster.members}
        near = {member: port for member, port in ports.items() if member in members}
        far = await stack.enter_async_context(proxied(near, road))
        epmd_port = await stack.enter_async_context(port_mapper(far))
    cookie = cluster.directory / "passes.cookie"
    cookie.touch(0o600)
    cookie.write_text(cluster.cookie)
    command = [*_command(cluster.members, cookie, epmd_port), "--name", name]
    # The same server in every cell, as the homeservers know it.
    command += ["--key-file", str(cluster.directory / f"{name}.pem")]
    if network is not None:
        command += ["--network", str(network)]
    server = SimulationProcess(name, command, on_event)
    stack.push_async_callback(server.close)
    await server.start()
    return server


def _command(members: Iterable[str], cookie: Path, epmd_port: int) -> list[str]:
    command = [sys.executable, "-m", "bridge.cli", "sim", "--keep-history", "--commands", "--no-register"]
    for member in members:
        command += ["--member", member]
    return [*command, "--cookie-file", str(cookie), "--epmd-port", str(epmd_port)]


async def commit_ms(cluster: LocalCluster, running: Stage) -> float:
    """Median of one committed transaction of the homeservers, asked for from beside them."""
    await running.servers[SERVERS[0]].spawn("clerk", owner="nobody", position=_CENTRE)
    times = []
    async with open_store(local_way(cluster.directory, cluster.state)) as store:
        ownership = Ownership(store)
        for number in range(_COMMITS):
            begin = time.monotonic_ns()
            await ownership.transfer("clerk", f"owner{number}", by=OPERATOR)
            times.append((time.monotonic_ns() - begin) / 1e6)
    return statistics.median(times)


def problem_note(problems: list[str]) -> str:
    """What servers complained about, in short."""
    return f"; {len(problems)} problems, last: {problems[-1]:.150}" if problems else ""

"""Every case of a transfer, performed on running servers so that its messages can be counted (R0-28…38)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bridge.authority import Message, transfers
from bridge.errors import DeadlineError
from bridge.registry import Ask, Rule
from bridge.sim.events import AuthorityGained, EntityUpdated, PeerSessionChanged, ServerEvent, StateAccepted
from bridge.sim.server import SimulationServer

_SECONDS: Final = 30.0
_CENTRE: Final = (0.0, 0.0, 0.0)


class Cases:
    """Performs the cases of one instance, one after another.

    Attributes:
        took_ms: by case, milliseconds from its command until the new holder acted or obeyed.
    """

    def __init__(self) -> None:
        self.took_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._servers: Sequence[SimulationServer] = ()
        self._told: dict[tuple[str, str, str, int], int] = {}
        self._updated: defaultdict[str, list[int]] = defaultdict(list)
        self._sessions: defaultdict[str, set[str]] = defaultdict(set)
        self._changed = asyncio.Event()

    def listener(self, server: str) -> Callable[[ServerEvent], None]:
        """What a server of that name is to tell its events to."""

        def on_event(event: ServerEvent) -> None:
            match event:
                case AuthorityGained(entity=entity, epoch=epoch, at_ns=at_ns):
                    self._told["acts", server, entity, epoch] = at_ns
                case StateAccepted(entity=entity, epoch=epoch, at_ns=at_ns):
                    self._told["sees", server, entity, epoch] = at_ns
                case EntityUpdated(entity=entity, at_ns=at_ns):
                    self._updated[entity].append(at_ns)
                case PeerSessionChanged(server=other, up=True):
                    self._sessions[server].add(other)
                case _:
                    pass
            self._changed.set()

        return on_event

    async def perform(self, servers: Sequence[SimulationServer], times: int) -> None:
        """Perform each case so many times, then a push between every two servers.

        Args:
            servers: three or more that run, each with its ``listener``.

        Raises:
            BridgeError: a request was refused, or something took longer than half a minute.
        """
        self._servers = servers
        names = {server.config.name for server in servers}
        await self._until(
            lambda: all(self._sessions[name] >= names - {name} for name in names), "datagram sessions"
        )
        here, there, elsewhere = servers[:3]
        await here.transfers.enter("ann")
        await there.transfers.enter("bob")
        await elsewhere.transfers.enter("mia", _grant)
        await self._moves(here, there, times)
        await self._asks(here, there, times)
        await self._meet_all()

    def messages(self) -> list[Message]:
        """All that crossed so far, of all servers."""
        return [message for server in self._servers for message in server.transfers.messages]

    def hops(self) -> dict[tuple[str, str], float]:
        """Hops from one server to another, by ordered pair, as acknowledgements of pushes crossed."""
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for transfer in transfers(self.messages()):
            if transfer.case == "push" and transfer.is_whole:
                grant = next(m for m in transfer.messages if m.kind == "grant")
                accepted = next(m for m in transfer.messages if m.kind == "accepted")
                found[accepted.sender, accepted.receiver].append(accepted.hop - grant.hop)
        return {pair: sum(hops) / len(hops) for pair, hops in found.items()}

    async def _moves(self, here: SimulationServer, there: SimulationServer, times: int) -> None:
        """Push there, pull back, switch there, update it there from here, and pull back."""
        ball = await self._spawn(here, "case-ball", Rule.ALLOW)
        for _ in range(times):
            begin = time.monotonic_ns()
            record = await here.transfers.push(ball, owner="bob", to=there.config.name)
            await self._moved("push", begin, ball, there, here, record.epoch)
            begin = time.monotonic_ns()
            record = await here.transfers.pull(ball, owner="ann")
            await self._moved("pull", begin, ball, here, there, record.epoch)
            begin, known = time.monotonic_ns(), record.epoch
            await here.transfers.offer(ball, owner="bob", to=there.config.name)
            await self._until(lambda: self._latest("acts", there, ball) > known, "claim")  # noqa: B023
            await self._moved("switch", begin, ball, there, here, self._latest("acts", there, ball))
            await there.transfers.give(ball, owner="ann")
            begin, updates = time.monotonic_ns(), len(self._updated[ball])
            await here.transfers.update(ball, by="ann", velocity=(1.0, 0.0, 0.0))
            await self._until(lambda: len(self._updated[ball]) > updates, "update")  # noqa: B023
            self.took_ms["update"].append((self._updated[ball][-1] - begin) / 1e6)
            record = await here.transfers.pull(ball, owner="ann")
            await self._moved("", begin, ball, here, there, record.epoch)

    async def _asks(self, here: SimulationServer, there: SimulationServer, times: int) -> None:
        """Ask the master, who is at a third server, for each of the two in turn."""
        gun = await self._spawn(here, "case-gun", Rule.ASK, master="mia")
        turns = itertools.cycle([(there, "bob", here), (here, "ann", there)])
        for asker, player, holder in itertools.islice(turns, times):
            begin = time.monotonic_ns()
            record = await asker.transfers.request(gun, player=player)
            await self._moved("ask", begin, gun, asker, holder, record.epoch)

    async def _meet_all(self) -> None:
        ball = await self._spawn(self._servers[0], "case-round", Rule.ALLOW)
        holder = self._servers[0]
        for taker in _round(self._servers):
            record = await holder.transfers.push(ball, owner="ann", to=taker.config.name)
            await self._moved("", 0, ball, taker, holder, record.epoch)
            holder = taker

    async def _spawn(
        self, server: SimulationServer, entity: str, rule: Rule, *, master: str | None = None
    ) -> str:
        record = await server.transfers.spawn(entity, owner=master or "ann", position=_CENTRE, rule=rule)
        for other in self._servers:
            if other is not server:
                await self._seen(other, entity, record.epoch)
        return entity

    async def _moved(
        self,
        case: str,
        begin_ns: int,
        entity: str,
        taker: SimulationServer,
        giver: SimulationServer,
        epoch: int,
    ) -> None:
        """Wait until the taker acts and the giver has seen it; the time of the first is kept."""
        key = ("acts", taker.config.name, entity, epoch)
        await self._until(lambda: key in self._told, f"{case or 'move'} of {entity}")
        if case:
            self.took_ms[case].append((self._told[key] - begin_ns) / 1e6)
        await self._seen(giver, entity, epoch)

    async def _seen(self, server: SimulationServer, entity: str, epoch: int) -> None:
        key = ("sees", server.config.name, entity, epoch)
        await self._until(lambda: key in self._told, f"state of {entity}")

    def _latest(self, what: str, server: SimulationServer, entity: str) -> int:
        """The newest epoch of which a server told that."""
        keys = (key for key in self._told if key[:3] == (what, server.config.name, entity))
        return max((epoch for *_, epoch in keys), default=0)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise DeadlineError(f"no {what} within {_SECONDS:.0f} s") from None


async def _grant(_ask: Ask) -> bool:
    return True


def _round(servers: Sequence[SimulationServer]) -> list[SimulationServer]:
    """Takers one after another, from the first server on, so that each ordered pair meets at least once."""
    route: list[SimulationServer] = []
    at = servers[0]
    left = set(itertools.permutations(range(len(servers)), 2))
    index: Mapping[int, int] = {id(server): number for number, server in enumerate(servers)}
    while left:
        here = index[id(at)]
        # Every server has as many ways out as in, so that a way left anywhere else can be reached.
        ways = [there for one, there in left if one == here]
        there = max(ways) if ways else next(iter(left))[0]
        left.discard((here, there))
        at = servers[there]
        route.append(at)
    return route

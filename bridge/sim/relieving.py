"""Sheds authority to servers with less to do: asks who has room, then pushes (R0-44).

Nothing is said while nobody has too much to do. A push states the owner as it is, so no rule is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bridge.authority import MAX_RELIEF, Relief, Room
from bridge.errors import BridgeError
from bridge.sim.shedding import Offered, Shedding, assigned
from bridge.sim.standing import Spawn, Standing
from bridge.sim.transfers import Transfers

_ROUND_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 0.25
"""until whoever has not answered is left out of a round"""

_log = logging.getLogger("bridge.sim")


@dataclass(slots=True)
class ReliefCounts:
    """Since the session began.

    Attributes:
        shed: entities given away.
        failed: pushes that were refused, or whose outcome is unknown.
        in_vain: rounds in which nobody had room.
    """

    shed: int = 0
    failed: int = 0
    in_vain: int = 0


class Relieving:
    """What one session sheds, and its answers to others that shed.

    Args:
        shedding: the server's load.
        standing: what the session holds, and whom it knows.
        transfers: pushes.
        streamed: those of some entities whose newest state is here.
        may_act: whether the lease lasts, now.
        spawn: runs work in the background and reports its failure.

    Attributes:
        counts: for metrics.
    """

    def __init__(
        self,
        *,
        shedding: Shedding,
        standing: Standing,
        transfers: Transfers,
        streamed: Callable[[tuple[str, ...]], Awaitable[tuple[str, ...]]],
        may_act: Callable[[], bool],
        spawn: Spawn,
    ) -> None:
        self.counts = ReliefCounts()
        self._shedding = shedding
        self._standing = standing
        self._transfers = transfers
        self._streamed = streamed
        self._may_act = may_act
        self._spawn = spawn
        self._rooms: dict[str, Offered] = {}
        self._rounds = 0

    async def run(self) -> None:
        """Shed where need be, a round a second, until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            held = self._standing.held()
            number = self._shedding.excess(len(held))
            if number and self._may_act():
                await self._shed(held, number)

    async def _shed(self, held: list[str], number: int) -> None:
        # Others next time: those asked about first may be streamed in by nobody.
        begin = self._rounds * MAX_RELIEF % len(held)
        self._rounds += 1
        asked = tuple((held[begin:] + held[:begin])[:MAX_RELIEF])
        self._rooms.clear()
        for server in self._standing.servers.in_session():
            self._standing.tell(server, Relief(entities=asked))
        await asyncio.sleep(_ANSWER_SECONDS)
        given = assigned(asked, self._rooms)[:number]
        if not given:
            self.counts.in_vain += 1
        for entity, server in given:
            await self._give(entity, server)

    async def _give(self, entity: str, server: str) -> None:
        # Whom a player named in the play before the homeserver has heard of it counts too.
        owner = self._transfers.direct.owner(entity)
        try:
            await self._transfers.push(entity, owner=owner, to=server)
        except BridgeError as error:
            self.counts.failed += 1
            _log.info("%s was not shed to %s: %s", entity, server, error)
        else:
            self.counts.shed += 1

    def take_message(self, server: str, message: Relief | Room) -> None:
        """Serve another server that has too much to do, or hear what one has room for."""
        match message:
            case Room(load=load, entities=entities):
                self._rooms[server] = Offered(load, frozenset(entities))
            case Relief(entities=entities):
                self._spawn(self._answer(server, entities))

    async def _answer(self, server: str, entities: tuple[str, ...]) -> None:
        held = self._standing.count_held()
        room = self._shedding.room(held) if self._may_act() else 0
        found = (await self._streamed(entities))[:room] if room else ()
        self._standing.tell(server, Room(load=held, entities=found))

"""Hands over what leaves a server's zones of a mesh, and all that it holds before it ends (R0-A5).

What to give to whom ``zones.py`` decides. The taker is asked first whether it has room, while the giver still
acts; where it has none, or does not answer, the entity stays and is asked about again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bridge.authority import MAX_RELIEF, Border, Relief, Room
from bridge.errors import BridgeError
from bridge.sim.following import Following
from bridge.sim.ghosts import Ghosts
from bridge.sim.standing import Spawn, Standing
from bridge.sim.transfers import Transfers
from bridge.sim.zones import NOBODY, Layout, Part

_ROUND_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 1.0
"""until whoever has not answered is taken to have no room"""
_AGAIN_SECONDS: Final = 1.0
"""until one that had no room for all is asked again"""
_KEPT_SECONDS: Final = 2.0
"""how long room is kept for what was promised to come"""

_log = logging.getLogger("bridge.sim")


@dataclass(slots=True)
class ZoneCounts:
    """Since the session began.

    Attributes:
        given: entities handed over since they left the zones of this server.
        drained: entities handed over since this server ends.
        deferred: times that a neighbour had no room for an entity, or gave no answer: it stayed.
        failed: pushes that were refused, or whose outcome is unknown.
    """

    given: int = 0
    drained: int = 0
    deferred: int = 0
    failed: int = 0


class Zoning:
    """What one session hands over in a mesh, and what it answers others that do.

    Args:
        layout: of the mesh.
        most: entities that this server takes, where the layout sets no budget of authority.
        standing: what the session holds, and whom it knows.
        transfers: pushes.
        following: what the server follows.
        may_act: whether the lease lasts, now.
        spawn: runs work in the background and reports its failure.

    Attributes:
        counts: for metrics.
        rounds: times that this server has looked at where its entities are.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        most: int,
        standing: Standing,
        transfers: Transfers,
        following: Following,
        may_act: Callable[[], bool],
        spawn: Spawn,
    ) -> None:
        self.counts = ZoneCounts()
        self.rounds = 0
        self._part = Part(layout, standing.name, standing.slots.capacity)
        budget = layout.policy.authority_budget
        self._budget = most if budget is None else budget
        self._standing = standing
        self._transfers = transfers
        self._following = following
        self._may_act = may_act
        self._spawn = spawn
        self._ghosts = Ghosts(
            standing=standing,
            following=following,
            budget=layout.policy.ghost_budget,
            reached=self._is_reached,
        )
        self._clock = asyncio.get_running_loop().time
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._answers: dict[str, asyncio.Future[frozenset[str]]] = {}
        self._not_before: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._promised: dict[str, float] = {}
        self._is_draining = False

    @property
    def ghosts(self) -> frozenset[str]:
        """Entities of others that are followed since they are near."""
        return frozenset(self._following.ghosts)

    async def run(self) -> None:
        """Hand over what left, four rounds a second, until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            now = self._clock()
            held = self._standing.held()
            if self._may_act():
                self._round(held, now)
            self._ghosts.settle(now=now)
            await self._standing.tidy()
            self.rounds += 1

    def _round(self, held: list[str], now: float) -> None:
        slots, positions = self._where(held)
        for server, near in self._part.bordering(positions).items():
            self._ghosts.tell(server, [(held[row], metres) for row, metres in near], now=now)
        takers = self._part.due(slots, positions, now=now)
        if self._is_draining:
            return
        leaving: defaultdict[str, list[str]] = defaultdict(list)
        for row in np.flatnonzero(takers != NOBODY).tolist():
            # Near a corner it may be due to another one by the time that the first one has answered.
            if held[row] not in self._leaving:
                leaving[self._part.servers[takers[row]]].append(held[row])
        for server, entities in leaving.items():
            if self._is_reached(server) and now >= self._not_before.get(server, now):
                # Until its answer has come, and what it takes is gone.
                self._not_before[server] = np.inf
                # Others next time: a push may fail again and again.
                begin = self.rounds * MAX_RELIEF % len(entities)
                some = (entities[begin:] + entities[:begin])[:MAX_RELIEF]
                self._spawn(self._hand_over(server, some))

    def _where(self, held: list[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        slots = np.array([self._standing.slots[entity] for entity in held], dtype=np.int32)
        world = self._standing.plane.world
        return slots, world.gather(slots.astype(np.intp)).positions[:, :2]

    def _is_reached(self, server: str) -> bool:
        return (
            self._standing.servers.session_of(server) is not None and server in self._standing.plane.reached
        )

    async def _hand_over(self, server: str, entities: list[str]) -> None:
        again = 0.0
        self._leaving.update(entities)
        try:
            taken = await self._room(server, entities)
            given = await self._give(server, taken)
            self.counts.given += len(given)
            if len(given) < len(entities):
                again = self._clock() + _AGAIN_SECONDS
        finally:
            self._leaving.difference_update(entities)
            self._not_before[server] = again

    async def _room(self, server: str, entities: Sequence[str]) -> list[str]:
        """Those of the entities that a server would take now."""
        async with self._asking[server]:
            answer: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
            self._answers[server] = answer
            self._standing.tell(server, Relief(entities=tuple(entities)))
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    taken = await answer
            except TimeoutError:
                taken = frozenset()
            finally:
                del self._answers[server]
        found = [entity for entity in entities if entity in taken]
        self.counts.deferred += len(entities) - len(found)
        return found

    async def _give(self, server: str, entities: Iterable[str]) -> list[str]:
        pushes = await asyncio.gather(*(self._push(entity, server) for entity in entities))
        return [entity for entity in pushes if entity is not None]

    async def _push(self, entity: str, server: str) -> str | None:
        # Whom a player named in the play before the homeserver has heard of it counts too.
        owner = self._transfers.direct.owner(entity)
        try:
            await self._transfers.push(entity, owner=owner, to=server)
        except BridgeError as error:
            self.counts.failed += 1
            _log.info("%s was not handed over to %s: %s", entity, server, error)
            return None
        self._ghosts.keep(entity, server, now=self._clock())
        return entity

    async def drain(self) -> None:
        """Hand over all that is held, each entity to the nearest server that has room for it.

        Nothing is taken from now on. What nobody has room for is held still when this returns.
        """
        self._is_draining = True
        refused: defaultdict[str, set[str]] = defaultdict(set)
        while held := self._standing.held():
            chosen: defaultdict[str, list[str]] = defaultdict(list)
            for entity, others in zip(held, self._part.successors(self._where(held)[1]), strict=True):
                able = (s for s in others if s not in refused[entity] and self._is_reached(s))
                if (server := next(able, None)) is not None:
                    chosen[server].append(entity)
            if not chosen:
                return
            given = await asyncio.gather(
                *(self._pass_on(server, entities[:MAX_RELIEF]) for server, entities in chosen.items())
            )
            for (server, entities), passed in zip(chosen.items(), given, strict=True):
                for entity in entities[:MAX_RELIEF]:
                    if entity not in passed:
                        refused[entity].add(server)

    async def _pass_on(self, server: str, entities: list[str]) -> list[str]:
        given = await self._give(server, await self._room(server, entities))
        self.counts.drained += len(given)
        return given

    def take_message(self, server: str, message: Relief | Room | Border) -> None:
        """Serve a neighbour that hands over, hear what one has room for, or what is near the border."""
        match message:
            case Room(entities=entities):
                answer = self._answers.get(server)
                if answer is not None and not answer.done():
                    answer.set_result(frozenset(entities))
            case Relief(entities=entities):
                taken = self._promise(entities)
                self._standing.tell(server, Room(load=self._standing.count_held(), entities=taken))
            case Border():
                self._ghosts.take(server, message, now=self._clock())

    def _promise(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the entities for which there is room, which is kept for them a moment."""
        if self._is_draining or not self._may_act():
            return ()
        now, held = self._clock(), set(self._standing.held())
        self._promised = {e: until for e, until in self._promised.items() if until > now and e not in held}
        room = self._budget - len(held) - len(self._promised)
        taken = []
        for entity in entities:
            if entity not in self._promised:
                if room <= 0:
                    continue
                room -= 1
            self._promised[entity] = now + _KEPT_SECONDS
            taken.append(entity)
        return tuple(taken)

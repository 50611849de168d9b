"""Entities that pass to servers of other instances, and come from them (Case 1, R0-28).

The giver stops and seals its last state for the other server before anybody is asked; from then on the
homeservers carry the entity, and this server hears what became of it in its inbox.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bridge.authority import HOME, Phase
from bridge.errors import InvalidStateError
from bridge.registry import (
    REFUSED,
    Closed,
    EntityRecord,
    Grant,
    Homeserver,
    NotHolderError,
    Returned,
    abroad_name,
)
from bridge.sim.dataplane.messages import RaiseFence
from bridge.sim.settling import Settling
from bridge.sim.standing import Spawn, Standing, first_step

_MAX_DECISIONS: Final = 1_024
"""decisions that are kept for who did not ask yet"""


class Abroad:
    """What one session gives to servers of other instances.

    Args:
        standing: what the session holds, and whom it knows.
        home: its requests.
        settling: takes back what nobody answers for.
        spawn: runs work in the background and reports its failure.
    """

    def __init__(self, *, standing: Standing, home: Homeserver, settling: Settling, spawn: Spawn) -> None:
        self._standing = standing
        self._home = home
        self._settling = settling
        self._spawn = spawn
        self._waiting: dict[str, asyncio.Future[Closed | Returned]] = {}
        self._heard: dict[str, int] = {}
        self._takers: set[str] = set()

    async def push(self, entity: str, *, owner: str, instance: str, to: str) -> EntityRecord:
        """Put an entity into escrow for a server of another instance.

        Args:
            entity: held here.
            owner: its new owner, as the other instance knows players.
            instance: a pinned one.
            to: its server.

        Raises:
            NotHolderError: another server pulled it first; its recall is obeyed.
            AuthorityError: refused; this server goes on simulating.
            UnknownServerError: the other instance has told of no such server. One that was given to before is
                not asked for first: its instance refuses where it is no more.
            InvalidStateError: not held here; nothing was changed.
            OutcomeUnknownError: the answer was lost; this server no longer acts, and does as its inbox says.
        """
        standing = self._standing
        async with standing.locks[entity]:
            epoch = standing.must_hold(entity)
            taker = abroad_name(to, instance)
            if taker not in self._takers:
                await self._look_up(instance, to)
            else:
                # Not waited for: that would be a round trip on the way of every transfer but the first.
                # Where the taker has another key by now, its instance refuses, and the next one knows.
                self._spawn(self._look_up(instance, to))
            step = first_step()
            box = await standing.stop(entity, taker)
            standing.pinned.add(entity)
            self._expect(entity)
            with self._settling.unless_answered(entity, epoch):
                try:
                    record = await self._home.push_abroad(
                        entity=entity, epoch=epoch, owner=owner, instance=instance, to=to, box=box, step=step
                    )
                except NotHolderError:
                    standing.pinned.discard(entity)
                    raise
                except REFUSED:
                    # Refused for good: nothing was changed, and nobody was told.
                    if standing.holdings[entity].phase is Phase.RELEASING:
                        standing.act(entity, standing.holdings.resume(entity).epoch)
                    raise
            standing.crossed(step, "push_abroad", standing.name, HOME)
            standing.crossed(step.next(), "answer", HOME, standing.name)
            standing.holdings.follow(entity, record.epoch)
            standing.raise_fence(record)
            return record

    async def _look_up(self, instance: str, to: str) -> None:
        record = await self._home.server_abroad(instance, to)
        self._standing.servers.learn(record)
        self._takers.add(record.server)

    async def decided(self, entity: str, *, seconds: float) -> Closed | Returned:
        """Wait for what became of the entity that was put into escrow last; told once.

        Raises:
            InvalidStateError: nothing was, or the other instance has not decided in time; it will.
        """
        waiting = self._waiting.get(entity)
        if waiting is None:
            raise InvalidStateError(f"{entity} was not given to another instance here")
        if not (await asyncio.wait([waiting], timeout=seconds))[0]:
            raise InvalidStateError(f"{entity}: the other instance has not decided yet")
        if self._waiting.get(entity) is waiting:
            del self._waiting[entity]
        return waiting.result()

    def _expect(self, entity: str) -> None:
        self._waiting.pop(entity, None)
        self._waiting[entity] = asyncio.get_running_loop().create_future()
        for other in list(self._waiting)[:-_MAX_DECISIONS]:
            if self._waiting[other].done():
                del self._waiting[other]

    async def take_giver(self, grant: Grant) -> None:
        """Know the giver of a grant, which may be of another instance: then the grant tells its key."""
        if grant.abroad is None:
            await self._standing.servers.know(grant.giver)
        else:
            self._standing.servers.learn(grant.abroad)

    def close(self, closed: Closed) -> None:
        """The entity is the other instance's: state of its holder there is believed from now on."""
        standing = self._standing
        heard = self._heard.get(closed.entity, 0)
        if closed.epoch <= heard or closed.epoch < standing.holdings[closed.entity].epoch:
            return  # The feed is at least once, and a snapshot tells old news.
        self._heard[closed.entity] = closed.epoch
        standing.pinned.discard(closed.entity)
        standing.crossed(closed.step, "closed", HOME, standing.name)
        standing.holdings.follow(closed.entity, closed.epoch)
        standing.plane.tell(RaiseFence(entity=closed.entity, epoch=closed.epoch, server=closed.holder))
        self._tell(closed)

    def has_closed(self, entity: str) -> bool:
        """Whether the newest that is known of an entity is that another instance has it."""
        heard = self._heard.get(entity, 0)
        record = self._standing.entities.get(entity)
        newest = max(self._standing.holdings[entity].epoch, 0 if record is None else record.epoch)
        return heard >= newest > 0

    def take_back(self, returned: Returned) -> None:
        """The other instance refused: go on from where this server stopped."""
        standing = self._standing
        holding = standing.holdings[returned.entity]
        if returned.epoch <= holding.epoch:
            return
        standing.crossed(returned.step, "returned", HOME, standing.name)
        if holding.phase is Phase.RELEASING:
            standing.holdings.follow(returned.entity, holding.epoch)
        standing.take_newest(returned.entity)
        standing.act(returned.entity, standing.holdings.grant(returned.entity, returned.epoch).epoch)
        self._tell(returned)

    def forget(self, entity: str) -> None:
        """The homeserver has the entity no more; what was decided about it is told still."""
        self._heard.pop(entity, None)

    def _tell(self, decision: Closed | Returned) -> None:
        waiting = self._waiting.get(decision.entity)
        if waiting is not None and not waiting.done():
            waiting.set_result(decision)

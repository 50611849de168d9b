"""What a server is asked to do with entities: create, give, push, pull, request, offer, place.

Nothing acts on a read: only on an answer of the homeserver to this server's own write, or on what it is told
in its inbox (``obedience.py``). Requests and messages about one entity are served one after another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import numpy.typing as npt

from bridge.authority import HOME, Message, Offer, Phase
from bridge.errors import InvalidStateError
from bridge.etf import Atom
from bridge.registry import (
    REFUSED,
    Answered,
    ConflictError,
    EntityExistsError,
    EntityRecord,
    Homeserver,
    NotHolderError,
    NotOwnerError,
    Ownership,
    Rule,
)
from bridge.replication import WorldState
from bridge.sim.abroad import Abroad
from bridge.sim.asks import AskHandler, Asks
from bridge.sim.dataplane.messages import Follow
from bridge.sim.direct import DirectUpdates
from bridge.sim.events import ServerEvent
from bridge.sim.settling import Settling
from bridge.sim.standing import Spawn, Standing, first_step

_CLAIM_SECONDS: Final = 10.0
"""how long an offer is left to its taker"""
_SPAWNING: Final = 256
"""entities of one ``spawn_many`` under way: four groups, so that the next is there when one is committed"""

_log = logging.getLogger("bridge.sim")


class Transfers:
    """What one session holds, and how it comes and goes at the server's own wish.

    Args:
        standing: what the session holds, and whom it knows.
        home: its requests.
        players: requests in the names of its players.
        asks: questions of the rule ``ask``.
        settling: takes back what nobody answers for.
        may_act: whether the lease lasts, now.
        on_event: is told of updates obeyed; must not block.
        spawn: runs work in the background and reports its failure.

    Attributes:
        direct: updates of players at other servers, and theirs there (Case 3).
        abroad: what goes to servers of other instances (Case 1).
        refused_changes: changes of players who do not own what they would change (R0-6).
    """

    def __init__(
        self,
        *,
        standing: Standing,
        home: Homeserver,
        players: Ownership,
        asks: Asks,
        settling: Settling,
        may_act: Callable[[], bool],
        on_event: Callable[[ServerEvent], None],
        spawn: Spawn,
    ) -> None:
        self.refused_changes = 0
        self._told_tight = False
        self._standing = standing
        self._home = home
        self._players = players
        self._asks = asks
        self._may_act = may_act
        self._settling = settling
        self.abroad = Abroad(standing=standing, home=home, settling=settling, spawn=spawn)
        self.direct = DirectUpdates(
            name=standing.name,
            holder=self,
            plane=standing.plane,
            record=standing.traces.add,
            on_event=on_event,
            spawn=spawn,
        )

    @property
    def messages(self) -> list[Message]:
        """The newest control messages that crossed; all of them where the server keeps its history."""
        return list(self._standing.traces)

    async def spawn(
        self, entity: str, *, owner: str, position: npt.ArrayLike, rule: Rule = Rule.ALLOW
    ) -> EntityRecord:
        """Create an entity that this server holds, or take over a dormant one of that name.

        Raises:
            ConflictError: somebody else holds it.
            InvalidStateError: this server holds it, or it is changing hands here.
        """
        async with self._standing.locks[entity]:
            self._standing.must_follow(entity)
            await self._standing.make_room(entity)
            try:
                record = await self._home.create_entity(entity=entity, owner=owner, master=owner, rule=rule)
            except EntityExistsError as error:
                known = await self._home.entity(entity)
                # One's own name there is that of an earlier session, whose end this member has not applied.
                if known.server not in (None, self._standing.name):
                    raise ConflictError(
                        f"{known.server} holds {entity}",
                        reason=error.reason,
                        props={"winner": known.server.encode(), "epoch": known.epoch},
                    ) from error
                record = await self._home.pull(
                    entity=entity, epoch=known.epoch, owner=owner, step=first_step()
                )
            # The answer may come when the session is over, and a later one holds what lies there.
            self._standing.must_follow(entity)
            self._standing.bodies.place(self._standing.slots[entity], position)
            return await self._standing.granted(record)

    async def spawn_many(
        self, positions: Mapping[str, npt.ArrayLike], *, owner: str, rule: Rule = Rule.ALLOW
    ) -> dict[str, EntityRecord]:
        """``spawn`` of a world: so many at a time that their requests go, and are committed, in groups.

        Args:
            positions: metres, by entity.

        Raises:
            BridgeError: what the first that failed raises. Those before it are spawned; the others are not,
                but for some that were under way.
        """
        records: dict[str, EntityRecord] = {}
        waiting = iter(positions.items())

        async def spawn_rest() -> None:
            for entity, position in waiting:
                records[entity] = await self.spawn(entity, owner=owner, position=position, rule=rule)

        spawning = [asyncio.create_task(spawn_rest()) for _ in range(min(_SPAWNING, len(positions)))]
        try:
            await asyncio.gather(*spawning)
        finally:
            for task in spawning:
                task.cancel()
            await asyncio.gather(*spawning, return_exceptions=True)
        return records

    async def give(self, entity: str, *, owner: str) -> EntityRecord:
        """Pass the entity to another player: the owner changes, the authority stays."""
        self.direct.supersede(entity, owner)
        return await self.record_owner(entity, owner=owner)

    async def record_owner(self, entity: str, *, owner: str) -> EntityRecord:
        """Have the homeserver record another owner of a held entity, whoever a player named before."""
        async with self._standing.locks[entity]:
            holding = self._standing.must_hold(entity)
            record = await self._home.give(entity=entity, epoch=holding, owner=owner, step=first_step())
            self._standing.note_owner(record)
            return record

    async def push(self, entity: str, *, owner: str, to: str) -> EntityRecord:
        """Pass owner and authority to another server (Case 2, push).

        Returns once the homeserver has granted it and this server has stopped: the other one acts as soon as
        it hears of it, which its event ``AuthorityGained`` tells.

        Raises:
            NotHolderError: another server pulled it first; its recall is obeyed.
            AuthorityError: refused; this server goes on simulating.
            InvalidStateError: not held here, or ``to`` is this server or has no key; nothing was changed.
            OutcomeUnknownError: the answer was lost; this server no longer acts, and follows whoever the
                homeserver names next. Where the push did not come to pass, it takes the entity back.
        """
        async with self._standing.locks[entity]:
            epoch = self._standing.must_hold(entity)
            await self._standing.servers.know(to)
            step = first_step()
            box = await self._standing.stop(entity, to)
            with self._settling.unless_answered(entity, epoch):
                try:
                    record = await self._home.push(
                        entity=entity, epoch=epoch, owner=owner, to=to, box=box, step=step
                    )
                except NotHolderError:
                    raise
                except REFUSED:
                    # Refused for good: nothing was changed, and no other server was told.
                    if self._standing.holdings[entity].phase is Phase.RELEASING:
                        self._standing.act(entity, self._standing.holdings.resume(entity).epoch)
                    raise
            self._standing.crossed(step, "push", self._standing.name, HOME)
            self._standing.crossed(step.next(), "answer", HOME, self._standing.name)
            self._standing.holdings.follow(entity, record.epoch)
            self._standing.raise_fence(record)
            return record

    async def push_abroad(self, entity: str, *, owner: str, instance: str, to: str) -> EntityRecord:
        """Pass owner and authority to a server of another instance (Case 1); see ``Abroad.push``."""
        return await self.abroad.push(entity, owner=owner, instance=instance, to=to)

    async def pull(self, entity: str, *, owner: str) -> EntityRecord:
        """Take owner and authority from whoever has it (Case 2, pull); returns once this server acts.

        Raises:
            ConflictError: another server took it in the same moment.
            DeniedError: the entity's rule forbids it.
            InvalidStateError: this server holds it or it is changing hands here, or the former holder's
                release did not come in time; it is waited for still.
        """
        async with self._standing.locks[entity]:
            self._standing.must_follow(entity)
            known = self._standing.entities.get(entity) or await self._home.entity(entity)
            step = first_step()
            record = await self._home.pull(entity=entity, epoch=known.epoch, owner=owner, step=step)
            self._standing.crossed(step, "pull", self._standing.name, HOME)
            self._standing.crossed(step.next(), "answer", HOME, self._standing.name)
            await self._standing.granted(record)
        await self._standing.until_acting(record)
        return record

    async def request(
        self, entity: str, *, player: str, authority: bool = True, seconds: float = 30.0
    ) -> EntityRecord:
        """Ask for an entity in the name of a player who is here; its rule decides (R0-8).

        Under ``ask`` this takes one round trip to its master. Returns once the player owns it and, with
        authority, this server acts for it.

        Args:
            entity: name.
            player: has entered here.
            authority: whether this server is to simulate it; else only the owner changes.
            seconds: how long the master may take.

        Raises:
            ConflictError: another one was faster, or was preferred by the master.
            DeniedError: the rule forbids it, or its master refused or did not answer.
            AuthorityError: refused for another reason (``Ownership.request``).
            InvalidStateError: as from ``pull``.
        """
        async with self._standing.locks[entity]:
            if authority:
                self._standing.must_follow(entity)
            known = self._standing.entities.get(entity) or await self._home.entity(entity)
            step = first_step()
            waiting = self._asks.expect(step)
            try:
                asked = await self._players.request(
                    known,
                    player=player,
                    session=self._standing.session,
                    authority=authority,
                    seconds=seconds,
                    step=step,
                )
            except BaseException:
                self._asks.forget(step)
                raise
            self._standing.crossed(step, "request" if asked.pending else "pull", self._standing.name, HOME)
            self._standing.crossed(step.next(), "answer", HOME, self._standing.name)
            record = asked.record
            if not asked.pending:
                self._asks.forget(step)
                if authority:
                    await self._standing.granted(record)
        if asked.pending:
            try:
                record = await self._asks.outcome(waiting, entity, player, seconds)
            finally:
                self._asks.forget(step)
        if authority:
            await self._standing.until_acting(record)
        return record

    async def answer(self, entity: str, *, player: str, by: str, grant: bool) -> Answered:
        """A master's answer to what ``player`` asked; for masters without a handler, told by ``Asked``.

        Raises:
            NotMasterError: ``by`` is not the master.
            NoAskError: nothing is asked (any more).
        """
        return await self._asks.answer(entity, player=player, by=by, grant=grant)

    async def enter(self, player: str, on_ask: AskHandler | None = None) -> None:
        """The player is at this server from now on.

        Args:
            player: name.
            on_ask: decides what others ask of the player as a master; without one, events tell (``Asked``).
        """
        await self._asks.enter(player, on_ask)

    async def leave(self, player: str) -> list[str]:
        """The player leaves; what they own passes to its masters (R0-8).

        Returns:
            The entities passed on.
        """
        return await self._asks.leave(player)

    async def delete(self, entity: str, *, by: str) -> EntityRecord:
        """Let there be no such entity any more; whoever simulates it, here or elsewhere, is told to stop.

        Raises:
            NotMasterError: ``by`` is not its master.
            AuthorityError: refused for another reason (``Ownership.delete_entity``).
        """
        return await self._players.delete_entity(entity, by=by, step=first_step())

    async def offer(self, entity: str, *, owner: str, to: str) -> None:
        """Hand the release directly to another server, which claims the entity (switching, R0-33).

        Where it does not do so in ten seconds, this server takes the entity back, and a claim comes too late.
        """
        async with self._standing.locks[entity]:
            epoch = self._standing.must_hold(entity)
            await self._standing.servers.know(to)
            step = first_step()
            box = await self._standing.stop(entity, to)
            self._standing.offers[entity] = (to, step)
            self._standing.tell(
                to, Offer(trace=step.trace, hop=step.hop, entity=entity, epoch=epoch, owner=owner, box=box)
            )
            self._settling.unless_claimed(entity, epoch, seconds=_CLAIM_SECONDS)

    def place(
        self,
        entity: str,
        position: npt.ArrayLike,
        velocity: npt.ArrayLike = (0.0, 0.0, 0.0),
        *,
        by: str | None = None,
    ) -> None:
        """Put a held entity somewhere, with a velocity.

        Args:
            entity: name.
            position: metres.
            velocity: metres a second.
            by: the player who wants it so, who must be its owner; ``None``: the simulation itself.

        Raises:
            InvalidStateError: it is not held here, or the lease of this server is over.
            NotOwnerError: ``by`` is not the owner; counted (R0-6).
        """
        self._must_move(entity, by)
        self._standing.bodies.place(self._standing.slots[entity], position, velocity)

    def move(
        self,
        entity: str,
        position: npt.ArrayLike,
        *,
        rotation: npt.ArrayLike | None = None,
        velocity: npt.ArrayLike = (0.0, 0.0, 0.0),
        angular_velocity: npt.ArrayLike = (0.0, 0.0, 0.0),
        by: str | None = None,
    ) -> None:
        """Say where a held entity has moved: others see a motion, where ``place`` is a jump.

        Many at once are moved by the server's ``motion``, which goes on from here at the next tick.

        Args:
            entity: name.
            position: metres.
            rotation: unit quaternion x, y, z, w; ``None`` leaves it as it is.
            velocity: metres a second, by which others predict.
            angular_velocity: radians a second.
            by: as of ``place``.

        Raises:
            InvalidStateError, NotOwnerError: as of ``place``.
        """
        self._must_move(entity, by)
        self._standing.bodies.move(
            self._standing.slots[entity],
            position,
            rotation=rotation,
            velocity=velocity,
            angular_velocity=angular_velocity,
        )

    def _must_move(self, entity: str, by: str | None) -> None:
        self._standing.must_hold(entity)
        if not self._may_act():
            raise InvalidStateError(f"the lease of {self._standing.name} is over: nothing moves for now")
        owner = self.direct.owner(entity)
        if by is not None and by != owner:
            self.refused_changes += 1
            raise NotOwnerError(
                f"{entity} is not {by}'s but {owner}'s",
                reason=Atom("not_owner"),
                props={"owner": owner.encode()},
            )

    async def update(
        self, entity: str, *, by: str, velocity: tuple[float, float, float], owner: str | None = None
    ) -> EntityRecord:
        """Change an entity that another server simulates, directly (Case 3); authority stays.

        Args:
            entity: name.
            by: its owner, a player who has entered here.
            velocity: metres a second, its new one.
            owner: who owns it from now on; ``None``: still ``by``.

        Returns:
            The entity as the homeserver told last, once its holder has taken the message.

        Raises:
            InvalidStateError: this server or none holds it, or the holder gave no credit in time.
            UnknownEntityError: there is none.
        """
        if self.held_epoch(entity) is not None:
            raise InvalidStateError(f"{self._standing.name} holds {entity} itself: place it")
        known = self._standing.entities.get(entity)
        # Who gave it away may know so before the feed has told the record.
        if (
            known is None
            or known.server == self._standing.name
            or known.epoch < self._standing.holdings[entity].epoch
        ):
            known = await self._home.entity(entity)
        await self.direct.send(known, by=by, velocity=velocity, owner=owner, step=first_step())
        return known

    def held_epoch(self, entity: str) -> int | None:
        """Epoch under which this server acts for the entity; ``None`` where it does not."""
        try:
            return self._standing.must_hold(entity)
        except InvalidStateError:
            return None

    def recorded_owner(self, entity: str) -> str:
        """Owner as the homeserver told last; empty where it told nothing."""
        return self._standing.owner(entity)

    def steer(self, entity: str, velocity: npt.ArrayLike) -> None:
        """Give a held entity another velocity, metres a second.

        Raises:
            InvalidStateError: it is not held here.
        """
        self._standing.must_hold(entity)
        self._standing.bodies.steer(self._standing.slots[entity], velocity)

    def slot(self, entity: str) -> int:
        """Which row of arrays by slot is the entity's: one that is held or followed.

        Raises:
            InvalidStateError: neither.
        """
        if entity not in self._standing.slots:
            raise InvalidStateError(f"{self._standing.name} has no state of {entity}")
        return self._standing.slots[entity]

    def follow(self, entity: str) -> None:
        """Keep the state of an entity that another server streams to this one, while there is room."""
        if self._standing.slots.may_follow(entity):
            self._standing.plane.tell(Follow(entity=entity, slot=self._standing.slots[entity]))
        elif not self._told_tight and self._standing.slots.most_followed:
            self._told_tight = True
            _log.warning(
                "%s has no room for the state of %s, nor of more: it follows %d entities at most; "
                "raise follow, and capacity to twice of it",
                self._standing.name,
                entity,
                self._standing.slots.most_followed,
            )

    def state(self, entity: str) -> WorldState:
        """The newest state of an entity: its own if held here, else what its holder told last.

        Raises:
            InvalidStateError: neither held nor followed.
        """
        return self._standing.plane.world.read(self.slot(entity))

    def held(self) -> list[str]:
        """Names of the entities that this server acts for (R0-2)."""
        return self._standing.held()

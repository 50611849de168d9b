"""What a server is told about its entities, by the homeserver and by other servers, and does about it.

Every change of authority is a message in the inbox that the homeserver keeps for this server's session, with
the other side's signed release where one is due. The feed alone only ends waits, and tells of a grant to this
session whose answer or message was lost: nothing else acts on a read.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from bridge.authority import HOME, Accepted, Bind, Border, Offer, PeerMessage, Phase, Released, Update
from bridge.errors import BridgeError, InvalidStateError
from bridge.registry import (
    Ask,
    AskEnded,
    Closed,
    EntityRecord,
    Failover,
    Grant,
    Homeserver,
    InboxMessage,
    Outcome,
    Recall,
    Recalled,
    Returned,
    Step,
    UnknownEntityError,
)
from bridge.sim.abroad import Abroad
from bridge.sim.asks import Asks
from bridge.sim.dataplane.messages import RaiseFence
from bridge.sim.direct import DirectUpdates
from bridge.sim.settling import Settling
from bridge.sim.standing import Spawn, Standing

ADOPT_SECONDS: Final = 1.0
"""after which an answer, or work on a message, is taken for lost; below a lease, after which a recall
counts as not obeyed"""
MAX_DEPARTED: Final = 1_024
"""entities that went home from here, of which the state goes on to be shown"""


class Obedience:
    """Serves what one session is told.

    Args:
        standing: what it holds, and whom it knows.
        home: requests of the session.
        asks: questions of the rule ``ask``.
        direct: updates of players at other servers (Case 3).
        abroad: what comes from other instances, and goes there (Case 1).
        settling: takes back what nobody got.
        spawn: runs work in the background and reports its failure.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        home: Homeserver,
        asks: Asks,
        direct: DirectUpdates,
        abroad: Abroad,
        settling: Settling,
        spawn: Spawn,
    ) -> None:
        self._standing = standing
        self._home = home
        self._asks = asks
        self._direct = direct
        self._abroad = abroad
        self._settling = settling
        self._spawn = spawn
        self._recalls: dict[str, Recall] = {}
        self._later: dict[str, AskEnded | Failover] = {}
        self._answered: dict[str, int] = {}
        self._early: dict[str, tuple[str, Released, int]] = {}
        self._gone: set[str] = set()
        self._departed: dict[str, None] = {}

    def obeyed(self, recalls: tuple[Recalled, ...]) -> list[Recalled]:
        """Of the recalls that the lessor believes open, those that this session has obeyed."""
        return [recall for recall in recalls if self._standing.has_obeyed(*recall)]

    def learn_entity(self, record: EntityRecord) -> None:
        """Hear from the feed who holds an entity; what is older than known changes nothing."""
        standing = self._standing
        standing.note_owner(record)
        known = standing.entities.get(record.entity)
        if known is not None and record.age <= known.age:
            return
        standing.entities[record.entity] = record
        self._gone.discard(record.entity)
        self._departed.pop(record.entity, None)
        standing.raise_fence(record)
        phase = standing.holdings[record.entity].phase
        if phase is Phase.RELEASING and record.session != standing.session:
            # Nobody answers an offer, and the answer to a push may be lost; that the homeserver names
            # another holder is the answer.
            standing.holdings.follow(record.entity, record.epoch)
        if self._awaits_other(record):
            self._spawn(self._wait_anew(record))
        if record.session == standing.session and record.epoch > standing.holdings[record.entity].epoch:
            self._spawn(self._adopt(record.entity, record.epoch))
        self._settling.unless_left(record)

    def forget_entity(self, entity: str, *, may_be_new: bool = False) -> None:
        """Hear from the feed that the homeserver has an entity no more.

        Args:
            may_be_new: it is only not told of, perhaps by a member that has not heard of it yet.
        """
        if entity in self._standing.pinned:
            # It went home: that the other instance has it comes with the same change, or after it.
            self._gone.add(entity)
        elif self._abroad.has_closed(entity):
            self._depart(entity)
        elif self._standing.holdings[entity].phase is Phase.FOLLOWING and entity not in self._standing.locks:
            self._drop(entity)
        elif not may_be_new:
            # Nothing that acts ends on a read: one of its name may have been made since, and be held here.
            self._spawn(self._forget_if_gone(entity))

    async def _forget_if_gone(self, entity: str) -> None:
        # It may have gone with this session, which the lessor is about to say.
        await asyncio.sleep(ADOPT_SECONDS)
        async with self._standing.locks[entity]:
            try:
                await self._home.entity(entity)
            except UnknownEntityError:
                if self._standing.holdings[entity].phase is not Phase.FOLLOWING:
                    self._standing.deleted(entity)
                self._drop(entity)

    def _depart(self, entity: str) -> None:
        """It is home, where this session gave it: what its holder there streams is shown on.

        The homeserver here will say no more of it, so the newest of these are kept, and not all.
        """
        self._gone.discard(entity)
        self._standing.entities.pop(entity, None)
        self._departed[entity] = None
        if len(self._departed) > MAX_DEPARTED:
            self._drop(next(iter(self._departed)))

    def _drop(self, entity: str) -> None:
        self._gone.discard(entity)
        self._departed.pop(entity, None)
        for kept in (self._recalls, self._later, self._answered, self._early):
            kept.pop(entity, None)
        self._abroad.forget(entity)
        self._standing.forget(entity)
        self._spawn(self._standing.reuse_slots())

    def knows_of(self) -> int:
        """Entries kept for entities: at most a few for each that the homeserver has."""
        kept = (self._recalls, self._later, self._answered, self._early, self._gone, self._departed)
        return sum(len(table) for table in kept)

    async def _adopt(self, entity: str, epoch: int) -> None:
        """Act on a grant of which only the record tells: the answer, or the work on the message, was lost.

        Nobody else would act for the entity, and whoever took it would wait for a release until this session
        is ended for it. The record will do: what is due to a grant only gets less, and nobody acts after it
        without its release.
        """
        await asyncio.sleep(ADOPT_SECONDS)
        standing = self._standing
        async with standing.locks[entity]:
            holding = standing.holdings[entity]
            if epoch <= holding.epoch or holding.phase is not Phase.FOLLOWING:
                return
            try:
                due = standing.entities[entity].due_to(standing.session, epoch)
            except LookupError:
                return
            if await standing.gain(entity, epoch, due):
                await self._obey_what_waited(entity)
        self._look_for_early(entity)

    def _awaits_other(self, record: EntityRecord) -> bool:
        """Whether the release that is due to this server's grant is no longer the one it waits for.

        The entity may have been taken from it since, so that its own grant stands in the chain of waits:
        whoever waits for its release would wait for ever if it went on waiting for a session that ended.
        """
        holding = self._standing.holdings[record.entity]
        if holding.phase is not Phase.AWAITING or record.is_deleted:
            return False
        try:
            due = record.due_to(self._standing.session, holding.epoch)
        except LookupError:
            return False
        return holding.awaited != (None if due is None else due.epoch)

    async def _wait_anew(self, record: EntityRecord) -> None:
        """The session of the former holder ended: an older holder's release is due now, or nobody's."""
        standing, entity = self._standing, record.entity
        async with standing.locks[entity]:
            if not self._awaits_other(record):
                return
            epoch = standing.holdings[entity].epoch
            due = record.due_to(standing.session, epoch)
            if due is not None:
                await standing.servers.know(due.server)
                standing.givers[entity] = due.server
                standing.holdings.wait_anew(entity, epoch, due.epoch)
                self._look_for_early(entity)
                return
            standing.take_newest(entity)
            standing.holdings.wait_no_more(entity, epoch)
            await self._begin(entity, epoch)

    async def read_inbox(self, message: InboxMessage) -> None:
        """Obey the homeserver: a grant, a recall, a question to a master here, or the end of an own one."""
        if isinstance(message, Ask):
            await self._asks.take_ask(message)
            return
        async with self._standing.locks[message.entity]:
            match message:
                case Grant():
                    await self._take_grant(message)
                case Recall():
                    await self._obey(message)
                case AskEnded() | Failover():
                    await self._take_later(message)
                case Closed():
                    self._abroad.close(message)
                    if message.entity in self._gone:
                        self._depart(message.entity)
                case Returned():
                    self._abroad.take_back(message)

    async def _take_later(self, told: AskEnded | Failover) -> None:
        """News of a grant without a release: to be acted on once an older one has been let go of."""
        standing = self._standing
        holding = standing.holdings[told.entity]
        epoch = _granted_epoch(told, standing.session)
        if epoch > holding.epoch and await self._is_named(told.entity, epoch):
            if holding.phase in (Phase.HOLDING, Phase.AWAITING):
                # It was recalled before it was granted again, and the recall has not been read yet.
                self._later[told.entity] = told
                return
            if holding.phase is Phase.RELEASING:
                standing.holdings.follow(told.entity, holding.epoch)
            if isinstance(told, AskEnded):
                await standing.granted(told.record)
            else:
                standing.crossed(told.step, "failover", HOME, standing.name)
                await standing.gain(told.entity, told.epoch, told.awaiting)
            self._look_for_early(told.entity)
            if standing.holdings[told.entity].phase is Phase.HOLDING:
                await self._obey_what_waited(told.entity)
        if isinstance(told, AskEnded):
            self._asks.end(told)

    async def _is_named(self, entity: str, epoch: int) -> bool:
        """Whether the homeserver's record names a grant to this session, so that it counts.

        The feed tells at least once, and a snapshot tells old news: an inbox has a grant until another one
        takes its place, also when the entity was passed on and deleted since, and all was forgotten of it.
        """
        record = self._standing.entities.get(entity)
        try:
            if record is None:
                record = await self._home.entity(entity)
            # Where the inbox was told first, the record is yet to come.
            if record.epoch >= epoch:
                record.due_to(self._standing.session, epoch)
        except (LookupError, BridgeError):
            # Where nobody answers, the snapshot that comes with the next connection tells both again.
            return False
        return True

    async def _take_grant(self, grant: Grant) -> None:
        standing = self._standing
        known = standing.holdings[grant.entity].epoch
        if grant.epoch <= known or not await self._is_named(grant.entity, grant.epoch):
            return
        standing.crossed(grant.step, "grant", HOME, standing.name)
        await self._abroad.take_giver(grant)
        await standing.make_room(grant.entity)
        standing.take_over(
            grant.entity, await standing.open(grant.entity, grant.giver, grant.previous, grant.box)
        )
        standing.act(grant.entity, standing.holdings.grant(grant.entity, grant.epoch).epoch)
        if grant.abroad is not None:
            return  # The homeservers have told each other.
        step = grant.step.next()
        standing.tell(
            grant.giver, Accepted(trace=step.trace, hop=step.hop, entity=grant.entity, epoch=grant.epoch)
        )

    async def _obey(self, recall: Recall) -> None:
        standing = self._standing
        if recall.taker is None:
            await self._give_up(recall)
            return
        match recall.unread:
            case Grant() as unread:
                await self._take_grant(unread)
            case Failover() as unread:
                await self._take_later(unread)
        holding = standing.holdings[recall.entity]
        if recall.taker == standing.name or recall.granted <= self._answered.get(recall.entity, 0):
            return  # Old news: a snapshot of the feed tells the inbox again.
        waits = holding.phase is Phase.AWAITING and recall.epoch == holding.epoch
        if waits or (holding.phase is Phase.FOLLOWING and recall.epoch > holding.epoch):
            # For a release that is due, or for the grant itself, whose answer was lost (`_adopt`).
            self._recalls[recall.entity] = recall
            return
        # What was released to somebody who did not get it, because a pull came first or because its session
        # ended, is signed again for the one who is due it now.
        if recall.epoch != standing.releasable(recall.entity):
            return
        standing.crossed(recall.step, "recall", HOME, standing.name)
        await standing.servers.know(recall.taker)
        if recall.taker in standing.servers:
            box = await standing.stop(recall.entity, recall.taker)
            step = recall.step.next()
            released = Released(
                trace=step.trace, hop=step.hop, entity=recall.entity, epoch=recall.granted, box=box
            )
            standing.tell(recall.taker, released)
        else:
            # Its key was revoked: nothing can be sealed for it, and whoever is granted the entity next is due
            # the release.
            await standing.stop_for_nobody(recall.entity)
        self._answered[recall.entity] = recall.granted
        standing.holdings.follow(recall.entity, recall.granted)
        standing.plane.tell(RaiseFence(entity=recall.entity, epoch=recall.granted, server=recall.taker))
        later = self._later.pop(recall.entity, None)
        if later is not None:
            await self._take_later(later)
        known = standing.entities.get(recall.entity)
        if known is not None:
            self._settling.unless_left(known)

    async def _give_up(self, recall: Recall) -> None:
        """The entity was deleted: no release is due, and its name is free once this session says so."""
        standing, entity = self._standing, recall.entity
        if recall.granted <= self._answered.get(entity, 0):
            return
        standing.crossed(recall.step, "recall", HOME, standing.name)
        holding = standing.holdings[entity]
        if holding.phase in (Phase.HOLDING, Phase.RELEASING) or entity in standing.unconfirmed:
            await standing.stop_for_nobody(entity)
        self._answered[entity] = recall.granted
        for waiting in (self._recalls, self._later, self._early):
            waiting.pop(entity, None)
        standing.holdings.follow(entity, recall.granted)
        standing.plane.tell(RaiseFence(entity=entity, epoch=recall.granted, server=""))
        standing.deleted(entity)
        with contextlib.suppress(UnknownEntityError):
            await self._home.release(entity=entity, epoch=recall.epoch)

    async def take_message(self, server: str, message: PeerMessage, at_ns: int) -> None:
        """Serve a message of another server, received at ``at_ns``."""
        match message:
            case Released():
                await self._take_release(server, message, at_ns)
            case Accepted():
                self._standing.crossed(_step(message), "accepted", server, self._standing.name, at_ns)
            case Offer():
                await self._claim(server, message, at_ns)
            case Update():
                self._direct.take(server, self._standing.servers.session_of(server), message, at_ns)
            case Bind() | Border():
                pass

    async def _take_release(self, server: str, message: Released, at_ns: int) -> None:
        standing, entity = self._standing, message.entity
        async with standing.locks[entity]:
            holding = standing.holdings[entity]
            if message.epoch > holding.epoch and entity in standing.entities:
                # Its grant is on its way: of an ask, the holder may hear sooner than the asker.
                self._early[entity] = (server, message, at_ns)
                return
            if holding.phase is not Phase.AWAITING or holding.epoch != message.epoch:
                return
            assert holding.awaited is not None
            # The key is that of the holder the homeserver named, whoever delivered the box (R0-20).
            giver = standing.givers[entity]
            try:
                state = await standing.open(entity, giver, holding.awaited, message.box)
            except InvalidStateError:
                if server != giver:
                    # An older holder may have heard sooner than this server that its release is due again.
                    self._early[entity] = (server, message, at_ns)
                raise
            standing.take_over(entity, state)
            standing.crossed(_step(message), "released", server, standing.name, at_ns)
            standing.holdings.receive_release(entity, message.epoch, holding.awaited)
            await self._begin(entity, message.epoch)

    def _look_for_early(self, entity: str) -> None:
        """A release that came before this server knew that it waits for it."""
        if self._standing.holdings[entity].phase is Phase.AWAITING and entity in self._early:
            self._spawn(self._take_release(*self._early.pop(entity)))

    async def _claim(self, server: str, message: Offer, at_ns: int) -> None:
        standing = self._standing
        async with standing.locks[message.entity]:
            step = _step(message)
            standing.crossed(step, "offer", server, standing.name, at_ns)
            # Opened first: an entity claimed with a release that does not open would be nobody's.
            await standing.make_room(message.entity)
            state = await standing.open(message.entity, server, message.epoch, message.box)
            record = await self._home.claim(
                entity=message.entity, owner=message.owner, box=message.box, step=step.next()
            )
            standing.crossed(step.next(), "claim", standing.name, HOME)
            standing.crossed(step.next().next(), "answer", HOME, standing.name)
            standing.take_over(message.entity, state)
            standing.act(message.entity, standing.holdings.grant(message.entity, record.epoch).epoch)

    def end_switch(self, server: str, entity: str, at_ns: int) -> None:
        """The first state under the new epoch is the last message of a switch (R0-33)."""
        standing = self._standing
        to, step = standing.offers.pop(entity, ("", None))
        if step is not None and server == to:
            claim = step.next()
            standing.crossed(claim.next().next(), "state", server, standing.name, at_ns)

    async def _begin(self, entity: str, epoch: int) -> None:
        """Act after a wait, and at once obey the recall that came meanwhile."""
        self._standing.act(entity, epoch)
        self._early.pop(entity, None)
        await self._obey_what_waited(entity)

    async def _obey_what_waited(self, entity: str) -> None:
        recall = self._recalls.pop(entity, None)
        if recall is not None:
            await self._obey(recall)


def _granted_epoch(told: AskEnded | Failover, session: bytes) -> int:
    """The epoch that the news grants to this session; 0 where it grants nothing to it."""
    if isinstance(told, Failover):
        return told.epoch
    granted = told.outcome is Outcome.GRANTED and told.record.session == session
    return told.record.epoch if granted else 0


def _step(message: Released | Accepted | Offer) -> Step:
    return Step(trace=message.trace, hop=message.hop)

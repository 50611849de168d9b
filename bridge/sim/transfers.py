"""One server's side of every transfer: gives away, takes over, obeys, in the order the homeserver decided.

Every change of authority is an answer of the homeserver to this server's own write, or a message in its inbox
there, with the other side's signed release. Nothing acts on a read. Requests and messages about one entity
are served one after another.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Final

import numpy.typing as npt

from bridge.authority import (
    HOME,
    Accepted,
    Answered,
    Ask,
    AskEnded,
    Bind,
    ConflictError,
    EntityExistsError,
    EntityRecord,
    Grant,
    Holdings,
    Homeserver,
    InboxMessage,
    Message,
    NotHolderError,
    NotOwnerError,
    Offer,
    Outcome,
    Ownership,
    PeerMessage,
    Phase,
    Recall,
    Released,
    Rule,
    ServerRecord,
    Step,
    Update,
    encode_message,
)
from bridge.errors import ConfigurationError, InvalidStateError, RemoteError
from bridge.etf import Atom
from bridge.khepri import UnknownOutcomeError
from bridge.replication import WorldState, decode_state_untrusted
from bridge.sim.asks import AskHandler, Asks
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import AddPeer, Follow, Hold, RaiseFence, RemovePeer, SendMessage
from bridge.sim.direct import DirectUpdates
from bridge.sim.events import AuthorityGained, ServerEvent

_TAKE_SECONDS: Final = 10.0
"""how long to wait for the release of a granted entity; its former holder may be gone"""

Spawn = Callable[[Coroutine[object, object, None]], None]


class Transfers:
    """What one server holds, and how it comes and goes.

    Args:
        config: name, capacity and lingering of the server.
        home: requests of its session.
        players: requests in the names of its players.
        plane: seals, opens and sends.
        bodies: the simulation that moves what is held.
        on_event: is told of authority gained; must not block.
        spawn: runs work in the background and reports its failure.

    Attributes:
        messages: every control message that crossed, for traces.
        direct: updates of players at other servers, and theirs there (Case 3).
        refused_changes: changes of players who do not own what they would change (R0-6).
    """

    def __init__(
        self,
        *,
        config: SimulationConfig,
        home: Homeserver,
        players: Ownership,
        plane: DataPlaneClient,
        bodies: Bodies,
        on_event: Callable[[ServerEvent], None],
        spawn: Spawn,
    ) -> None:
        self.config = config
        self.session = home.session
        self.messages: list[Message] = []
        self.refused_changes = 0
        self._home = home
        self._players = players
        self._asks = Asks(
            name=config.name,
            session=home.session,
            players=players,
            record=self.messages.append,
            on_event=on_event,
        )
        self.direct = DirectUpdates(
            name=config.name,
            holder=self,
            plane=plane,
            record=self.messages.append,
            on_event=on_event,
            spawn=spawn,
        )
        self._plane = plane
        self._bodies = bodies
        self._on_event = on_event
        self._spawn = spawn
        self._holdings = Holdings()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._slots: dict[str, int] = {}
        self._recalls: dict[str, Recall] = {}
        self._grants: dict[str, AskEnded] = {}
        self._released: dict[str, int] = {}
        self._answered: dict[str, int] = {}
        self._offers: dict[str, tuple[str, Step]] = {}
        self._givers: dict[str, str] = {}
        self._early: dict[str, tuple[str, Released, int]] = {}
        self._gained: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._servers: dict[str, ServerRecord] = {}
        self._entities: dict[str, EntityRecord] = {}
        self._owners: dict[str, tuple[int, str]] = {}

    async def spawn(
        self, entity: str, *, owner: str, position: npt.ArrayLike, rule: Rule = Rule.ALLOW
    ) -> EntityRecord:
        """Create an entity that this server holds, or take over a dormant one of that name.

        Raises:
            ConflictError: somebody else holds it.
            InvalidStateError: this server holds it, or it is changing hands here.
        """
        async with self._locks[entity]:
            self._must_follow(entity)
            slot = self._slot(entity)
            try:
                record = await self._home.create_entity(entity=entity, owner=owner, master=owner, rule=rule)
            except EntityExistsError as error:
                known = await self._home.entity(entity)
                # One's own name there is that of an earlier session, whose end this member has not applied.
                if known.server not in (None, self.config.name):
                    raise ConflictError(
                        f"{known.server} holds {entity}",
                        reason=error.reason,
                        props={"winner": known.server.encode(), "epoch": known.epoch},
                    ) from error
                record = await self._home.pull(
                    entity=entity, epoch=known.epoch, owner=owner, step=self._first_step()
                )
            self._bodies.place(slot, position)
            return await self._granted(record)

    async def give(self, entity: str, *, owner: str) -> EntityRecord:
        """Pass the entity to another player: the owner changes, the authority stays."""
        self.direct.supersede(entity, owner)
        return await self.record_owner(entity, owner=owner)

    async def record_owner(self, entity: str, *, owner: str) -> EntityRecord:
        """Have the homeserver record another owner of a held entity, whoever a player named before."""
        async with self._locks[entity]:
            holding = self._held(entity)
            record = await self._home.give(entity=entity, epoch=holding, owner=owner, step=self._first_step())
            self._note_owner(record)
            return record

    async def push(self, entity: str, *, owner: str, to: str) -> EntityRecord:
        """Pass owner and authority to another server (Case 2, push).

        Raises:
            NotHolderError: another server pulled it first; its recall is obeyed.
            AuthorityError: refused; this server goes on simulating.
            InvalidStateError: not held here, or ``to`` is this server or has no key; nothing was changed.
            OutcomeUnknownError: the answer was lost; this server no longer acts, and follows whoever the
                homeserver names next.
        """
        async with self._locks[entity]:
            epoch = self._held(entity)
            await self._know(to)
            step = self._first_step()
            box = await self._stop(entity, to)
            try:
                record = await self._home.push(
                    entity=entity, epoch=epoch, owner=owner, to=to, box=box, step=step
                )
            except (NotHolderError, UnknownOutcomeError):
                raise
            except (RemoteError, ConfigurationError):
                # Refused for good: nothing was changed, and no other server was told.
                if self._holdings[entity].phase is Phase.RELEASING:
                    self._act(entity, self._holdings.resume(entity).epoch)
                raise
            self._crossed(step, "push", self.config.name, HOME)
            self._crossed(step.next(), "answer", HOME, self.config.name)
            self._holdings.follow(entity, record.epoch)
            self._raise_fence(record)
            return record

    async def pull(self, entity: str, *, owner: str) -> EntityRecord:
        """Take owner and authority from whoever has it (Case 2, pull); returns once this server acts.

        Raises:
            ConflictError: another server took it in the same moment.
            DeniedError: the entity's rule forbids it.
            InvalidStateError: this server holds it or it is changing hands here, or the former holder's
                release did not come in time; it is waited for still.
        """
        async with self._locks[entity]:
            self._must_follow(entity)
            known = self._entities.get(entity) or await self._home.entity(entity)
            step = self._first_step()
            record = await self._home.pull(entity=entity, epoch=known.epoch, owner=owner, step=step)
            self._crossed(step, "pull", self.config.name, HOME)
            self._crossed(step.next(), "answer", HOME, self.config.name)
            await self._granted(record)
        await self._until_acting(record)
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
        async with self._locks[entity]:
            if authority:
                self._must_follow(entity)
            known = self._entities.get(entity) or await self._home.entity(entity)
            step = self._first_step()
            waiting = self._asks.expect(step)
            try:
                asked = await self._players.request(
                    known,
                    player=player,
                    session=self.session,
                    authority=authority,
                    seconds=seconds,
                    step=step,
                )
            except BaseException:
                self._asks.forget(step)
                raise
            self._crossed(step, "request" if asked.pending else "pull", self.config.name, HOME)
            self._crossed(step.next(), "answer", HOME, self.config.name)
            record = asked.record
            if not asked.pending:
                self._asks.forget(step)
                if authority:
                    await self._granted(record)
        if asked.pending:
            try:
                record = await self._asks.outcome(waiting, entity, player, seconds)
            finally:
                self._asks.forget(step)
        if authority:
            await self._until_acting(record)
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

    async def offer(self, entity: str, *, owner: str, to: str) -> None:
        """Hand the release directly to another server, which claims the entity (switching, R0-33)."""
        async with self._locks[entity]:
            epoch = self._held(entity)
            await self._know(to)
            step = self._first_step()
            box = await self._stop(entity, to)
            self._offers[entity] = (to, step)
            self._tell(
                to, Offer(trace=step.trace, hop=step.hop, entity=entity, epoch=epoch, owner=owner, box=box)
            )

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
            InvalidStateError: it is not held here.
            NotOwnerError: ``by`` is not the owner; counted (R0-6).
        """
        self._held(entity)
        owner = self.direct.owner(entity)
        if by is not None and by != owner:
            self.refused_changes += 1
            raise NotOwnerError(
                f"{entity} is not {by}'s but {owner}'s",
                reason=Atom("not_owner"),
                props={"owner": owner.encode()},
            )
        self._bodies.place(self._slot(entity), position, velocity)

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
            raise InvalidStateError(f"{self.config.name} holds {entity} itself: place it")
        known = self._entities.get(entity)
        # Who gave it away may know so before the feed has told the record.
        if known is None or known.server == self.config.name or known.epoch < self._holdings[entity].epoch:
            known = await self._home.entity(entity)
        await self.direct.send(known, by=by, velocity=velocity, owner=owner, step=self._first_step())
        return known

    def held_epoch(self, entity: str) -> int | None:
        """Epoch under which this server acts for the entity; ``None`` where it does not."""
        holding = self._holdings[entity]
        return holding.epoch if holding.phase is Phase.HOLDING else None

    def recorded_owner(self, entity: str) -> str:
        """Owner as the homeserver told last; empty where it told nothing."""
        return self._owners.get(entity, (0, ""))[1]

    def steer(self, entity: str, velocity: npt.ArrayLike) -> None:
        """Give a held entity another velocity, metres a second."""
        self._bodies.steer(self._slot(entity), velocity)

    def follow(self, entity: str) -> None:
        """Keep the state of an entity that another server streams to this one, while there is room."""
        most = min(self.config.follow, self.config.capacity // 2)
        if entity not in self._slots and len(self._slots) >= most:
            return
        self._plane.tell(Follow(entity=entity, slot=self._slot(entity)))

    def state(self, entity: str) -> WorldState:
        """The newest state of an entity: its own if held here, else what its holder told last.

        Raises:
            InvalidStateError: neither held nor followed.
        """
        if entity not in self._slots:
            raise InvalidStateError(f"{self.config.name} has no state of {entity}")
        return self._plane.world.read(self._slots[entity])

    def held(self) -> list[str]:
        """Names of the entities that this server acts for (R0-2)."""
        return [holding.entity for holding in self._holdings.held()]

    def learn_entity(self, record: EntityRecord) -> None:
        """Hear from the feed who holds an entity; what is older than known changes nothing."""
        self._note_owner(record)
        known = self._entities.get(record.entity)
        if known is not None and record.version <= known.version:
            return
        self._entities[record.entity] = record
        self._raise_fence(record)
        phase = self._holdings[record.entity].phase
        if phase is Phase.RELEASING and record.session != self.session:
            # Nobody answers an offer, and the answer to a push may be lost; that the homeserver names
            # another holder is the answer.
            self._holdings.follow(record.entity, record.epoch)
        if record.session == self.session and self._awaits_other(record):
            self._spawn(self._wait_anew(record))

    def learn_server(self, record: ServerRecord) -> None:
        """Hear from the feed of a server, its key and where it listens."""
        if record.server == self.config.name or self._servers.get(record.server) == record:
            return
        if record.revoked:
            self.forget_server(record.server)
            return
        self._servers[record.server] = record
        self._plane.tell(
            AddPeer(
                server=record.server,
                session=record.session,
                key=record.key,
                thumbprint=record.thumbprint,
                host=record.host,
                port=record.port,
            )
        )

    def forget_server(self, server: str) -> None:
        """Hear from the feed that the homeserver knows a server no more."""
        if self._servers.pop(server, None) is not None:
            self._plane.tell(RemovePeer(server=server))

    async def read_inbox(self, message: InboxMessage) -> None:
        """Obey the homeserver: a grant, a recall, a question to a master here, or the end of an own one."""
        if isinstance(message, Ask):
            await self._asks.take_ask(message)
            return
        async with self._locks[message.entity]:
            match message:
                case Grant():
                    await self._take_grant(message)
                case Recall():
                    await self._obey(message)
                case AskEnded():
                    await self._end_ask(message)

    async def _end_ask(self, ended: AskEnded) -> None:
        record, holding = ended.record, self._holdings[ended.entity]
        granted = ended.outcome is Outcome.GRANTED and record.session == self.session
        # As with grants, old news may come again.
        if granted and record.epoch > holding.epoch:
            if holding.phase in (Phase.HOLDING, Phase.AWAITING):
                # It was recalled before it was granted again, and the recall has not been read yet.
                self._grants[ended.entity] = ended
                return
            if holding.phase is Phase.RELEASING:
                self._holdings.follow(ended.entity, holding.epoch)
            await self._granted(record)
        self._asks.end(ended)

    async def _take_grant(self, grant: Grant) -> None:
        if grant.epoch <= self._holdings[grant.entity].epoch:
            return  # The feed is at least once, and a snapshot tells old news.
        self._crossed(grant.step, "grant", HOME, self.config.name)
        await self._know(grant.giver)
        await self._take_state(grant.entity, grant.giver, grant.previous, grant.box)
        self._act(grant.entity, self._holdings.grant(grant.entity, grant.epoch).epoch)
        step = grant.step.next()
        self._tell(
            grant.giver, Accepted(trace=step.trace, hop=step.hop, entity=grant.entity, epoch=grant.epoch)
        )

    async def _obey(self, recall: Recall) -> None:
        if recall.unread is not None:
            await self._take_grant(recall.unread)
        holding = self._holdings[recall.entity]
        if recall.taker == self.config.name or recall.granted <= self._answered.get(recall.entity, 0):
            return  # Old news: a snapshot of the feed tells the inbox again.
        if holding.phase is Phase.AWAITING and recall.epoch == holding.epoch:
            self._recalls[recall.entity] = recall
            return
        # What was released to somebody who did not get it, because a pull came first or because its session
        # ended, is signed again for the one who is due it now.
        acting = holding.phase in (Phase.HOLDING, Phase.RELEASING)
        if recall.epoch != (holding.epoch if acting else self._released.get(recall.entity)):
            return
        self._crossed(recall.step, "recall", HOME, self.config.name)
        await self._know(recall.taker)
        box = await self._stop(recall.entity, recall.taker)
        self._answered[recall.entity] = recall.granted
        self._holdings.follow(recall.entity, recall.granted)
        self._plane.tell(RaiseFence(entity=recall.entity, epoch=recall.granted, server=recall.taker))
        step = recall.step.next()
        self._tell(
            recall.taker,
            Released(trace=step.trace, hop=step.hop, entity=recall.entity, epoch=recall.granted, box=box),
        )
        later = self._grants.pop(recall.entity, None)
        if later is not None:
            await self._end_ask(later)

    async def take_message(self, server: str, message: PeerMessage, at_ns: int) -> None:
        """Serve a message of another server, received at ``at_ns``."""
        match message:
            case Released():
                await self._take_release(server, message, at_ns)
            case Accepted():
                self._crossed(_step(message), "accepted", server, self.config.name, at_ns)
            case Offer():
                await self._claim(server, message, at_ns)
            case Update():
                known = self._servers.get(server)
                self.direct.take(server, None if known is None else known.session, message, at_ns)
            case Bind():
                pass

    async def _take_release(self, server: str, message: Released, at_ns: int) -> None:
        entity = message.entity
        async with self._locks[entity]:
            holding = self._holdings[entity]
            if holding.phase is not Phase.AWAITING or holding.epoch != message.epoch:
                return
            assert holding.awaited is not None
            # The key is that of the holder the homeserver named, whoever delivered the box (R0-20).
            giver = self._givers[entity]
            try:
                await self._take_state(entity, giver, holding.awaited, message.box)
            except InvalidStateError:
                if server != giver:
                    # An older holder may have heard sooner than this server that its release is due again.
                    self._early[entity] = (server, message, at_ns)
                raise
            self._crossed(_step(message), "released", server, self.config.name, at_ns)
            self._holdings.receive_release(entity, message.epoch, holding.awaited)
            await self._begin(entity, message.epoch)

    async def _claim(self, server: str, message: Offer, at_ns: int) -> None:
        async with self._locks[message.entity]:
            step = _step(message)
            self._crossed(step, "offer", server, self.config.name, at_ns)
            # Opened first: an entity claimed with a release that does not open would be nobody's.
            state = await self._open(message.entity, server, message.epoch, message.box)
            record = await self._home.claim(
                entity=message.entity, owner=message.owner, box=message.box, step=step.next()
            )
            self._crossed(step.next(), "claim", self.config.name, HOME)
            self._crossed(step.next().next(), "answer", HOME, self.config.name)
            self._take_over(message.entity, state)
            self._act(message.entity, self._holdings.grant(message.entity, record.epoch).epoch)

    def end_switch(self, server: str, entity: str, at_ns: int) -> None:
        """The first state under the new epoch is the last message of a switch (R0-33)."""
        to, step = self._offers.pop(entity, ("", None))
        if step is not None and server == to:
            claim = step.next()
            self._crossed(claim.next().next(), "state", server, self.config.name, at_ns)

    def _awaits_other(self, record: EntityRecord) -> bool:
        """Whether the release that is due for this server's own grant is no longer the one it waits for."""
        holding = self._holdings[record.entity]
        due = None if record.awaiting is None else record.awaiting.epoch
        return holding.phase is Phase.AWAITING and holding.epoch == record.epoch and holding.awaited != due

    async def _wait_anew(self, record: EntityRecord) -> None:
        """The session of the former holder ended: an older holder's release is due now, or nobody's."""
        entity = record.entity
        async with self._locks[entity]:
            if not self._awaits_other(record):
                return
            if record.awaiting is not None:
                await self._know(record.awaiting.server)
                self._givers[entity] = record.awaiting.server
                self._holdings.wait_anew(entity, record.epoch, record.awaiting.epoch)
                if entity in self._early:
                    self._spawn(self._take_release(*self._early.pop(entity)))
                return
            self._holdings.wait_no_more(entity, record.epoch)
            await self._begin(entity, record.epoch)

    async def _know(self, server: str) -> None:
        if server == self.config.name:
            raise InvalidStateError(f"{server} is this server: give passes an entity to another owner here")
        if server not in self._servers:
            self.learn_server(await self._home.server(server))

    async def _granted(self, record: EntityRecord) -> EntityRecord:
        self._note_owner(record)
        # What this session itself released and nobody got is no other's to give.
        if record.awaiting is None or record.awaiting.session == self.session:
            # A dormant entity goes on from the newest state that this server knows of it.
            self._take_over(record.entity, self._plane.world.read(self._slot(record.entity)))
            self._act(record.entity, self._holdings.grant(record.entity, record.epoch).epoch)
        else:
            await self._know(record.awaiting.server)
            self._givers[record.entity] = record.awaiting.server
            self._holdings.wait(record.entity, record.epoch, record.awaiting.epoch)
            self._raise_fence(record)
        return record

    async def _begin(self, entity: str, epoch: int) -> None:
        """Act after a wait, and at once obey the recall that came meanwhile."""
        self._act(entity, epoch)
        recall = self._recalls.pop(entity, None)
        if recall is not None:
            await self._obey(recall)

    async def _take_state(self, entity: str, giver: str, previous: int, box: str) -> None:
        self._take_over(entity, await self._open(entity, giver, previous, box))

    async def _open(self, entity: str, giver: str, previous: int, box: str) -> WorldState:
        data = await self._plane.open_release(entity=entity, giver=giver, previous=previous, box=box)
        return decode_state_untrusted(data)

    def _take_over(self, entity: str, state: WorldState) -> None:
        self._bodies.take_over(self._slot(entity), state)

    def _act(self, entity: str, epoch: int) -> None:
        slot = self._slot(entity)
        self._released.pop(entity, None)
        self._early.pop(entity, None)
        self._plane.tell(Hold(entity=entity, epoch=epoch, slot=slot))
        self._bodies.hold(slot)
        gained = self._gained.pop((entity, epoch), None)
        if gained is not None and not gained.done():
            gained.set_result(None)
        self._on_event(AuthorityGained(entity=entity, epoch=epoch, at_ns=time.monotonic_ns()))

    async def _stop(self, entity: str, to: str) -> str:
        held = self._holdings[entity]
        if held.phase is Phase.HOLDING:
            self._holdings.stop(entity)
        self._bodies.let_go(self._slot(entity))
        try:
            box = await self._plane.stop_sealing(entity, to, linger_ns=self.config.linger_ms * 1_000_000)
        except InvalidStateError:
            if held.phase is Phase.HOLDING and self._holdings[entity].phase is Phase.RELEASING:
                # It refuses before it stops: whatever it was asked for, it still seals.
                self._holdings.resume(entity)
                self._bodies.hold(self._slot(entity))
            raise
        if held.phase is Phase.HOLDING:
            self._released[entity] = held.epoch
        return box

    def _held(self, entity: str) -> int:
        holding = self._holdings[entity]
        if holding.phase is not Phase.HOLDING:
            raise InvalidStateError(
                f"{self.config.name} does not hold {entity} ({holding.phase.name.lower()})"
            )
        return holding.epoch

    def _must_follow(self, entity: str) -> None:
        """Who asks for an entity must have passed on what it had.

        The homeserver may have given it to somebody else already; a grant on top of one that is still acted
        on, or waited for, would confuse the two.
        """
        phase = self._holdings[entity].phase
        if phase is not Phase.FOLLOWING:
            raise InvalidStateError(
                f"{entity} is held or changing hands at {self.config.name} ({phase.name.lower()})"
            )

    async def _until_acting(self, record: EntityRecord) -> None:
        """Wait for the release that a grant waits for, where it does."""
        holding = self._holdings[record.entity]
        if (holding.phase, holding.epoch) != (Phase.AWAITING, record.epoch):
            return
        gained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gained[record.entity, record.epoch] = gained
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                await gained
        except TimeoutError:
            self._gained.pop((record.entity, record.epoch), None)
            raise InvalidStateError(
                f"{record.entity}: the release of its former holder has not come"
            ) from None

    def _slot(self, entity: str) -> int:
        slot = self._slots.setdefault(entity, len(self._slots))
        if slot >= self.config.capacity:
            raise ConfigurationError(
                f"more than {self.config.capacity} entities: raise the capacity of {self.config.name}"
            )
        return slot

    def _note_owner(self, record: EntityRecord) -> None:
        version, _ = self._owners.get(record.entity, (0, ""))
        if record.version > version:
            self._owners[record.entity] = (record.version, record.owner)

    def _raise_fence(self, record: EntityRecord) -> None:
        self._plane.tell(RaiseFence(entity=record.entity, epoch=record.epoch, server=record.server or ""))

    def _tell(self, server: str, message: PeerMessage) -> None:
        self._plane.tell(SendMessage(to=server, message=encode_message(message)))

    def _crossed(self, step: Step, kind: str, sender: str, receiver: str, at_ns: int | None = None) -> None:
        self.messages.append(
            Message(
                trace=step.trace,
                hop=step.hop,
                kind=kind,
                sender=sender,
                receiver=receiver,
                at_ns=at_ns or time.monotonic_ns(),
            )
        )

    def _first_step(self) -> Step:
        return Step(trace=secrets.token_bytes(16), hop=0)


def _step(message: Released | Accepted | Offer) -> Step:
    return Step(trace=message.trace, hop=message.hop)

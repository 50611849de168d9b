"""What one session of a server stands for: what it holds, whom it knows, the ways into acting and out of it.

Shared by what a server is asked to do (``transfers.py``) and what it is told (``obedience.py``). A session
that is over never acts again, whatever work of it is still under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Final, TypeVar

from bridge.authority import Holdings, Message, PeerMessage, Phase, encode_message
from bridge.errors import ClosedError, InvalidStateError
from bridge.registry import Awaiting, EntityRecord, Homeserver, Step
from bridge.replication import WorldState, decode_state_untrusted
from bridge.sim.acquaintances import Acquaintances
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import (
    Forget,
    Hold,
    RaiseFence,
    SendMessage,
    Unfollow,
)
from bridge.sim.events import AuthorityGained, EntityDeleted, ServerEvent
from bridge.sim.locks import Locks
from bridge.sim.slots import Slots
from bridge.sim.traces import Traces

_TAKE_SECONDS: Final = 10.0
"""how long to wait for the release of a granted entity; its former holder may be gone"""

_T = TypeVar("_T")
Spawn = Callable[[Coroutine[object, object, None]], None]


class Standing:
    """Holdings and acquaintances of one session.

    Args:
        config: name and lingering of the server.
        home: requests of the session.
        plane: seals, opens and sends.
        bodies: the simulation that moves what is held.
        slots: where entities lie in the world; they outlive the session.
        traces: takes every control message that crosses.
        on_event: is told of authority gained; must not block.

    Attributes:
        servers: whom it knows.
        holdings: what the session may do with each entity.
        locks: requests and messages about one entity are served one after another.
        entities: the newest record of each entity that the feed told.
        givers: whose release is awaited, by entity.
        released: the epoch that was released last, by entity, for whoever gets that release after all.
        unconfirmed: the epoch under which the data plane may act still, by entity, where another holder was
            named while its answer to a release was lost.
        offers: to whom an entity was offered, and the step of the offer.
        pinned: entities that keep their slots, since this session may go on from their state.
    """

    def __init__(
        self,
        *,
        config: SimulationConfig,
        home: Homeserver,
        plane: DataPlaneClient,
        bodies: Bodies,
        slots: Slots,
        traces: Traces,
        on_event: Callable[[ServerEvent], None],
    ) -> None:
        self.name = config.name
        self.session = home.session
        self.traces = traces
        self.slots = slots
        self.plane = plane
        self.bodies = bodies
        self.servers = Acquaintances(config.name, home=home, plane=plane)
        self.holdings = Holdings()
        self.locks = Locks()
        self.entities: dict[str, EntityRecord] = {}
        self.givers: dict[str, str] = {}
        self.released: dict[str, int] = {}
        self.unconfirmed: dict[str, int] = {}
        self.offers: dict[str, tuple[str, Step]] = {}
        self.pinned: set[str] = set()
        self._config = config
        self._on_event = on_event
        self._owners: dict[str, tuple[tuple[int, int], str]] = {}
        self._gained: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._promised: dict[str, float] = {}
        self._reusing = asyncio.Lock()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing acts for the session any more."""
        return self._is_over

    def end(self) -> None:
        """The session is over: nothing acts in its name again, and who waits to act is told."""
        self._is_over = True
        for entity in self.holdings.names_held:
            self.bodies.let_go(self.slots[entity])
        for gained in self._gained.values():
            if not gained.done():
                gained.set_exception(self._over())
        self._gained.clear()

    def held(self) -> list[str]:
        """Names of the entities that the session acts for (R0-2)."""
        return [] if self._is_over else list(self.holdings.names_held)

    def count_held(self) -> int:
        """How many they are."""
        return 0 if self._is_over else len(self.holdings.names_held)

    def must_hold(self, entity: str) -> int:
        """The epoch under which the session acts for an entity.

        Raises:
            InvalidStateError: it does not.
        """
        self._must_last()
        holding = self.holdings[entity]
        if holding.phase is not Phase.HOLDING:
            raise InvalidStateError(f"{self.name} does not hold {entity} ({holding.phase.name.lower()})")
        return holding.epoch

    def must_follow(self, entity: str) -> None:
        """Who asks for an entity must have passed on what it had.

        The homeserver may have given it to somebody else already; a grant on top of one that is still acted
        on, or waited for, would confuse the two.

        Raises:
            InvalidStateError: it has not.
        """
        self._must_last()
        phase = self.holdings[entity].phase
        if phase is not Phase.FOLLOWING:
            raise InvalidStateError(
                f"{entity} is held or changing hands at {self.name} ({phase.name.lower()})"
            )

    def has_obeyed(self, entity: str, epoch: int) -> bool:
        """Whether nothing here acts, or ever will, under a grant that was recalled."""
        if self.unconfirmed.get(entity, epoch + 1) <= epoch:
            return False
        holding = self.holdings[entity]
        return holding.epoch > epoch or (holding.phase is Phase.FOLLOWING and holding.epoch >= epoch)

    def released_for_good(self, entity: str) -> int:
        """Newest epoch of this session that it released: nothing here acts, or ever will, under it or older.

        Told late it is true still. So a push that may be refused yet does not count, nor what the data plane
        has not confirmed; 0 where there is nothing that does.
        """
        if self.holdings[entity].phase is Phase.RELEASING:
            return 0
        return self.released.get(entity, 0)

    def note_owner(self, record: EntityRecord) -> None:
        """Keep the owner of an entity, as the newest record names it."""
        known, _ = self._owners.get(record.entity, ((0, 0), ""))
        if record.age > known:
            self._owners[record.entity] = (record.age, record.owner)

    def owner(self, entity: str) -> str:
        """The owner as far as is known."""
        return self._owners.get(entity, ((0, 0), ""))[1]

    def raise_fence(self, record: EntityRecord) -> None:
        """Have state of older grants refused from now on."""
        holder = record.server if record.away is None else record.away.holder
        self.plane.tell(RaiseFence(entity=record.entity, epoch=record.epoch, server=holder or ""))

    def knows_of(self) -> int:
        """Entries kept for entities: as many as the homeserver has, however often they change hands."""
        by_entity = (self.holdings, self.entities, self._owners, self.givers, self.released, self.offers)
        of_work = (self.unconfirmed, self.pinned, self._promised, self.locks, self._gained)
        return sum(len(kept) for kept in (*by_entity, *of_work))

    def forget(self, entity: str) -> None:
        """The homeserver has the entity no more: nothing acts for it, and nothing of it is kept."""
        slot = self.slots.drop(entity)
        if slot is not None:
            self.bodies.let_go(slot)
        epoch = self.holdings[entity].epoch
        self.holdings.forget(entity)
        self.entities.pop(entity, None)
        self._owners.pop(entity, None)
        self._forget_transfer(entity)
        self.pinned.discard(entity)
        self._fail_gained(entity, epoch)
        self.plane.tell(Forget(entity=entity))

    def _forget_transfer(self, entity: str) -> None:
        self.givers.pop(entity, None)
        self.released.pop(entity, None)
        self.unconfirmed.pop(entity, None)
        self.offers.pop(entity, None)

    def _fail_gained(self, entity: str, epoch: int) -> None:
        gained = self._gained.pop((entity, epoch), None)
        if gained is not None and not gained.done():
            gained.set_exception(InvalidStateError(f"{entity} is no more"))

    async def make_room(self, entity: str) -> None:
        """Give an entity a slot: where all are taken, that of one that is only followed.

        The first that came gives way, and of those that are followed on purpose only where there is no other.

        Raises:
            ConfigurationError: this server holds, or is about to hold, as many as it has slots.
        """
        if entity not in self.slots and self.slots.is_full:
            spare = next(self._unwanted(), None) or next(filter(self._is_spare, self.slots), None)
            if spare is not None:
                self._give_up(spare)
            await self.reuse_slots()
        # Now, before anybody else asks for one.
        _ = self.slots[entity]

    async def tidy(self) -> None:
        """Where there was no room for more to follow, let go of what nobody follows any more."""
        if self.slots.take_refusals():
            for entity in list(self._unwanted()):
                self._give_up(entity)
        await self.reuse_slots()

    def _unwanted(self) -> Iterator[str]:
        return (e for e in self.slots if not self.slots.is_wanted(e) and self._is_spare(e))

    def _give_up(self, entity: str) -> None:
        self.slots.drop(entity)
        self.plane.tell(Unfollow(entity=entity, keeps_slot=False))

    def _is_spare(self, entity: str) -> bool:
        is_followed = self.holdings[entity].phase is Phase.FOLLOWING
        kept = self.locks, self.pinned, self._promised
        return is_followed and not any(entity in entities for entities in kept)

    def promise(self, entities: Iterable[str], *, seconds: float) -> None:
        """Keep the state of entities so long: this session was named as one that could go on with them."""
        now = time.monotonic()
        self._promised = {entity: until for entity, until in self._promised.items() if until > now}
        self._promised |= dict.fromkeys(entities, now + seconds)

    async def reuse_slots(self) -> None:
        """Let dropped slots be other entities', once the data plane writes nothing there any more."""
        async with self._reusing:
            slots = self.slots.dropped
            if slots:
                await self.plane.catch_up()
            for slot in slots:
                self.bodies.clear(slot)
                self.slots.free(slot)

    async def granted(self, record: EntityRecord) -> EntityRecord:
        """Act on a grant that this session's own request was answered with, now or after the release due."""
        self.note_owner(record)
        if not await self.gain(record.entity, record.epoch, record.awaiting):
            self.raise_fence(record)
        return record

    async def gain(self, entity: str, epoch: int, awaiting: Awaiting | None) -> bool:
        """Act under a new grant, from the newest state known here; or wait for the release that is due.

        Returns:
            Whether it acts already.

        Raises:
            InvalidStateError: the session is over, or the grant is not above what is known.
        """
        await self.make_room(entity)
        due = self._due(entity, epoch, awaiting)
        while due is not None:
            await self.servers.know(due.server)
            told = self._due(entity, epoch, awaiting)
            if told == due:
                self._must_last()
                self.givers[entity] = due.server
                self.holdings.wait(entity, epoch, due.epoch)
                return False
            due = told
        self._must_last()
        state = self.plane.world.read(self.slots[entity])
        # First, since an answer that came again, or late, must not touch what is simulated.
        self.holdings.grant(entity, epoch)
        self.take_over(entity, state)
        self.act(entity, epoch)
        return True

    def _due(self, entity: str, epoch: int, awaiting: Awaiting | None) -> Awaiting | None:
        """The release of another session that a grant waits for, of which the feed may know more by now.

        While the answer was on its way, or the giver's key, the session that was waited for may have ended:
        whoever began to wait for it after that would wait in vain.
        """
        record = self.entities.get(entity)
        if awaiting is not None and record is not None and not record.is_deleted:
            with contextlib.suppress(LookupError):
                awaiting = record.due_to(self.session, epoch)
        # What this session itself released and nobody got is no other's to give.
        return None if awaiting is None or awaiting.session == self.session else awaiting

    def act(self, entity: str, epoch: int) -> None:
        """Simulate and seal from now on.

        Raises:
            InvalidStateError: the session is over.
        """
        self._must_last()
        slot = self.slots[entity]
        self._forget_transfer(entity)
        self.pinned.discard(entity)
        self.plane.tell(Hold(entity=entity, epoch=epoch, slot=slot))
        self.bodies.hold(slot)
        gained = self._gained.pop((entity, epoch), None)
        if gained is not None and not gained.done():
            gained.set_result(None)
        self._on_event(AuthorityGained(entity=entity, epoch=epoch, at_ns=time.monotonic_ns()))

    def deleted(self, entity: str) -> None:
        """There is no such entity any more."""
        self._on_event(EntityDeleted(entity=entity, at_ns=time.monotonic_ns()))

    async def until_acting(self, record: EntityRecord) -> None:
        """Wait for the release that a grant waits for, where it does.

        Raises:
            InvalidStateError: it has not come in time, or the session is over.
        """
        holding = self.holdings[record.entity]
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

    async def stop(self, entity: str, to: str) -> str:
        """Seal and simulate no more, then sign the release for ``to``; the box.

        Nobody has the release unless this returns it: where it does not, cancelled or because the answer
        is lost, the session goes on acting.

        Raises:
            InvalidStateError: there is nothing to release, or ``to`` has no key here; it goes on then. Or
                the session is over: what is held now is a later one's.
            DeadlineError: the data plane does not answer.
        """
        return await self._stopped(
            entity,
            lambda: self.plane.stop_sealing(entity, to, linger_ns=self._config.linger_ms * 1_000_000),
        )

    async def stop_for_nobody(self, entity: str) -> None:
        """Seal and simulate no more; who takes the entity later is due the release that is signed then.

        Raises:
            InvalidStateError: as from ``stop``.
        """
        await self._stopped(entity, lambda: self.plane.stop_for_nobody(entity))

    async def _stopped(self, entity: str, stop: Callable[[], Coroutine[object, object, _T]]) -> _T:
        self._must_last()
        held = self.holdings[entity]
        if held.phase is Phase.HOLDING:
            self.holdings.stop(entity)
        self.bodies.let_go(self.slots[entity])
        try:
            result = await stop()
        except BaseException as error:
            if held.phase is Phase.HOLDING:
                self._go_on(entity, held.epoch, has_stopped=not isinstance(error, InvalidStateError))
            raise
        unconfirmed = self.unconfirmed.pop(entity, None)
        if held.phase is Phase.HOLDING:
            self.released[entity] = held.epoch
        elif unconfirmed is not None:
            self.released[entity] = unconfirmed
        return result

    def releasable(self, entity: str) -> int | None:
        """The epoch of which a release can be signed; ``None`` where there is none."""
        holding = self.holdings[entity]
        if holding.phase in (Phase.HOLDING, Phase.RELEASING):
            return holding.epoch
        return self.unconfirmed.get(entity, self.released.get(entity))

    def _go_on(self, entity: str, epoch: int, *, has_stopped: bool) -> None:
        """Act on where nobody got the release that was asked for.

        Args:
            has_stopped: whether the data plane may have stopped; where it refuses, it still seals.
        """
        if self.holdings[entity].phase is not Phase.RELEASING:
            # The feed named another holder meanwhile, whose recall gets the release.
            self.unconfirmed[entity] = epoch
            return
        self.holdings.resume(entity)
        if self._is_over:
            return
        if has_stopped:
            # It reads this after the command that may have stopped it. One that has ended seals nothing.
            with contextlib.suppress(ClosedError):
                self.act(entity, epoch)
        else:
            self.bodies.hold(self.slots[entity])

    async def open(self, entity: str, giver: str, previous: int, box: str) -> WorldState:
        """The last state in a release.

        Raises:
            InvalidStateError: it does not hold.
        """
        data = await self.plane.open_release(entity=entity, giver=giver, previous=previous, box=box)
        return decode_state_untrusted(data)

    def take_over(self, entity: str, state: WorldState) -> None:
        """Have the simulation go on from that state."""
        self.bodies.take_over(self.slots[entity], state)

    def take_newest(self, entity: str) -> None:
        """Have the simulation go on from the newest state that this server knows."""
        self.take_over(entity, self.plane.world.read(self.slots[entity]))

    def tell(self, server: str, message: PeerMessage) -> None:
        """Send a message to another server, reliably."""
        self.plane.tell(SendMessage(to=server, message=encode_message(message)))

    def crossed(self, step: Step, kind: str, sender: str, receiver: str, at_ns: int | None = None) -> None:
        """A message has crossed."""
        self.traces.add(
            Message(
                trace=step.trace,
                hop=step.hop,
                kind=kind,
                sender=sender,
                receiver=receiver,
                at_ns=at_ns or time.monotonic_ns(),
            )
        )

    def _must_last(self) -> None:
        if self._is_over:
            raise self._over()

    def _over(self) -> InvalidStateError:
        return InvalidStateError(f"the session of {self.name} is over: what it held is others' to simulate")


def first_step() -> Step:
    """The step of the first message of a transfer."""
    return Step(trace=secrets.token_bytes(16), hop=0)

"""What one session of a server stands for: what it holds, whom it knows, the ways into acting and out of it.

Shared by what a server is asked to do (``transfers.py``) and what it is told (``obedience.py``). A session
that is over never acts again, whatever work of it is still under way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

from bridge.authority import (
    Awaiting,
    EntityRecord,
    Holdings,
    Homeserver,
    Message,
    PeerMessage,
    Phase,
    ServerRecord,
    Step,
    encode_message,
)
from bridge.errors import InvalidStateError
from bridge.replication import WorldState, decode_state_untrusted
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import AddPeer, Hold, RaiseFence, RemovePeer, SendMessage
from bridge.sim.events import AuthorityGained, EntityDeleted, ServerEvent
from bridge.sim.slots import Slots

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
        messages: every control message that crossed, for traces.
        on_event: is told of authority gained; must not block.

    Attributes:
        holdings: what the session may do with each entity.
        locks: requests and messages about one entity are served one after another.
        entities: the newest record of each entity that the feed told.
        givers: whose release is awaited, by entity.
        released: the epoch that was released last, by entity, for whoever gets that release after all.
        offers: to whom an entity was offered, and the step of the offer.
    """

    def __init__(
        self,
        *,
        config: SimulationConfig,
        home: Homeserver,
        plane: DataPlaneClient,
        bodies: Bodies,
        slots: Slots,
        messages: list[Message],
        on_event: Callable[[ServerEvent], None],
    ) -> None:
        self.name = config.name
        self.session = home.session
        self.messages = messages
        self.slots = slots
        self.plane = plane
        self.bodies = bodies
        self.holdings = Holdings()
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.entities: dict[str, EntityRecord] = {}
        self.givers: dict[str, str] = {}
        self.released: dict[str, int] = {}
        self.offers: dict[str, tuple[str, Step]] = {}
        self._config = config
        self._home = home
        self._on_event = on_event
        self._servers: dict[str, ServerRecord] = {}
        self._owners: dict[str, tuple[tuple[int, int], str]] = {}
        self._gained: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing acts for the session any more."""
        return self._is_over

    def end(self) -> None:
        """The session is over: nothing acts in its name again, and who waits to act is told."""
        self._is_over = True
        for holding in self.holdings.held():
            self.bodies.let_go(self.slots[holding.entity])
        for gained in self._gained.values():
            if not gained.done():
                gained.set_exception(self._over())
        self._gained.clear()

    def held(self) -> list[str]:
        """Names of the entities that the session acts for (R0-2)."""
        return [] if self._is_over else [holding.entity for holding in self.holdings.held()]

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

    def learn_server(self, record: ServerRecord) -> None:
        """Hear from the feed of a server, its key and where it listens."""
        if record.server == self.name or self._servers.get(record.server) == record:
            return
        if record.revoked:
            self.forget_server(record.server)
            return
        self._servers[record.server] = record
        self.plane.tell(
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
            self.plane.tell(RemovePeer(server=server))

    def session_of(self, server: str) -> bytes | None:
        """The session of a server, as the feed told; ``None`` where it has none, or is not known."""
        known = self._servers.get(server)
        return None if known is None else known.session

    def servers(self) -> list[str]:
        """Other servers that have a session, as the feed told."""
        return [name for name, record in self._servers.items() if record.session is not None]

    async def know(self, server: str) -> None:
        """Have the key and the address of a server.

        Raises:
            InvalidStateError: it is this one.
            UnknownServerError: the homeserver knows none of that name.
        """
        if server == self.name:
            raise InvalidStateError(f"{server} is this server: give passes an entity to another owner here")
        if server not in self._servers:
            self.learn_server(await self._home.server(server))

    def note_owner(self, record: EntityRecord) -> None:
        """Keep the owner of an entity, as the newest record names it."""
        known, _ = self._owners.get(record.entity, ((0, 0), ""))
        if record.age > known:
            self._owners[record.entity] = (record.age, record.owner)

    def knows(self, server: str) -> bool:
        """Whether something can be sealed for a server: it is known, and its key was not revoked."""
        return server in self._servers

    def owner(self, entity: str) -> str:
        """The owner as far as is known."""
        return self._owners.get(entity, ((0, 0), ""))[1]

    def raise_fence(self, record: EntityRecord) -> None:
        """Have state of older grants refused from now on."""
        holder = record.server if record.away is None else record.away.holder
        self.plane.tell(RaiseFence(entity=record.entity, epoch=record.epoch, server=holder or ""))

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
        self._must_last()
        # What this session itself released and nobody got is no other's to give.
        if awaiting is None or awaiting.session == self.session:
            newest = self.plane.world.read(self.slots[entity])
            # First, since an answer that came again, or late, must not touch what is simulated.
            self.holdings.grant(entity, epoch)
            self.take_over(entity, newest)
            self.act(entity, epoch)
            return True
        await self.know(awaiting.server)
        self.givers[entity] = awaiting.server
        self.holdings.wait(entity, epoch, awaiting.epoch)
        return False

    def act(self, entity: str, epoch: int) -> None:
        """Simulate and seal from now on.

        Raises:
            InvalidStateError: the session is over.
        """
        self._must_last()
        slot = self.slots[entity]
        self.released.pop(entity, None)
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

        Raises:
            InvalidStateError: there is nothing to release, or ``to`` has no key here; it goes on then. Or
                the session is over: what is held now is a later one's.
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
        except InvalidStateError:
            if held.phase is Phase.HOLDING and self.holdings[entity].phase is Phase.RELEASING:
                # It refuses before it stops: whatever it was asked for, it still seals.
                self.holdings.resume(entity)
                if not self._is_over:
                    self.bodies.hold(self.slots[entity])
            raise
        if held.phase is Phase.HOLDING:
            self.released[entity] = held.epoch
        return result

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
        """Keep a message for traces."""
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

    def _must_last(self) -> None:
        if self._is_over:
            raise self._over()

    def _over(self) -> InvalidStateError:
        return InvalidStateError(f"the session of {self.name} is over: what it held is others' to simulate")


def first_step() -> Step:
    """The step of the first message of a transfer."""
    return Step(trace=secrets.token_bytes(16), hop=0)

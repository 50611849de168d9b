"""One session of a simulation server, from its opening to its end.

A server that loses its session opens another one; what the old one held, and was about to do, ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

from bridge.authority import Border, Lease, PeerMessage, Relief, Room
from bridge.errors import BridgeError, InvalidStateError
from bridge.etf import Atom
from bridge.khepri import Khepri, NodeNotFoundError
from bridge.node import Gateway
from bridge.registry import Homeserver, Journal, NameInUseError, Ownership, Recalled
from bridge.sim.asks import AskHandler, Asks
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.deadline import boot_ns
from bridge.sim.dataplane.receiving import MAX_ECHO_AGE_SECONDS
from bridge.sim.ending import until_one_ends
from bridge.sim.events import Problem, ServerEvent
from bridge.sim.feed import BRIDGE, Feed
from bridge.sim.following import Following
from bridge.sim.obedience import Obedience
from bridge.sim.relieving import Relieving
from bridge.sim.renewals import Renewals
from bridge.sim.settling import Settling
from bridge.sim.shedding import Shedding
from bridge.sim.slots import Slots
from bridge.sim.standing import Standing
from bridge.sim.traces import Traces
from bridge.sim.transfers import Transfers
from bridge.sim.zones import Layout
from bridge.sim.zoning import Zoning

_LESSOR: Final = Atom("lessor")
_DEFAULT_LEASE_MS: Final = 3_000
_NAME_ASKS_PER_LEASE: Final = 10
_NAME_LEASES: Final = 3
"""How long an earlier session of the name is waited for; a lessor, even a new one, ends it within two."""
_STREAMED_LEASES: Final = 2
"""The state of a holder that died silently is as old as its lease when its successor is looked for."""
_STREAMED_SECONDS: Final = 0.28
"""for an answer that counts if it is there in 300 ms"""

_log = logging.getLogger("bridge.sim")


class Tenure:
    """A session and all that hangs on it.

    Args:
        config: of the server.
        store: client of the instance's store.
        gateway: the connection to a homeserver.
        plane: the data plane, running.
        bodies: the simulation.
        shedding: its load.
        slots: of the shared world.
        following: what of a mesh is followed.
        traces: takes every control message that crosses.
        journal: records requests and answers.
        on_event: is told what happens; must not block.

    Attributes:
        session: 16 random bytes.
        transfers: what the session may be asked to do.
        obedience: what it may be told.
        relieving: what it sheds.
    """

    def __init__(
        self,
        *,
        config: SimulationConfig,
        store: Khepri,
        gateway: Gateway,
        plane: DataPlaneClient,
        bodies: Bodies,
        shedding: Shedding,
        slots: Slots,
        following: Following,
        traces: Traces,
        journal: Journal | None,
        on_event: Callable[[ServerEvent], None],
    ) -> None:
        self.session = secrets.token_bytes(16)
        self._config = config
        self._store = store
        self._gateway = gateway
        self._plane = plane
        self._bodies = bodies
        self._on_event = on_event
        self._home = Homeserver(store, self.session, journal=journal)
        self._players = Ownership(store, journal=journal)
        self._standing = Standing(
            config=config,
            home=self._home,
            plane=plane,
            bodies=bodies,
            slots=slots,
            traces=traces,
            on_event=on_event,
        )
        self._asks = Asks(
            name=config.name,
            session=self.session,
            players=self._players,
            record=traces.add,
            on_event=on_event,
        )
        settling = Settling(
            standing=self._standing, home=self._home, streamed=self.streamed, spawn=self.spawn
        )
        self.transfers = Transfers(
            standing=self._standing,
            home=self._home,
            players=self._players,
            asks=self._asks,
            settling=settling,
            may_act=self.may_act,
            on_event=on_event,
            spawn=self.spawn,
        )
        self.obedience = Obedience(
            standing=self._standing,
            home=self._home,
            asks=self._asks,
            direct=self.transfers.direct,
            abroad=self.transfers.abroad,
            settling=settling,
            spawn=self.spawn,
        )
        self._steps = 0
        self._seen = (0, 0)
        self.relieving = Relieving(
            shedding=shedding,
            standing=self._standing,
            transfers=self.transfers,
            streamed=self.streamed,
            may_act=self.may_act,
            spawn=self.spawn,
        )
        self._following = following
        self._zoning = None if config.mesh is None else self._zoning_of(config.mesh)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lease: Lease | None = None
        self._over: asyncio.Task[None] | None = None

    @property
    def lease_ms(self) -> int:
        """The lease, as the homeserver told it."""
        assert self._lease is not None
        return self._lease.lease_ns // 1_000_000

    @property
    def zoning(self) -> Zoning:
        """What the session hands over in its mesh; see ``SimulationServer.zoning``."""
        if self._zoning is None:
            raise InvalidStateError(f"{self._config.name} is of no mesh")
        return self._zoning

    @property
    def lease_left(self) -> float:
        """Seconds for which it may act without another acknowledgement; 0 once it may not."""
        if self._lease is None or self._standing.is_over:
            return 0.0
        return max(0.0, (self._lease.acts_until_ns - boot_ns()) / 1e9)

    @property
    def players(self) -> Mapping[str, AskHandler | None]:
        """Who has entered here."""
        return self._asks.players

    def may_act(self) -> bool:
        """Whether the lease lasts, now."""
        return self._lease is not None and not self._lease.is_over(boot_ns())

    async def open(self, players: Mapping[str, AskHandler | None]) -> None:
        """Open the session, wait while its name is in use, and until its lease has begun.

        Args:
            players: who is here already, and enters again.

        Raises:
            AuthorityError: refused for good.
            NameInUseError: an earlier session of that name did not end.
            KhepriError, OutcomeUnknownError, DeadlineError: no homeserver could open it, or keep it.
            NotHolderError: it was lost before the players had entered.
        """
        lease_ms = await self._open()
        margin_ns = round(MAX_ECHO_AGE_SECONDS * 1e9)
        self._lease = Lease(self.session, lease_ms * 1_000_000, margin_ns=margin_ns)
        self._plane.begin_session(self.session)
        renewals = Renewals(
            gateway=self._gateway, lease=self._lease, deadline=self._plane.deadline, load=self
        )
        feed = Feed(
            store=self._store,
            standing=self._standing,
            obedience=self.obedience,
            direct=self.transfers.direct,
            asks=self._asks,
            on_event=self._on_event,
            spawn=self.spawn,
        )
        # The feed of servers and entities first: a grant names a giver whose key must be known by then.
        # Without its feed a server would not hear that it was recalled, without renewals it has no lease.
        self._over = asyncio.create_task(until_one_ends(renewals.run(), feed.run()))
        await feed.until_begun(self._config.name, acknowledged=renewals.acknowledged, over=self._over)
        for player, handler in players.items():
            await self.transfers.enter(player, handler)
        if self._config.shed:
            self.spawn(self.relieving.run())
        if self._zoning is not None:
            self.spawn(self._zoning.run())

    async def pass_on(self) -> None:
        """Hand over what the session holds to neighbours in its mesh, while it still may act."""
        if self._zoning is not None and self.may_act():
            await self._zoning.drain()

    def follow(self, entity: str) -> None:
        """Keep the state of an entity that another server streams to this one, while there is room."""
        if self._zoning is not None:
            self._following.first(entity)
        else:
            self.transfers.follow(entity)

    async def lost(self) -> None:
        """Wait until the session is lost; what ends its feed or its renewals otherwise is raised."""
        assert self._over is not None
        await asyncio.shield(self._over)

    def fence(self) -> None:
        """Stop all that acts in this session's name, at once."""
        if self._lease is not None:
            self._lease.lose()
        self._plane.deadline.set(0)
        self._standing.end()

    async def end(self) -> None:
        """End the work that is under way for it."""
        tasks = [*self._tasks, *(() if self._over is None else (self._over,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Tell the homeserver that nothing acts any more, so that others go on with what was held."""
        await self._home.close_session()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run work in the background as long as the session lasts; its failure is told."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def take_message(self, server: str, message: PeerMessage, at_ns: int) -> None:
        """Serve a message of another server."""
        if self._zoning is not None and isinstance(message, Relief | Room | Border):
            self._zoning.take_message(server, message)
        elif isinstance(message, Relief | Room):
            self.relieving.take_message(server, message)
        else:
            self.spawn(self.obedience.take_message(server, message, at_ns))

    def kept(self) -> int:
        """Entries of all tables: a few for each entity and player, and for what is under way."""
        told = self._standing.knows_of() + self.obedience.knows_of() + self.transfers.direct.knows_of()
        return told + self._asks.waiting() + len(self._asks.players) + len(self._tasks)

    def tick(self) -> int:
        """Rises with each renewal before which both the simulation and the data plane went on.

        A data plane that stands still seals nothing: the server hangs, whatever its simulation does.
        """
        now = (self._bodies.tick, self._plane.turns.count())
        if all(one != before for one, before in zip(now, self._seen, strict=True)):
            self._steps += 1
            self._seen = now
        return self._steps

    def held(self) -> int:
        """Entities held."""
        return self._standing.count_held()

    def obeyed(self, recalls: tuple[Recalled, ...]) -> list[Recalled]:
        """Of the recalls that the lessor believes open, those that were obeyed."""
        return self.obedience.obeyed(recalls)

    async def streamed(self, entities: tuple[str, ...]) -> tuple[str, ...]:
        """Of these entities, those whose newest state is here."""
        assert self._lease is not None
        found = await self._plane.find_streamed(
            entities, max_age_ns=_STREAMED_LEASES * self._lease.lease_ns, seconds=_STREAMED_SECONDS
        )
        self._standing.promise(found, seconds=self._lease.lease_ns / 1e9)
        return found

    def released(self, entities: tuple[str, ...]) -> list[tuple[str, int]]:
        """Of these entities, those that the session has released for good, with the newest epoch."""
        return [(entity, epoch) for entity in entities if (epoch := self._standing.released_for_good(entity))]

    def _zoning_of(self, mesh: Layout) -> Zoning:
        return Zoning(
            layout=mesh,
            most=self._config.most_in_mesh,
            standing=self._standing,
            transfers=self.transfers,
            following=self._following,
            may_act=self.may_act,
            spawn=self.spawn,
        )

    async def _open(self) -> int:
        ready = self._plane.ready
        assumed = await self._assumed_lease_ms() / 1000
        deadline = asyncio.get_running_loop().time() + _NAME_LEASES * assumed
        while True:
            try:
                opened = await self._home.open_session(
                    server=self._config.name,
                    key=ready.key,
                    thumbprint=ready.thumbprint,
                    address=(ready.host, ready.port),
                )
            except NameInUseError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise NameInUseError(
                        f"another server runs as {self._config.name}: stop it, or take another name",
                        reason=error.reason,
                        props=error.props,
                    ) from error
                await asyncio.sleep(assumed / _NAME_ASKS_PER_LEASE)
            else:
                return opened.lease_ms

    async def _assumed_lease_ms(self) -> int:
        """The lease that an earlier session of the name has, most likely."""
        try:
            lessor = await self._store.get([BRIDGE, _LESSOR])
        except NodeNotFoundError:
            return _DEFAULT_LEASE_MS
        lease_ms = lessor.get(Atom("lease_ms"))
        return lease_ms if isinstance(lease_ms, int) else _DEFAULT_LEASE_MS

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BridgeError):
                _log.error("a task of %s failed", self._config.name, exc_info=error)
            elif self._standing.is_over:
                # Such as a grant that came meanwhile: what could not be done is others' to do.
                return
            self._on_event(Problem(text=f"{type(error).__name__}: {error}", fatal=False))

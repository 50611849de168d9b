"""A simulation server's control plane: a hidden node that moves authority, beside a data plane for state.

This process never reads a stranger's byte; the data plane never sees a cookie (``docs/threat-model.md``). The
third is a guardian, which ends the session when both are dead.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from bridge.authority import RecordFile, decode_message_untrusted, record_path
from bridge.errors import BridgeError, ClosedError, ConnectionLostError, DeadlineError, HandshakeError
from bridge.khepri import Khepri, StoreUnavailableError, UnknownOutcomeError
from bridge.node import Gateway, HiddenNode, NodeConfig
from bridge.registry import EndReason, Homeserver, Journal, NotHolderError, RestoringError
from bridge.sim.asks import AskHandler
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import (
    Credited,
    Event,
    Fatal,
    FirstAccepted,
    PeerDown,
    PeerMessageReceived,
    PeerUp,
    Report,
    Start,
    WentSilent,
)
from bridge.sim.events import (
    FellSilent,
    PeerSessionChanged,
    Problem,
    ServerEvent,
    SessionLost,
    SessionOpened,
    StateAccepted,
)
from bridge.sim.following import Following
from bridge.sim.guardian import Guardian
from bridge.sim.metrics import Sample
from bridge.sim.motion import Motion, roll
from bridge.sim.relieving import ReliefCounts
from bridge.sim.shedding import Shedding
from bridge.sim.slots import Slots
from bridge.sim.tenure import Tenure
from bridge.sim.traces import Traces
from bridge.sim.transfers import Transfers
from bridge.sim.zoning import Zoning

_DRAIN_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0
_MEASURE_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 1.0
"""between tries to open another session while no homeserver does it"""
_NOT_NOW: Final = (
    UnknownOutcomeError,
    StoreUnavailableError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    RestoringError,
    NotHolderError,
)
"""why a session does not begin that may do so later; one that is lost while its players enter is no holder"""

_log = logging.getLogger("bridge.sim")


class SimulationServer:
    """One simulation server, as an async context manager.

    Args:
        config: how to run.
        on_event: called in the event loop with what a driver or a log wants to know; must not block.
        motion: moves what the server holds, tick by tick.
    """

    def __init__(
        self, config: SimulationConfig, on_event: Callable[[ServerEvent], None], *, motion: Motion = roll
    ) -> None:
        self.config = config
        self._motion = motion
        self._listener = on_event
        self._events: Counter[str] = Counter()
        self._stack = AsyncExitStack()
        self._plane = DataPlaneClient(self._on_plane_event)
        most = config.follow if config.mesh is None else config.capacity
        self._slots = Slots(server=config.name, capacity=config.capacity, follow=most)
        self._following = Following(slots=self._slots, follow=config.follow, tell=self._plane.tell)
        self._traces = Traces(config.name, keep_history=config.keep_history)
        self._shedding = Shedding(
            period_seconds=1.0 / config.rate_hz,
            max_entities=config.max_entities or config.capacity,
            max_busy=config.max_busy,
        )
        self._run = secrets.token_bytes(16)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tenure: Tenure | None = None
        self._closing = False

    @property
    def session(self) -> bytes:
        """The present session, 16 bytes."""
        return self._present.session

    @property
    def transfers(self) -> Transfers:
        """What the server holds, and how it comes and goes, in its present session."""
        return self._present.transfers

    @property
    def store(self) -> Khepri:
        """Client of the instance's store, over the server's own connection."""
        return self._store

    @property
    def busy(self) -> float:
        """Share of a simulation step's period that steps take, averaged over about a second."""
        return self._shedding.busy

    @property
    def relief(self) -> ReliefCounts:
        """What was shed in the present session (R0-44)."""
        return self._present.relieving.counts

    @property
    def zoning(self) -> Zoning:
        """What is handed over in the present session since it left this server's zones of a mesh (R0-A5).

        Raises:
            InvalidStateError: the server is of no mesh.
        """
        return self._present.zoning

    @property
    def dropped(self) -> int:
        """Control messages that memory does not hold any more."""
        return self._traces.crossed - len(self._traces)

    def kept(self) -> int:
        """Entries of the control plane's tables: a few for each entity and player that the homeserver has."""
        return self._present.kept() + len(self._slots) + len(self._tasks)

    @property
    def _present(self) -> Tenure:
        if self._tenure is None:
            raise ClosedError(f"{self.config.name} does not run: use 'async with'")
        return self._tenure

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        config = self.config
        self._guardian = await self._stack.enter_async_context(Guardian(config, self._on_guardian_problem))
        self._stack.push_async_callback(self._plane.close)
        start = Start(
            server=config.name,
            run=self._run,
            host=config.host,
            port=config.port,
            capacity=config.capacity,
            rate_hz=config.rate_hz,
            key_file=config.key_file,
            signed=config.signed,
            record_dir=config.record_dir,
            network="" if config.network is None else str(config.network),
            keep_history=config.keep_history,
        )
        await self._plane.start(start, life=self._guardian.life)
        self._bodies = Bodies(self._plane.world, self._motion)
        node_config = NodeConfig(epmd_port=config.epmd_port, register=config.register, tls=config.tls)
        node = await self._stack.enter_async_context(
            HiddenNode(config.node, cookie=config.cookie, config=node_config)
        )
        self._gateway = await self._stack.enter_async_context(Gateway(node, config.members))
        await self._gateway.connect(timeout=_CONNECT_SECONDS)
        self._store = Khepri.connect(node, self._gateway, store=config.store, client=config.name)
        self._journal = self._open_journal()
        self._stack.push_async_callback(self._cancel_tasks)
        # Before the session: a lessor takes a simulation that has not begun for one that hangs.
        self._spawn(self._simulate())
        self._stack.push_async_callback(self._end_tenure)
        await self._begin({})
        self._spawn(self._keep_a_session())

    def _open_journal(self) -> Journal | None:
        if self.config.record_dir is None:
            return None
        path = record_path(self.config.record_dir, self.config.name, self._run, "requests")
        file = self._stack.enter_context(RecordFile(path))
        return Journal(f"{self.config.name}-{self._run.hex()[:12]}", file.write)

    async def close(self) -> None:
        """Stop acting, end the session at the homeserver so that others go on, end the data plane."""
        self._closing = True
        try:
            await self._pass_on()
            await self._cancel_tasks()
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._drain()
        except (BridgeError, TimeoutError) as error:
            _log.warning("session of %s not closed: %s", self.config.name, error)
        finally:
            await self._stack.aclose()

    async def _pass_on(self) -> None:
        """While it simulates still: a lessor takes a simulation that stands for one that hangs."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._present.pass_on()
        except (BridgeError, TimeoutError) as error:
            _log.warning("%s has not handed all over to its neighbours: %s", self.config.name, error)

    async def _drain(self) -> None:
        """The homeserver may pass on what was held only once nothing is sealed any more."""
        tenure = self._present
        tenure.fence()
        try:
            await self._plane.end_session()
        except ClosedError:
            _log.info("the data plane of %s has ended already", self.config.name)
        await tenure.close()
        self._guardian.watch(None)

    async def report(self) -> Report:
        """Records and counts of the data plane, after everything reliable has arrived.

        The records are the newest ones, unless the server keeps its history.
        """
        return await self._plane.report(drain_seconds=_DRAIN_SECONDS)

    async def sample(self) -> Sample:
        """What metrics tell of this server now; without a session, or as it ends, of what there is."""
        tenure = self._tenure
        try:
            data = await self._plane.measure(seconds=_MEASURE_SECONDS)
        except BridgeError:
            data = None
        return Sample(
            held=0 if tenure is None else tenure.held(),
            slots=len(self._slots),
            lease_left=0.0 if tenure is None else tenure.lease_left,
            busy=self.busy,
            messages=dict(self._traces.kinds),
            events=dict(self._events),
            relief=ReliefCounts() if tenure is None else tenure.relieving.counts,
            zones=None if tenure is None or self.config.mesh is None else tenure.zoning.counts,
            ghosts=len(self._following.ghosts),
            refused_changes=0 if tenure is None else tenure.transfers.refused_changes,
            kept=0 if tenure is None else self.kept(),
            data=data,
        )

    def _on_event(self, event: ServerEvent) -> None:
        self._events[str(event.__struct_config__.tag)] += 1
        self._listener(event)

    async def _begin(self, players: Mapping[str, AskHandler | None]) -> None:
        tenure = Tenure(
            config=self.config,
            store=self._store,
            gateway=self._gateway,
            plane=self._plane,
            bodies=self._bodies,
            shedding=self._shedding,
            slots=self._slots,
            following=self._following,
            traces=self._traces,
            journal=self._journal,
            on_event=self._on_event,
        )
        # First, so that no session is ever open that the guardian does not know.
        self._guardian.watch(tenure.session)
        self._tenure = tenure
        await tenure.open(players)

    async def _keep_a_session(self) -> None:
        while True:
            tenure = self._present
            await tenure.lost()
            held = tuple(tenure.transfers.held())
            tenure.fence()
            self._on_event(SessionLost(entities=held, at_ns=time.monotonic_ns()))
            await tenure.end()
            await self._begin_again(tenure.players)
            self._on_event(SessionOpened(lease_ms=self._present.lease_ms))

    async def _begin_again(self, players: Mapping[str, AskHandler | None]) -> None:
        while True:
            # Waited for each time: the next session's deadline lies in shared memory, and would overtake the
            # command that ends what the one before it held.
            await self._plane.end_session()
            try:
                await self._begin(players)
            except _NOT_NOW as error:
                _log.warning("%s has no session: %s", self.config.name, error)
                await self._end_tenure()
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _end_tenure(self) -> None:
        if self._tenure is not None:
            self._tenure.fence()
            await self._tenure.end()

    def _on_guardian_problem(self, text: str) -> None:
        self._on_event(Problem(text=text, fatal=False))

    async def _simulate(self) -> None:
        loop = asyncio.get_running_loop()
        period = 1.0 / self.config.rate_hz
        due = loop.time()
        while True:
            began = loop.time()
            self._step(period)
            self._shedding.stepped(loop.time() - began)
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())

    def _step(self, seconds: float) -> None:
        self._bodies.step(seconds, moving=self._tenure is not None and self._tenure.may_act())

    def _on_plane_event(self, event: Event) -> None:
        match event:
            case PeerMessageReceived(server=server, message=data, at_ns=at_ns):
                self._present.take_message(server, decode_message_untrusted(data), at_ns)
            case Credited(server=server, message=data, at_ns=at_ns):
                self.transfers.direct.credited(server, data, at_ns)
            case FirstAccepted(server=server, entity=entity, epoch=epoch, at_ns=at_ns):
                self._present.obedience.end_switch(server, entity, at_ns)
                self._present.follow(entity)
                self._on_event(StateAccepted(entity=entity, epoch=epoch, sender=server, at_ns=at_ns))
            case WentSilent() if self._closing:
                pass  # as it was told to
            case WentSilent(entities=entities, at_ns=at_ns):
                self._on_event(FellSilent(entities=entities, at_ns=at_ns))
            case PeerUp(server=server):
                self._on_event(PeerSessionChanged(server=server, up=True, reason=""))
            case PeerDown(server=server, reason=reason):
                self._on_event(PeerSessionChanged(server=server, up=False, reason=reason))
            case Fatal(error=error):
                self._on_data_plane_end(error)
            case _:
                _log.error("unexpected event of the data plane: %r", event)

    def _on_data_plane_end(self, error: str) -> None:
        # It is dead, and alone could seal: others need not wait for the lease.
        if self._tenure is not None:
            self._tenure.fence()
            self._spawn(self._end_dead_session(self._tenure.session))
        self._on_event(Problem(text=error, fatal=True))

    async def _end_dead_session(self, session: bytes) -> None:
        await Homeserver(self._store, session).end_session(EndReason.DEAD)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BridgeError):
                _log.error("a task of %s failed", self.config.name, exc_info=error)
            self._on_event(Problem(text=f"{type(error).__name__}: {error}", fatal=True))

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

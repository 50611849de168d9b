"""A simulation server's control plane: a hidden node that moves authority, beside a data plane for state.

This process never reads a stranger's byte; the data plane never sees a cookie (``docs/threat-model.md``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from bridge.authority import (
    EntityRecord,
    Homeserver,
    Journal,
    Ownership,
    PlayerRecord,
    RecordFile,
    ServerRecord,
    decode_message_untrusted,
    inbox_message,
    record_path,
)
from bridge.errors import BridgeError, DecodeError
from bridge.etf import Atom
from bridge.khepri import Deleted, Khepri, NativePath, Path, Snapshot, Updated, path_text
from bridge.node import Gateway, HiddenNode, NodeConfig
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
)
from bridge.sim.events import PeerSessionChanged, Problem, ServerEvent, StateAccepted
from bridge.sim.transfers import Transfers

_BRIDGE: Final = Atom("bridge")
_SERVERS: Final = Atom("servers")
_PLAYERS: Final = Atom("players")
_ENTITIES: Final = Atom("entities")
_INBOX: Final = Atom("inbox")
_START_SECONDS: Final = 10.0
"""until the first snapshot of the feed"""
_DRAIN_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0

_log = logging.getLogger("bridge.sim")


class SimulationServer:
    """One simulation server, as an async context manager.

    Args:
        config: how to run.
        on_event: called in the event loop with what a driver or a log wants to know; must not block.

    Attributes:
        transfers: what the server holds, and how it comes and goes; while the server runs.
    """

    transfers: Transfers

    def __init__(self, config: SimulationConfig, on_event: Callable[[ServerEvent], None]) -> None:
        self.config = config
        self.session = secrets.token_bytes(16)
        self._on_event = on_event
        self._stack = AsyncExitStack()
        self._plane = DataPlaneClient(self._on_plane_event)
        self._tasks: set[asyncio.Task[None]] = set()

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
        self._stack.push_async_callback(self._plane.close)
        ready = await self._plane.start(
            Start(
                server=config.name,
                session=self.session,
                host=config.host,
                port=config.port,
                capacity=config.capacity,
                rate_hz=config.rate_hz,
                key_file=config.key_file,
                signed=config.signed,
                record_dir=config.record_dir,
                network="" if config.network is None else str(config.network),
            )
        )
        self._bodies = Bodies(self._plane.world)
        node_config = NodeConfig(epmd_port=config.epmd_port, register=config.register)
        node = await self._stack.enter_async_context(
            HiddenNode(config.node, cookie=config.cookie, config=node_config)
        )
        gateway = await self._stack.enter_async_context(Gateway(node, config.members))
        await gateway.connect(timeout=_CONNECT_SECONDS)
        self._store = Khepri.connect(node, gateway, store=config.store, client=config.name)
        journal = self._journal()
        self._home = Homeserver(self._store, self.session, journal=journal)
        await self._home.open_session(
            server=config.name, key=ready.key, thumbprint=ready.thumbprint, address=(ready.host, ready.port)
        )
        self.transfers = Transfers(
            config=config,
            home=self._home,
            players=Ownership(self._store, journal=journal),
            plane=self._plane,
            bodies=self._bodies,
            on_event=self._on_event,
            spawn=self._spawn,
        )
        self._stack.push_async_callback(self._cancel_tasks)
        # The feed of servers and entities first: a grant names a giver whose key must be known by then.
        watching = asyncio.Event()
        self._spawn(self._watch(watching), vital=True)
        self._spawn(self._simulate(), vital=True)
        async with asyncio.timeout(_START_SECONDS):
            await watching.wait()

    def _journal(self) -> Journal | None:
        if self.config.record_dir is None:
            return None
        path = record_path(self.config.record_dir, self.config.name, self.session, "requests")
        file = self._stack.enter_context(RecordFile(path))
        return Journal(f"{self.config.name}-{self.session.hex()[:12]}", file.write)

    async def close(self) -> None:
        """Release everything, end the session at the homeserver, end the data plane."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._home.close_session()
        except (BridgeError, TimeoutError) as error:
            _log.warning("session of %s not closed: %s", self.config.name, error)
        finally:
            await self._stack.aclose()

    async def report(self) -> Report:
        """Records and counts of the data plane, after everything reliable has arrived."""
        return await self._plane.report(drain_seconds=_DRAIN_SECONDS)

    async def _watch(self, ready: asyncio.Event) -> None:
        inbox: Path = [_BRIDGE, _INBOX, self.session]
        watched = ([_BRIDGE, _SERVERS], [_BRIDGE, _PLAYERS], [_BRIDGE, _ENTITIES], inbox)
        async with self._store.watch(*watched) as feed:
            async for change in feed:
                match change:
                    case Snapshot(nodes=nodes):
                        # Keys first: a grant in the inbox names a giver, and its release opens with that key.
                        for kind in (_SERVERS, _PLAYERS, _ENTITIES, _INBOX):
                            for path, data in nodes.items():
                                if path[1] == kind:
                                    self._learn(path, data)
                        ready.set()
                    case Updated(path=path, data=data):
                        self._learn(path, data)
                    case Deleted(path=path):
                        self._forget(path)

    def _learn(self, path: NativePath, data: object) -> None:
        if len(path) < 3 or data is None:
            return
        try:
            self._learn_record(path, data)
        except DecodeError as error:
            # A record of another version of the homeserver: the rest of the feed still counts.
            self._on_event(Problem(text=f"{path_text(path)}: {error}", fatal=False))

    def _forget(self, path: NativePath) -> None:
        if len(path) != 3 or not isinstance(path[2], bytes):
            return
        name = path[2].decode(errors="replace")
        if path[1] == _SERVERS:
            self.transfers.forget_server(name)
        elif path[1] == _PLAYERS:
            self.transfers.direct.forget_player(name)

    def _learn_record(self, path: NativePath, data: object) -> None:
        if path[1] == _SERVERS:
            self.transfers.learn_server(ServerRecord.from_term(data))
        elif path[1] == _PLAYERS:
            self.transfers.direct.learn_player(PlayerRecord.from_term(data))
        elif path[1] == _ENTITIES:
            self.transfers.learn_entity(EntityRecord.from_term(data))
        elif len(path) in (4, 6):
            self._spawn(self.transfers.read_inbox(inbox_message(data)))

    async def _simulate(self) -> None:
        loop = asyncio.get_running_loop()
        period = 1.0 / self.config.rate_hz
        due = loop.time()
        while True:
            self._bodies.step(period)
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())

    def _on_plane_event(self, event: Event) -> None:
        match event:
            case PeerMessageReceived(server=server, message=data, at_ns=at_ns):
                self._spawn(self.transfers.take_message(server, decode_message_untrusted(data), at_ns))
            case Credited(server=server, message=data, at_ns=at_ns):
                self.transfers.direct.credited(server, data, at_ns)
            case FirstAccepted(server=server, entity=entity, epoch=epoch, at_ns=at_ns):
                self.transfers.end_switch(server, entity, at_ns)
                self.transfers.follow(entity)
                self._on_event(StateAccepted(entity=entity, epoch=epoch, sender=server, at_ns=at_ns))
            case PeerUp(server=server):
                self._on_event(PeerSessionChanged(server=server, up=True, reason=""))
            case PeerDown(server=server, reason=reason):
                self._on_event(PeerSessionChanged(server=server, up=False, reason=reason))
            case Fatal(error=error):
                self._on_event(Problem(text=error, fatal=True))
            case _:
                _log.error("unexpected event of the data plane: %r", event)

    def _spawn(self, work: Coroutine[object, object, None], *, vital: bool = False) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._done(ended, vital))

    def _done(self, task: asyncio.Task[None], vital: bool) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BridgeError):
                _log.error("a task of %s failed", self.config.name, exc_info=error)
            # Without its feed a server would not hear that it was recalled, and go on as if it held.
            self._on_event(Problem(text=f"{type(error).__name__}: {error}", fatal=vital))

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

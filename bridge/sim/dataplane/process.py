"""The data plane's process: reads strangers' datagrams, holds the private key, knows no cookie.

Started by ``client.py`` as ``python -m bridge.sim.dataplane.process CONTROL_FD WORLD_FD``. It ends when the
control plane's end of the socket closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import uvloop

from bridge.authority import RecordFile, encode_entry, record_path
from bridge.errors import BridgeError, ConfigurationError, KeyFormatError
from bridge.jose import Jwk
from bridge.replication import World
from bridge.sim.dataplane.commands import CommandReader
from bridge.sim.dataplane.deadline import Deadline, Turns, shared_size
from bridge.sim.dataplane.keys import load_or_create_key
from bridge.sim.dataplane.messages import (
    AddPeer,
    BeginSession,
    CatchUp,
    CaughtUp,
    Command,
    EndSession,
    Event,
    Fatal,
    FindStreamed,
    Follow,
    Forget,
    Hold,
    MakeReport,
    Measure,
    Measured,
    Opened,
    OpenRelease,
    PeerDown,
    PeerUp,
    RaiseFence,
    Ready,
    Refused,
    RemovePeer,
    Report,
    Sealed,
    SendMessage,
    SessionEnded,
    Shutdown,
    Start,
    Stop,
    Streamed,
    Unfollow,
    encode_frame,
)
from bridge.sim.dataplane.plane import STREAMS, DataPlane
from bridge.sim.dataplane.receiving import MAX_ECHO_AGE_SECONDS
from bridge.udp import (
    Conditioner,
    MessageReceived,
    NetworkConditions,
    Peer,
    PeerUnreachable,
    SessionClosed,
    SessionEstablished,
    StateReceived,
    StatesReceived,
    UdpCollector,
    UdpConfig,
    UdpEngine,
    UdpEvent,
    keep_freed_memory,
)

_RECONNECT_SECONDS: Final = 0.5
"""between attempts to reach a server that does not answer; one padded datagram each"""
_KEEPALIVE_SECONDS: Final = MAX_ECHO_AGE_SECONDS / 4
"""A state that follows a silence must carry an echo that its receiver still takes; two PINGs may be lost."""
_RECORD_NS: Final = 1_000_000_000
"""nanoseconds between writings of what was accepted, where a record is kept"""
_MESSAGES_BYTES: Final = 32 << 20
"""for one peer: a bind for each handle goes to it when it comes, the longest names are 255 bytes"""
_DRAIN_POLL_SECONDS: Final = 0.01


class DataPlaneProcess:
    """Joins engine, plane and control socket; everything runs in one event loop."""

    def __init__(
        self,
        start: Start,
        world: World,
        deadline: Deadline,
        turns: Turns,
        key: Jwk,
        send: Callable[[Event], None],
    ) -> None:
        self._start = start
        self._turns = turns
        self._key = key
        self._send = send
        self._engine = UdpEngine(
            UdpConfig(
                host=start.host,
                port=start.port,
                keepalive_interval=_KEEPALIVE_SECONDS,
                max_state_streams=STREAMS,
                reliable_buffer_bytes=_MESSAGES_BYTES,
                signed=start.signed,
            ),
            identity=key,
            on_event=self._on_event,
            before_sealing=lambda: self._plane.before_sealing(now_ns=time.monotonic_ns()),
            conditioner=_conditioner(start),
        )
        self._record = _record_file(start)
        self._deadline = deadline
        self._plane = DataPlane(
            server=start.server,
            run=start.run,
            key=key,
            world=world,
            may_seal=lambda: not deadline.is_over(),
            emit=send,
            record=None if self._record is None else self._record.write,
            keep_history=start.keep_history,
        )
        self._recorded_ns = 0
        self._known: set[str] = set()
        self._sessions_open: set[str] = set()
        self._connecting: dict[str, asyncio.Task[None]] = {}

    async def run(self, commands: CommandReader) -> None:
        """Serve commands until ``Shutdown`` or the end of the control plane."""
        async with self._engine:
            host, port = self._engine.local_address[:2]
            self._send(
                Ready(
                    key=self._key.public().to_json().encode(),
                    thumbprint=self._key.thumbprint(),
                    host=host,
                    port=port,
                )
            )
            ticking = asyncio.create_task(self._tick_forever())
            try:
                while some := await commands.waiting():
                    began = time.monotonic()
                    for command in some:
                        if isinstance(command, Shutdown):
                            return
                        await self._carry_out(command)
                    self._plane.send_begun(now_ns=time.monotonic_ns())
                    carried_out = time.monotonic()
                    self._engine.flush()
                    # Reading what has come already gives nobody a turn. Without this the commands for a whole
                    # world would stop the ticks, and a server without any in a second loses its session.
                    await asyncio.sleep(0)
                    commands.share.took(commands=carried_out - began, others=time.monotonic() - carried_out)
            finally:
                for task in (ticking, *self._connecting.values()):
                    task.cancel()

    async def _carry_out(self, command: Command) -> None:
        now_ns = time.monotonic_ns()
        match command:
            case BeginSession(session=session):
                self._plane.begin_session(session)
            case EndSession(id=number):
                self._plane.end_session()
                self._send(SessionEnded(id=number))
            case FindStreamed(id=number, entities=entities, max_age_ns=max_age_ns):
                found = self._plane.streamed(entities, max_age_ns=max_age_ns, now_ns=now_ns)
                self._send(Streamed(id=number, entities=found))
            case AddPeer():
                self._add_peer(command)
            case RemovePeer(server=server):
                self._remove_peer(server)
            case RaiseFence(entity=entity, epoch=epoch, server=server):
                self._plane.raise_fence(entity, epoch, server, now_ns=now_ns)
            case Hold(entity=entity, epoch=epoch, slot=slot):
                self._record_alive(now_ns)
                self._plane.hold(entity, epoch, slot, now_ns=now_ns)
            case Follow(entity=entity, slot=slot):
                self._plane.follow(entity, slot)
            case Unfollow(entity=entity, keeps_slot=keeps_slot):
                self._plane.unfollow(entity, keeps_slot=keeps_slot)
            case Forget(entity=entity):
                self._plane.forget(entity)
            case CatchUp(id=number):
                self._send(CaughtUp(id=number))
            case SendMessage(to=to, message=message, credited=credited):
                with contextlib.suppress(BridgeError):
                    self._plane.send_message(to, message, credited=credited)
            case Stop(id=number) | OpenRelease(id=number):
                try:
                    self._send(self._answer(command, now_ns))
                except BridgeError as error:
                    self._send(Refused(id=number, error=f"{type(error).__name__}: {error}"))
            case MakeReport():
                self._send(await self._report(command))
            case Measure(id=number):
                self._send(self._measured(number))
            case _:
                raise AssertionError(f"{command!r} twice")

    def _answer(self, command: Stop | OpenRelease, now_ns: int) -> Event:
        now_ms = time.time_ns() // 1_000_000
        match command:
            case Stop(id=number, entity=entity, to=to, linger_ns=linger_ns):
                box = self._plane.stop(entity, to, linger_ns=linger_ns, now_ns=now_ns, now_ms=now_ms)
                return Sealed(id=number, box=box)
            case OpenRelease(id=number, entity=entity, giver=giver, previous=previous, box=box):
                state = self._plane.open_release(
                    entity=entity, giver=giver, previous=previous, box=box, now_ms=now_ms
                )
                return Opened(id=number, state=state)

    def _add_peer(self, command: AddPeer) -> None:
        try:
            key = Jwk.from_json(command.key.decode())
            if key.thumbprint() != command.thumbprint:
                # The homeserver's record contradicts itself; no key but the named one is ever used (R0-20).
                raise KeyFormatError("the key has another thumbprint than the record says")
            # First: a release can be sealed for whoever has a key, also where nobody can be reached. Without
            # it the recall would never be obeyed, and this server lose its session for it.
            self._plane.add_peer(server=command.server, key=key, session=command.session)
            self._engine.add_peer(
                Peer(name=command.server, public_key=key, address=(command.host, command.port))
            )
        except (ConfigurationError, KeyFormatError, UnicodeDecodeError) as error:
            # One server's record must not end the sessions with all others.
            self._send(PeerDown(server=command.server, reason=f"unusable record: {error}"))
            return
        self._known.add(command.server)
        # Both sides learn of each other from the feed; one of them begins, so that handshakes do not cross.
        if self._key.thumbprint() < command.thumbprint and command.session is not None:
            self._connect(command.server)

    def _remove_peer(self, server: str) -> None:
        self._known.discard(server)
        connecting = self._connecting.pop(server, None)
        if connecting is not None:
            connecting.cancel()
        self._engine.remove_peer(server)
        self._plane.remove_peer(server)

    def _connect(self, server: str) -> None:
        running = self._connecting.get(server)
        if running is None or running.done():
            self._connecting[server] = asyncio.create_task(self._keep_connected(server))

    async def _keep_connected(self, server: str) -> None:
        while server not in self._sessions_open:
            with contextlib.suppress(BridgeError):
                await self._engine.connect(server, timeout=5.0)
                return
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _on_event(self, event: UdpEvent) -> None:
        now_ns = time.monotonic_ns()
        if event.peer not in self._known:
            # Its session ends; what had come by then counts no more.
            if isinstance(event, SessionClosed):
                self._sessions_open.discard(event.peer)
                self._send(PeerDown(server=event.peer, reason=event.reason.name.lower()))
            return
        match event:
            case StateReceived(peer=peer, payload=payload, echo_age=echo_age):
                row = np.frombuffer(payload, dtype=np.uint8)[None, :]
                self._plane.receive_states(peer, row, echo_age=echo_age, now_ns=now_ns)
            case StatesReceived(peer=peer, payloads=payloads, echo_age=echo_age):
                self._plane.receive_states(peer, payloads, echo_age=echo_age, now_ns=now_ns)
            case MessageReceived(peer=peer, payload=payload):
                self._plane.receive_message(peer, payload, now_ns=now_ns)
            case SessionEstablished(peer=peer, session=session):
                self._sessions_open.add(peer)
                self._plane.link_up(peer, session)
                self._send(PeerUp(server=peer, signed=session.is_signed))
            case SessionClosed(peer=peer, reason=reason, undelivered=undelivered):
                self._sessions_open.discard(peer)
                self._plane.link_down(peer, undelivered)
                self._send(PeerDown(server=peer, reason=reason.name.lower()))
                if reason.name != "DISPLACED":
                    self._connect(peer)
            case PeerUnreachable(peer=peer):
                self._send(PeerDown(server=peer, reason="unreachable"))

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        period = 1.0 / self._start.rate_hz
        due = loop.time()
        while True:
            now_ns = time.monotonic_ns()
            self._record_alive(now_ns)
            self._plane.tick(now_ns=now_ns)
            self._engine.flush()
            self._turns.made()
            # A late turn is not made up for: latest-wins state needs the newest, not every one.
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())

    def _record_alive(self, now_ns: int) -> None:
        """Written before anything is sealed: a record of less than was done would prove nothing."""
        if self._record is None:
            return
        # A tick of one that may not act bounds nothing.
        if not self._deadline.is_over():
            self._record.alive(self._start.server, self._plane.session, now_ns)
        if now_ns - self._recorded_ns >= _RECORD_NS:
            for acceptance in self._plane.accepted_since(self._recorded_ns):
                self._record.write(acceptance)
            self._recorded_ns = now_ns

    async def _report(self, command: MakeReport) -> Report:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + command.drain_seconds
        # An event for "all acknowledged" would be set and cleared on every message of a busy link.
        while self._undelivered() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        return Report(
            id=command.id,
            history=[encode_entry(entry) for entry in self._plane.entries()],
            verdicts=dict(self._plane.verdicts),
            sent=self._plane.sent(),
            received=self._plane.received(),
            malformed=self._plane.malformed,
            dropped=self._plane.dropped,
            kept=self._plane.kept(),
        )

    def _measured(self, number: int) -> Measured:
        # Here, since few servers are measured, and the extra need not be there.
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(UdpCollector(self._engine))
        return Measured(
            id=number,
            udp=generate_latest(registry).decode(),
            verdicts=dict(self._plane.verdicts),
            malformed=self._plane.malformed,
            kept=self._plane.kept(),
        )

    def _undelivered(self) -> bool:
        open_sessions = (self._engine.session(name) for name in self._sessions_open)
        return self._plane.waiting() > 0 or any(
            session is not None and session.statistics().reliable_buffered > 0 for session in open_sessions
        )


def _record_file(start: Start) -> RecordFile | None:
    if start.record_dir is None:
        return None
    return RecordFile(record_path(start.record_dir, start.server, start.run, "acts"))


def _conditioner(start: Start) -> Conditioner | None:
    if not start.network:
        return None
    return Conditioner(NetworkConditions.parse(start.network), source=start.server)


async def serve(control: socket.socket, world_fd: int) -> None:
    """Run the data plane on its two inherited descriptors."""
    reader, writer = await asyncio.open_connection(sock=control)
    commands = CommandReader(reader)
    # It is told nothing more before it has answered.
    match await commands.waiting():
        case [Start() as start]:
            pass
        case _:
            return

    def send(event: Event) -> None:
        if not writer.is_closing():
            writer.write(encode_frame(event))

    try:
        memory = mmap.mmap(world_fd, shared_size(start.capacity))
        key = load_or_create_key(start.key_file)
        world, deadline = World(memory, start.capacity), Deadline(memory, start.capacity)
        turns = Turns(memory, start.capacity)
        await DataPlaneProcess(start, world, deadline, turns, key, send).run(commands)
    except BridgeError as error:
        send(Fatal(error=str(error)))
    except OSError as error:
        send(Fatal(error=f"cannot use UDP {start.host}:{start.port}: {error.strerror or error}"))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def main() -> None:
    """Entry of the child process."""
    # The terminal's Ctrl-C reaches the whole group; the control plane decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    control = socket.socket(fileno=int(sys.argv[1]))
    world_fd = int(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(control, world_fd))
    os._exit(0)


if __name__ == "__main__":
    main()

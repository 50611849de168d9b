"""The baseline: two clients and one central server, on the same engine, over the same road (R0-35).

The server is authority for everything and says who owns it; nothing is replicated, committed or signed. With
a transfer a pass is four messages, two of them before the receiver's client has the ball; without one two.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.passes.road import Road
from benchmarks.passes.series import SERVERS, Crossing
from bridge.authority import Message
from bridge.jose import Jwk
from bridge.udp import (
    Conditioner,
    MessageReceived,
    Peer,
    UdpConfig,
    UdpEngine,
    UdpEvent,
)

CENTRAL: Final = "central"
_CONNECT_SECONDS: Final = 30.0
_SPAWN = multiprocessing.get_context("spawn")


class Said(msgspec.Struct, frozen=True, array_like=True):
    """A message between a client and the server.

    Attributes:
        kind: ``hand`` or ``input`` of a client, ``told``, ``handed`` or ``view`` of the server, ``thanks``.
        ball: name.
        to: client of the receiver.
        velocity: metres a second.
    """

    kind: str
    trace: bytes
    hop: int
    ball: str = ""
    to: str = ""
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


class Central:
    """What the server knows and answers. Sans-IO."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.velocities: dict[str, tuple[float, float, float]] = {}

    def receive(self, client: str, said: Said) -> list[tuple[str, Said]]:
        """Answers to a message, with whom they are for; none where the client does not own the ball."""
        if said.kind not in ("hand", "input") or self.owners.setdefault(said.ball, client) != client:
            return []
        self.velocities[said.ball] = said.velocity
        if said.kind == "input":
            return [(said.to, self._answer("view", said))]
        self.owners[said.ball] = said.to
        return [(client, self._answer("told", said)), (said.to, self._answer("handed", said))]

    def _answer(self, kind: str, said: Said) -> Said:
        return Said(kind, said.trace, said.hop + 1, said.ball, said.to, self.velocities[said.ball])


def _engine(road: Road, key: Jwk, name: str, on_event: Any) -> UdpEngine:
    network = road.datagrams()
    conditioner = None if network is None else Conditioner(network, source=name)
    return UdpEngine(UdpConfig(), identity=key, on_event=on_event, conditioner=conditioner)


def _message(said: Said, sender: str, receiver: str) -> Message:
    return Message(
        trace=said.trace,
        hop=said.hop,
        kind=said.kind,
        sender=sender,
        receiver=receiver,
        at_ns=time.monotonic_ns(),
    )


def _serve(pipe: Connection, key: dict[str, Any], clients: dict[str, dict[str, Any]], road: Road) -> None:
    messages: list[Message] = []

    async def main() -> None:
        central = Central()
        ended = asyncio.Event()

        def on_event(event: UdpEvent) -> None:
            if isinstance(event, MessageReceived):
                said = _decode(event.payload)
                messages.append(_message(said, event.peer, CENTRAL))
                for to, answer in central.receive(event.peer, said):
                    session = engine.session(to)
                    assert session is not None
                    session.send_reliable(_encode(answer))
                engine.flush()

        engine = _engine(road, Jwk.from_dict(key), CENTRAL, on_event)
        async with engine:
            for name, client in clients.items():
                engine.add_peer(Peer(name=name, public_key=Jwk.from_dict(client), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
            await ended.wait()

    uvloop.run(main())
    pipe.recv()
    pipe.send(messages)


class Clients:
    """Both clients, in this process, and their passes by way of the server."""

    def __init__(self) -> None:
        self.engines: dict[str, UdpEngine] = {}
        self.messages: list[Message] = []
        self._waiting: dict[tuple[str, bytes], asyncio.Future[int]] = {}
        self._balls = 0

    def receive(self, client: str, said: Said) -> None:
        """Take a message of the server."""
        self.messages.append(_message(said, CENTRAL, client))
        future = self._waiting.pop((said.kind, said.trace), None)
        if future is not None and not future.done():
            future.set_result(time.monotonic_ns())
        if said.kind == "handed":
            self._send(client, Said("thanks", said.trace, said.hop + 1))

    async def hand(self, crossing: Crossing) -> tuple[float, float | None]:
        """A pass that makes the receiver the owner; both sides are told."""
        return await self._pass(crossing, "hand", "handed", "told")

    async def input(self, crossing: Crossing) -> tuple[float, float | None]:
        """A pass that is input for the server, whose next state the receiver sees."""
        took, _ = await self._pass(crossing, "input", "view", None)
        return took, None

    async def _pass(
        self, crossing: Crossing, kind: str, ends: str, told: str | None
    ) -> tuple[float, float | None]:
        loop = asyncio.get_running_loop()
        trace = secrets.token_bytes(16)
        done: asyncio.Future[int] = loop.create_future()
        self._waiting[ends, trace] = done
        answered: asyncio.Future[int] | None = None
        if told is not None:
            answered = self._waiting[told, trace] = loop.create_future()
        self._balls += 1
        begin = time.monotonic_ns()
        ball, velocity = f"ball{self._balls}", crossing.play.velocity
        self._send(crossing.giver, Said(kind, trace, 0, ball, crossing.taker, velocity))
        took = (await done - begin) / 1e6
        if answered is not None:
            await answered
        return took, None

    def _send(self, client: str, said: Said) -> None:
        session = self.engines[client].session(CENTRAL)
        assert session is not None
        session.send_reliable(_encode(said))
        self.engines[client].flush()


@contextmanager
def central_server(road: Road) -> Iterator[tuple[Connection, Jwk, dict[str, Jwk]]]:
    """The server in a process of its own, started outside of an event loop.

    The pipe tells its address; whatever is sent ends it, and it tells the messages that it received.
    """
    key, clients = Jwk.generate(), {name: Jwk.generate() for name in SERVERS}
    ours, theirs = _SPAWN.Pipe()
    public = {name: client.public().to_dict() for name, client in clients.items()}
    child = _SPAWN.Process(target=_serve, args=(theirs, key.to_dict(), public, road), daemon=True)
    child.start()
    theirs.close()
    try:
        yield ours, key, clients
    finally:
        child.join(5)
        if child.is_alive():
            child.terminate()
            child.join()
        ours.close()


@asynccontextmanager
async def clients_of(
    address: tuple[str, int], key: Jwk, identities: dict[str, Jwk], road: Road
) -> AsyncIterator[Clients]:
    """Both clients, connected."""
    clients = Clients()

    def taker(name: str) -> Any:
        def on_event(event: UdpEvent) -> None:
            if isinstance(event, MessageReceived):
                clients.receive(name, _decode(event.payload))

        return on_event

    one, two = (_engine(road, identities[name], name, taker(name)) for name in SERVERS)
    async with one, two:
        for name, engine in zip(SERVERS, (one, two), strict=True):
            engine.add_peer(Peer(name=CENTRAL, public_key=key.public(), address=address))
            await engine.connect(CENTRAL, timeout=_CONNECT_SECONDS)
            clients.engines[name] = engine
        yield clients

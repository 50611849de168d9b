"""Connections to other nodes: dialling, accepting, and one connection where both sides dial at once.

Source: Erlang "Distribution Protocol", sections "EPMD Protocol" and "Distribution Handshake" (the statuses
``alive``, ``nok`` and ``ok_simultaneous`` decide which of two connections stands).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from bridge.dist import (
    Connected,
    DistConnection,
    DistEvent,
    Failure,
    HandshakeFailed,
    Identity,
    NameReceived,
    Received,
    Role,
    Status,
)
from bridge.errors import BridgeError, ClosedError, ConfigurationError, DeadlineError, HandshakeError
from bridge.node.config import NodeConfig
from bridge.node.epmd import look_up
from bridge.node.transport import DistTransport

_log = logging.getLogger("bridge.node")


class Connections:
    """At most one connection to each node, made when it is first asked for.

    Args:
        identity: who this node is.
        config: see ``NodeConfig``.
        received: takes each message with the transport it came by; must not raise.
        down: called when a connection that stood has ended; must not raise.
    """

    def __init__(
        self,
        identity: Identity,
        config: NodeConfig,
        *,
        received: Callable[[DistTransport, Received], None],
        down: Callable[[str, DistTransport], None],
    ) -> None:
        self._identity = identity
        self._config = config
        self._received = received
        self._down = down
        self.peers: dict[str, DistTransport] = {}
        self._transports: set[DistTransport] = set()
        self._dialling: dict[str, asyncio.Future[DistTransport]] = {}
        self._outgoing: dict[str, DistTransport] = {}
        self._closing = False

    async def get(self, node: str, seconds: float) -> DistTransport:
        """The connection to a node, dialled where there is none; all who ask at once share one dialling.

        Raises:
            HandshakeError: it cannot be made; the text says what to mend.
            DeadlineError: it took longer than ``seconds``, or than ``connect_timeout``.
            ClosedError: this node was closed.
            ConfigurationError: ``node`` is this node, or no node name.
        """
        if self._closing:
            raise ClosedError("the node does not run")
        peer = self.peers.get(node)
        if peer is not None:
            return peer
        if node == self._identity.name:
            raise ConfigurationError("a node does not connect to itself")
        future = self._dialling.get(node)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            # Whoever waits reads the outcome; without a waiter it is of no interest.
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            self._dialling[node] = future
            task = asyncio.create_task(self._dial(node, future))
            # The future, which the table holds, holds the task; whatever resolves it ends the dialling.
            future.add_done_callback(lambda _: task.cancel())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineError(f"no connection to {node} within {seconds:g} s") from None

    def accept(self) -> asyncio.BaseProtocol:
        """The protocol for a socket that somebody opened to us."""
        if self._closing or len(self._transports) >= self._config.max_incoming_connections:
            return Refusal()
        connection = DistConnection(
            Role.ACCEPTOR,
            self._identity,
            challenge=secrets.randbits(32),
            now=asyncio.get_running_loop().time(),
            config=self._config.dist,
        )
        return self._transport(connection)

    async def disconnect(self, node: str, seconds: float) -> None:
        """Close the connection to a node; what the peer has not taken after ``seconds`` is lost."""
        transport = self.peers.get(node)
        if transport is not None:
            await _close([transport], seconds)

    async def close(self) -> None:
        """Close every connection and wait for it; dialling ends with ``ClosedError``."""
        self._closing = True
        for future in self._dialling.values():
            if not future.done():
                future.set_exception(ClosedError("the node was closed"))
        await _close(list(self._transports), 1.0)

    def _transport(self, connection: DistConnection) -> DistTransport:
        transport = DistTransport(connection, self._dispatch, self._lost)
        self._transports.add(transport)
        return transport

    async def _dial(self, node: str, future: asyncio.Future[DistTransport]) -> None:
        seconds = self._config.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._connect(node)
                await asyncio.shield(future)
        except TimeoutError:
            self._resolve(node, DeadlineError(f"no connection to {node} within {seconds:g} s"))
        except BridgeError as error:
            self._resolve(node, error)

    async def _connect(self, node: str) -> None:
        """Bring a socket to the node; what the handshake comes to arrives as an event."""
        host = self._config.address_of(node)
        found = await look_up(node, host, self._config.epmd_address()[1])
        loop = asyncio.get_running_loop()
        connection = DistConnection(
            Role.INITIATOR,
            self._identity,
            challenge=secrets.randbits(32),
            now=loop.time(),
            config=self._config.dist,
            peer=node,
        )
        transport = self._transport(connection)
        self._outgoing[node] = transport
        try:
            await loop.create_connection(lambda: transport, host, found.port)
        except BaseException as error:
            # No socket came about, so nothing will report its end.
            self._transports.discard(transport)
            if not isinstance(error, OSError):
                raise
            raise HandshakeError(
                f"{node} is registered but does not listen on port {found.port}; "
                f"it may just have stopped ({error.strerror or error})"
            ) from None

    def _resolve(self, node: str, outcome: DistTransport | BridgeError) -> None:
        outgoing = self._outgoing.pop(node, None)
        future = self._dialling.pop(node, None)
        if outgoing is not None and outgoing is not outcome:
            outgoing.close()
        if future is None or future.done():
            return
        if isinstance(outcome, BridgeError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _dispatch(self, transport: DistTransport, event: DistEvent) -> None:
        match event:
            case Received():
                self._received(transport, event)
            case NameReceived():
                transport.answer_name(self._judge(event.peer))
            case Connected():
                self._connected(transport, event.peer)
            case HandshakeFailed():
                self._handshake_failed(transport, event)
            case _:
                _log.info("%s: %s", transport.connection.peer, event.detail)

    def _judge(self, peer: str) -> Status:
        if peer == self._identity.name:
            return Status.NOT_ALLOWED
        if peer in self.peers:
            return Status.ALIVE
        if peer in self._outgoing:
            # Both dial at once: the connection of the greater name stands.
            return Status.NOK if self._identity.name > peer else Status.OK_SIMULTANEOUS
        return Status.OK

    def _connected(self, transport: DistTransport, peer: str) -> None:
        earlier = self.peers.get(peer)
        if earlier is not None and earlier is not transport:
            # Only now, when the newcomer has proved the cookie, is the earlier connection given up.
            del self.peers[peer]
            self._down(peer, earlier)
            earlier.abort()
        self.peers[peer] = transport
        self._resolve(peer, transport)

    def _handshake_failed(self, transport: DistTransport, event: HandshakeFailed) -> None:
        node = transport.connection.peer
        if node is None or self._outgoing.get(node) is not transport:
            _log.warning("a connection to us came to nothing: %s", event.detail)
            return
        if event.failure is Failure.SIMULTANEOUS:
            # The peer's own connection to us is under way and will resolve the wait, or the deadline will.
            del self._outgoing[node]
            return
        self._resolve(node, HandshakeError(f"cannot connect to {node}: {event.detail}"))

    def _lost(self, transport: DistTransport) -> None:
        self._transports.discard(transport)
        node = transport.connection.peer
        if node is not None and self.peers.get(node) is transport:
            del self.peers[node]
            self._down(node, transport)


class Refusal(asyncio.Protocol):
    """Closes a connection that this node does not take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket stands, for a moment."""
        transport.close()


async def _close(transports: list[DistTransport], seconds: float) -> None:
    """Close and wait; a peer that does not read cannot hold us up."""
    for transport in transports:
        transport.close()
    waiting = {transport.closed for transport in transports if not transport.closed.done()}
    if waiting:
        _, waiting = await asyncio.wait(waiting, timeout=seconds)
    if waiting:
        for transport in transports:
            transport.abort()
        await asyncio.wait(waiting, timeout=1.0)

"""Connections to other nodes: dialling, accepting, and one connection where both sides dial at once.

Source: Erlang "Distribution Protocol", sections "EPMD Protocol" and "Distribution Handshake" (the statuses
``alive``, ``nok`` and ``ok_simultaneous`` decide which of two connections stands).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.dist import (
    Answered,
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
from bridge.etf import Pid
from bridge.node.config import NodeConfig
from bridge.node.epmd import look_up, unresolved
from bridge.node.resolving import dial
from bridge.node.tls import TlsLayer, explain
from bridge.node.transport import DistTransport

_log = logging.getLogger("bridge.node")

_TLS_SHARE: Final = 0.9
"""of the time for a connection: a peer without TLS waits for more bytes, and is named before the deadline"""


@dataclass(slots=True)
class _Dialling:
    """A connection that is being made; ``stage`` is what it waits for."""

    outcome: asyncio.Future[DistTransport]
    stage: str = ""


class Connections:
    """At most one connection to each node, made when it is first asked for.

    Args:
        identity: who this node is.
        config: see ``NodeConfig``.
        received: takes each message with the transport it came by; must not raise.
        answered: takes answers to ``answers_to``, see ``bridge.dist.Answered``; must not raise.
        answers_to: the process that calls.
        down: called when a connection that stood has ended; must not raise.
    """

    def __init__(
        self,
        identity: Identity,
        config: NodeConfig,
        *,
        received: Callable[[DistTransport, Received], None],
        answered: Callable[[list[tuple[bytes, Any]]], None],
        answers_to: Pid,
        down: Callable[[str, DistTransport], None],
    ) -> None:
        self._identity = identity
        self._config = config
        self._received = received
        self._answered = answered
        self._answers_to = answers_to
        self._down = down
        self._credentials = None if config.tls is None else config.tls.credentials
        # The distribution over TLS has lengths of four bytes from its first frame on.
        self._dist = config.dist if config.tls is None else replace(config.dist, handshake_length_bytes=4)
        self.peers: dict[str, DistTransport] = {}
        self._transports: set[DistTransport] = set()
        self._dialling: dict[str, _Dialling] = {}
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
        dialling = self._dialling.get(node)
        if dialling is None:
            future = asyncio.get_running_loop().create_future()
            # Whoever waits reads the outcome; without a waiter it is of no interest.
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            dialling = self._dialling[node] = _Dialling(future)
            task = asyncio.create_task(self._dial(node, dialling))
            # The future, which the table holds, holds the task; whatever resolves it ends the dialling.
            future.add_done_callback(lambda _: task.cancel())
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(dialling.outcome)
        except TimeoutError:
            raise _too_late(node, seconds, dialling) from None

    def accept(self) -> asyncio.BaseProtocol:
        """The protocol for a socket that somebody opened to us."""
        if self._closing or len(self._transports) >= self._config.max_incoming_connections:
            return Refusal()
        connection = DistConnection(
            Role.ACCEPTOR,
            self._identity,
            challenge=secrets.randbits(32),
            now=asyncio.get_running_loop().time(),
            config=self._dist,
            answers_to=self._answers_to,
        )
        return self._protocol(self._transport(connection), None)

    async def disconnect(self, node: str, seconds: float) -> None:
        """Close the connection to a node; what the peer has not taken after ``seconds`` is lost."""
        transport = self.peers.get(node)
        if transport is not None:
            await _close([transport], seconds)

    async def close(self) -> None:
        """Close every connection and wait for it; dialling ends with ``ClosedError``."""
        self._closing = True
        for dialling in self._dialling.values():
            if not dialling.outcome.done():
                dialling.outcome.set_exception(ClosedError("the node was closed"))
        await _close(list(self._transports), 1.0)

    def _transport(self, connection: DistConnection) -> DistTransport:
        transport = DistTransport(connection, self._dispatch, self._lost, self._answered)
        self._transports.add(transport)
        return transport

    def _protocol(self, transport: DistTransport, host: str | None) -> asyncio.BaseProtocol:
        """What speaks with the socket of a connection: the transport, or TLS before it."""
        if self._credentials is None:
            return transport
        if host is None:
            return TlsLayer(transport, self._credentials.accepting(), None, self._dist.handshake_timeout)
        seconds = _TLS_SHARE * self._config.connect_timeout
        return TlsLayer(transport, self._credentials.dialling(), host, seconds)

    async def _dial(self, node: str, dialling: _Dialling) -> None:
        seconds = self._config.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._connect(node, dialling)
                await asyncio.shield(dialling.outcome)
        except TimeoutError:
            self._resolve(node, _too_late(node, seconds, dialling))
        except BridgeError as error:
            self._resolve(node, error)

    async def _connect(self, node: str, dialling: _Dialling) -> None:
        """Bring a socket to the node; what the handshake comes to arrives as an event."""
        host = self._config.address_of(node)
        port = self._config.port_of(node)
        fixed = port is not None
        if port is None:
            epmd_port = self._config.epmd_address()[1]
            dialling.stage = f"the port mapper at {host}:{epmd_port} does not answer"
            port = (await look_up(node, host, epmd_port)).port
        dialling.stage = f"nothing answers at {host}:{port}"
        loop = asyncio.get_running_loop()
        connection = DistConnection(
            Role.INITIATOR,
            self._identity,
            challenge=secrets.randbits(32),
            now=loop.time(),
            config=self._dist,
            peer=node,
            answers_to=self._answers_to,
        )
        transport = self._transport(connection)
        self._outgoing[node] = transport
        try:
            # The certificate is for the host that the node's name says, wherever it was dialled.
            protocol = self._protocol(transport, node.partition("@")[2])
            await dial(
                host, port, lambda address, port: loop.create_connection(lambda: protocol, address, port)
            )
        except BaseException as error:
            # No socket came about, so nothing will report its end.
            self._transports.discard(transport)
            if not isinstance(error, OSError):
                raise
            if isinstance(error, socket.gaierror):
                raise unresolved(host, error) from None
            raise HandshakeError(_no_socket(node, port, fixed, error)) from None
        dialling.stage = "it does not finish the handshake; is it an Erlang node?"

    def _resolve(self, node: str, outcome: DistTransport | BridgeError) -> None:
        outgoing = self._outgoing.pop(node, None)
        dialling = self._dialling.pop(node, None)
        if outgoing is not None and outgoing is not outcome:
            outgoing.close()
        if dialling is None or dialling.outcome.done():
            return
        if isinstance(outcome, BridgeError):
            dialling.outcome.set_exception(outcome)
        else:
            dialling.outcome.set_result(outcome)

    def _dispatch(self, transport: DistTransport, event: DistEvent) -> None:
        match event:
            case Answered():
                self._answered(event.answers)
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
        detail = event.detail
        if self._credentials is not None and transport.cause is not None:
            detail = explain(transport.cause, peer=node or "whoever it was")
        elif event.failure is Failure.CLOSED and self._credentials is None:
            detail += "; does it demand TLS (-proto_dist inet_tls, NodeConfig.tls)?"
        elif event.failure is Failure.CLOSED:
            # TLS 1.3 ends for a client before the server has looked at its certificate.
            detail += "; it may have refused this node's certificate: its log says"
        if node is None or self._outgoing.get(node) is not transport:
            _log.warning("a connection to us came to nothing: %s", detail)
            return
        if event.failure is Failure.SIMULTANEOUS:
            # The peer's own connection to us is under way and will resolve the wait, or the deadline will.
            del self._outgoing[node]
            return
        self._resolve(node, HandshakeError(f"cannot connect to {node}: {detail}"))

    def _lost(self, transport: DistTransport) -> None:
        self._transports.discard(transport)
        node = transport.connection.peer
        if node is not None and self.peers.get(node) is transport:
            del self.peers[node]
            self._down(node, transport)


def _too_late(node: str, seconds: float, dialling: _Dialling) -> DeadlineError:
    return DeadlineError(f"no connection to {node} within {seconds:g} s: {dialling.stage}")


def _no_socket(node: str, port: int, fixed: bool, error: OSError) -> str:
    reason = error.strerror or error
    if fixed:
        return f"{node} does not listen on port {port} ({reason}); is it running, and is that its fixed port?"
    return f"{node} is registered but does not listen on port {port}; it may just have stopped ({reason})"


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
    try:
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=seconds)
    finally:  # by the time, or cancelled
        if waiting:
            for transport in transports:
                transport.abort()
    if waiting:
        await asyncio.wait(waiting, timeout=1.0)

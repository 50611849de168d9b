"""The hidden node."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from bridge.dist import (
    Connected,
    DistConnection,
    DistEvent,
    Failure,
    HandshakeFailed,
    Identity,
    Link,
    MonitorP,
    NameReceived,
    Received,
    RegSend,
    Role,
    Send,
    Status,
)
from bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    DeadlineError,
    HandshakeError,
    InvalidStateError,
    LimitExceededError,
    NodeDownError,
    RemoteError,
)
from bridge.etf import Atom, Pid, Reference, encode_term
from bridge.node.config import NodeConfig, read_cookie
from bridge.node.epmd import look_up, register
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.processes import Processes
from bridge.node.transport import DistTransport

_log = logging.getLogger("bridge.node")

_REX: Final = Atom("rex")
_USER: Final = Atom("user")
_CALL: Final = Atom("call")
_CAST: Final = Atom("cast")
_GEN_CALL: Final = Atom("$gen_call")
_GEN_CAST: Final = Atom("$gen_cast")
_BADRPC: Final = Atom("badrpc")
_NODEDOWN: Final = Atom("nodedown")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """Counts since the node started.

    Attributes:
        connections: that stand now.
        pending_calls: that wait now.
        calls: made.
        late_replies: answers that came after their deadline.
        undelivered: messages to a pid or name that is not there.
    """

    connections: int
    pending_calls: int
    calls: int
    late_replies: int
    undelivered: int


class HiddenNode:
    """A node of an Erlang cluster that no other node lists as visible.

    Use as ``async with``. Every wait has a deadline, a lost connection fails its waiters with
    ``NodeDownError``, and leaving the block waits until every socket is closed.

    Args:
        name: full name, ``alive@host``; keep it stable, each new name is an atom in every peer for ever.
        cookie: the cluster's; ``None`` reads ``~/.erlang.cookie``.
        config: see ``NodeConfig``.
    """

    def __init__(self, name: str, *, cookie: str | None = None, config: NodeConfig | None = None) -> None:
        self.name = name
        self.config = config or NodeConfig()
        self._cookie = read_cookie() if cookie is None else cookie
        Identity(name=name, cookie=self._cookie, creation=1)  # refuses a bad name or cookie here, not later
        self._identity: Identity | None = None
        self._server: asyncio.Server | None = None
        self._registration: asyncio.StreamWriter | None = None
        self._peers: dict[str, DistTransport] = {}
        self._transports: set[DistTransport] = set()
        self._dialling: dict[str, asyncio.Future[DistTransport]] = {}
        self._outgoing: dict[str, DistTransport] = {}
        self._pending: dict[tuple[int, ...], tuple[asyncio.Future[Any], str]] = {}
        self._down_callbacks: list[Callable[[str], None]] = []
        self._calls = 0
        self._late = 0
        self._closing = False

    async def __aenter__(self) -> Self:
        """Listen and register.

        Raises:
            HandshakeError: no port mapper answers, or the name is taken.
        """
        if self._identity is not None:
            raise InvalidStateError("a node starts once")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept, self.config.listen_host, self.config.listen_port
        )
        creation = 0
        try:
            if self.config.register:
                async with asyncio.timeout(self.config.connect_timeout):
                    creation, self._registration = await register(
                        self.name, self.port, *self.config.epmd_address()
                    )
        except TimeoutError:
            self._server.close()
            raise HandshakeError("the port mapper took the connection and does not answer") from None
        except BaseException:
            self._server.close()
            raise
        # Values up to 3 are what old port mappers hand out again and again; OTP too draws its own then.
        if creation <= 3:
            creation = secrets.randbelow(0xFFFF_FFF0) + 4
        self._identity = Identity(name=self.name, cookie=self._cookie, creation=creation)
        self._processes = Processes(Atom(self.name), creation, self.config.mailbox_capacity, self._peers.get)
        self._call_control = encode_term((6, self._processes.caller, Atom(""), _REX))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """TCP port that this node listens on."""
        if self._server is None:
            raise InvalidStateError("the node does not run")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connected(self) -> tuple[str, ...]:
        """Names of the nodes connected now."""
        return tuple(self._peers)

    def statistics(self) -> NodeStatistics:
        """See ``NodeStatistics``."""
        return NodeStatistics(
            connections=len(self._peers),
            pending_calls=len(self._pending),
            calls=self._calls,
            late_replies=self._late,
            undelivered=self._processes.undelivered if self._identity else 0,
        )

    async def close(self) -> None:
        """Tell every watcher, close every connection and wait for it. Harmless twice."""
        if self._closing:
            return
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._identity is not None:
            self._processes.close()
        if self._registration is not None:
            self._registration.close()
        for future in self._dialling.values():
            if not future.done():
                future.set_exception(ClosedError("the node was closed"))
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(ClosedError("the node was closed"))
        transports = list(self._transports)
        for transport in transports:
            transport.close()
        if transports:
            _, unfinished = await asyncio.wait([t.closed for t in transports], timeout=1.0)
            if unfinished:
                # A peer that does not read cannot hold us up.
                for transport in transports:
                    transport.abort()
                await asyncio.wait([t.closed for t in transports], timeout=1.0)

    async def connect(self, node: str, *, timeout: float | None = None) -> None:
        """Connect to a node, or do nothing where the connection stands.

        Args:
            node: full name.
            timeout: seconds; default ``connect_timeout``.

        Raises:
            HandshakeError: it cannot be made; the text says what to mend.
            DeadlineError: it took too long.
            ClosedError: this node was closed.
        """
        await self._peer(node, self.config.connect_timeout if timeout is None else timeout)

    async def disconnect(self, node: str) -> None:
        """Close the connection to a node, if there is one, and wait until it is closed."""
        transport = self._peers.get(node)
        if transport is not None:
            transport.close()
            await asyncio.shield(transport.closed)

    async def call(
        self, node: str, module: str, function: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> Any:
        """Call ``module:function`` on a node through its ``rex`` server.

        Args:
            node: full name; connected to first where needed.
            module: name of the module.
            function: name of the function.
            args: terms.
            timeout: seconds for all of it; default ``call_timeout``.

        Returns:
            The decoded result.

        Raises:
            RemoteError: the function raised; ``reason`` is what ``badrpc`` carried.
            NodeDownError: the connection was lost before the answer; it may have run.
            DeadlineError: no answer in time; it may have run.
            HandshakeError: no connection could be made; it did not run.
        """
        seconds = self.config.call_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        peer = self._peers.get(node)
        if peer is None:
            peer = await self._peer(node, min(seconds, self.config.connect_timeout))
        if len(self._pending) >= self.config.max_pending_calls:
            raise LimitExceededError("max_pending_calls", self.config.max_pending_calls, "calls")
        reference = self._processes.reference()
        request = (_CALL, Atom(module), Atom(function), list(args), _USER)
        payload = encode_term((_GEN_CALL, (self._processes.caller, reference), request))
        future: asyncio.Future[Any] = loop.create_future()
        self._pending[reference.ids] = (future, node)
        timer = loop.call_at(deadline, _expire, future, node, module, function, seconds)
        self._calls += 1
        try:
            peer.send_encoded(self._call_control, payload)
            result = await future
        except InvalidStateError:
            raise NodeDownError(node, "the connection ended before the call was sent") from None
        finally:
            timer.cancel()
            del self._pending[reference.ids]
        if type(result) is tuple and len(result) == 2 and result[0] is _BADRPC:
            reason = result[1]
            if reason is _NODEDOWN:
                raise NodeDownError(node, "the node itself reports nodedown")
            raise RemoteError(
                f"{node} {module}:{function}/{len(args)} failed: {_short(reason)}", reason=reason
            )
        return result

    async def cast(self, node: str, module: str, function: str, args: Sequence[Any]) -> None:
        """Run ``module:function`` on a node and do not wait for it; nothing tells whether it ran.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
            DeadlineError: the peer takes no more for ``call_timeout``.
        """
        request = (_CAST, Atom(module), Atom(function), list(args), _USER)
        await self._send(node, RegSend(source=self._processes.caller, to=_REX), (_GEN_CAST, request))

    async def send(self, to: Pid | tuple[str | Atom, str | Atom] | Mailbox, message: Any) -> None:
        """Send a message, as ``to ! message`` does: nothing tells whether it arrived.

        Args:
            to: a pid, or (registered name, node name); one of this node is delivered here.
            message: any term.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
            DeadlineError: the peer takes no more for ``call_timeout``.
        """
        match to:
            case Mailbox():
                to.put(message)
            case Pid() if to.node.text == self.name:
                self._processes.deliver(to, message)
            case Pid():
                await self._send(to.node.text, Send(to=to), message)
            case (name, node) if str(node) == self.name:
                self._processes.deliver(Atom(str(name)), message)
            case (name, node):
                control = RegSend(source=self._processes.caller, to=Atom(str(name)))
                await self._send(str(node), control, message)
            case _:
                raise ConfigurationError(f"send to a pid or to (name, node), not to {_short(to)}")

    def mailbox(self, name: str | None = None) -> Mailbox:
        """A new mailbox with a pid of its own, registered under ``name`` if given.

        Raises:
            ConfigurationError: the name is taken.
        """
        if self._closing:
            raise ClosedError("the node was closed")
        return self._processes.mailbox(name)

    async def monitor(
        self, target: Pid | tuple[str | Atom, str | Atom], *, mailbox: Mailbox | None = None
    ) -> Watch:
        """Watch a process of another node; its end, or its node's, ends the watch.

        Args:
            target: a pid, or (registered name, node name).
            mailbox: gets ``('DOWN', Reference, process, Target, Reason)`` too.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
        """
        node, process = (
            (target.node.text, target) if isinstance(target, Pid) else (str(target[1]), Atom(str(target[0])))
        )
        source = self._processes.caller if mailbox is None else mailbox.pid
        reference = self._processes.reference()
        watch = Watch(process, node, source, reference, mailbox)
        await self._peer(node, self.config.connect_timeout)
        self._processes.watch(watch)
        await self._send(node, MonitorP(source=source, to=process, reference=reference))
        return watch

    async def link(self, target: Pid, *, mailbox: Mailbox | None = None) -> Watch:
        """Link to a process of another node; the mailbox's end ends it too, unless it traps exits.

        Args:
            target: its pid.
            mailbox: this side of the link, which gets ``('EXIT', Pid, Reason)``; default: the node itself.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
        """
        source = self._processes.caller if mailbox is None else mailbox.pid
        node = target.node.text
        await self._peer(node, self.config.connect_timeout)
        known = self._processes.linked(source, target)
        if known is not None:
            return known
        watch = Watch(target, node, source, None, mailbox)
        self._processes.watch(watch)
        await self._send(node, Link(source=source, to=target))
        return watch

    def on_node_down(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(name)`` when a connection ends; gives a function that undoes it."""
        self._down_callbacks.append(callback)
        return lambda: self._down_callbacks.remove(callback) if callback in self._down_callbacks else None

    async def _send(self, node: str, control: Any, payload: Any = None) -> None:
        peer = self._peers.get(node) or await self._peer(node, self.config.connect_timeout)
        try:
            peer.send(control, payload)
            async with asyncio.timeout(self.config.call_timeout):
                await peer.drain()
        except InvalidStateError:
            raise NodeDownError(node, "the connection ended") from None
        except TimeoutError:
            raise DeadlineError(f"{node} takes no more data") from None

    async def _peer(self, node: str, seconds: float) -> DistTransport:
        if self._closing or self._identity is None:
            raise ClosedError("the node does not run")
        if node == self.name:
            raise ConfigurationError("a node does not connect to itself")
        peer = self._peers.get(node)
        if peer is not None:
            return peer
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

    async def _dial(self, node: str, future: asyncio.Future[DistTransport]) -> None:
        assert self._identity is not None
        loop = asyncio.get_running_loop()
        _, _, host = node.partition("@")
        try:
            if not host:
                raise ConfigurationError(f"{node!r} is no node name: say name@host")
            async with asyncio.timeout(self.config.connect_timeout):
                found = await look_up(node, host, self.config.epmd_address()[1])
                connection = DistConnection(
                    Role.INITIATOR,
                    self._identity,
                    challenge=secrets.randbits(32),
                    now=loop.time(),
                    config=self.config.dist,
                    peer=node,
                )
                transport = DistTransport(connection, self._dispatch, self._lost)
                self._transports.add(transport)
                self._outgoing[node] = transport
                try:
                    await loop.create_connection(lambda: transport, host, found.port)
                except BaseException as error:
                    self._transports.discard(
                        transport
                    )  # no socket came about, so nothing will report its end
                    if not isinstance(error, OSError):
                        raise
                    raise HandshakeError(
                        f"{node} is registered but does not listen on port {found.port}; "
                        f"it may just have stopped ({error.strerror or error})"
                    ) from None
                await asyncio.shield(future)
        except TimeoutError:
            self._resolve(
                node, DeadlineError(f"no connection to {node} within {self.config.connect_timeout:g} s")
            )
        except BridgeError as error:
            self._resolve(node, error)

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

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._identity is not None or self._server is not None
        if (
            self._identity is None
            or self._closing
            or len(self._transports) >= self.config.max_incoming_connections
        ):
            return _Refusal()
        connection = DistConnection(
            Role.ACCEPTOR,
            self._identity,
            challenge=secrets.randbits(32),
            now=asyncio.get_running_loop().time(),
            config=self.config.dist,
        )
        transport = DistTransport(connection, self._dispatch, self._lost)
        self._transports.add(transport)
        return transport

    def _dispatch(self, transport: DistTransport, event: DistEvent) -> None:
        match event:
            case Received():
                control = event.control
                if type(control) is Send and control.to == self._processes.caller:
                    self._reply(event.payload)
                else:
                    self._processes.receive(transport, control, event.payload)
            case NameReceived():
                transport.answer_name(self._judge(event.peer))
            case Connected():
                self._connected(transport, event.peer)
            case HandshakeFailed():
                self._handshake_failed(transport, event)
            case _:
                _log.info("%s: %s", transport.connection.peer, event.detail)

    def _judge(self, peer: str) -> Status:
        if peer == self.name:
            return Status.NOT_ALLOWED
        if peer in self._peers:
            return Status.ALIVE
        if peer in self._outgoing:
            # Both dial at once: the connection of the greater name stands.
            return Status.NOK if self.name > peer else Status.OK_SIMULTANEOUS
        return Status.OK

    def _connected(self, transport: DistTransport, peer: str) -> None:
        earlier = self._peers.get(peer)
        if earlier is not None and earlier is not transport:
            # Only now, when the newcomer has proved the cookie, is the earlier connection given up.
            self._node_down(peer, earlier)
            earlier.abort()
        self._peers[peer] = transport
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
        if node is not None and self._peers.get(node) is transport:
            self._node_down(node, transport)

    def _node_down(self, node: str, transport: DistTransport) -> None:
        del self._peers[node]
        for future, where in list(self._pending.values()):
            if where == node and not future.done():
                future.set_exception(NodeDownError(node, "the connection was lost before the answer came"))
        self._processes.node_down(node, transport)
        for callback in list(self._down_callbacks):
            try:
                callback(node)
            except Exception:
                _log.exception("a node-down callback failed")

    def _reply(self, message: Any) -> None:
        if type(message) is tuple and len(message) == 2 and type(message[0]) is Reference:
            waiting = self._pending.get(message[0].ids)
            if waiting is not None:
                if not waiting[0].done():
                    waiting[0].set_result(message[1])
                return
        self._late += 1


class _Refusal(asyncio.Protocol):
    """Closes a connection that this node does not take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _expire(future: asyncio.Future[Any], node: str, module: str, function: str, seconds: float) -> None:
    if not future.done():
        future.set_exception(
            DeadlineError(f"no answer of {node} to {module}:{function} within {seconds:g} s")
        )


def _short(term: Any) -> str:
    try:
        text = repr(term)
    except RecursionError:
        return "a deeply nested term"
    return text if len(text) <= 500 else f"{text[:500]}…"

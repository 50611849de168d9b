"""The hidden node."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bridge.dist import ControlMessage, Identity, Link, MonitorP, Received, RegSend, Send
from bridge.errors import (
    ClosedError,
    ConfigurationError,
    HandshakeError,
    InvalidStateError,
    NodeDownError,
)
from bridge.etf import Atom, Pid
from bridge.node.calls import REX, Calls, cast_message, shorten
from bridge.node.config import NodeConfig, read_cookie
from bridge.node.connections import Connections, Refusal
from bridge.node.epmd import Registration, register
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.processes import Processes
from bridge.node.transport import DistTransport

_log = logging.getLogger("bridge.node")


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
        self._server: asyncio.Server | None = None
        self._registration: Registration | None = None
        # Set together when the node has started and knows its creation.
        self._connections: Connections | None = None
        self._peers: dict[str, DistTransport] = {}
        self._processes: Processes
        self._calls: Calls
        self._down_callbacks: list[Callable[[str], None]] = []
        self._closing = False

    async def __aenter__(self) -> Self:
        """Listen and register.

        Raises:
            HandshakeError: no port mapper answers, or the name is taken.
            InvalidStateError: it was started before.
        """
        if self._server is not None or self._closing:
            raise InvalidStateError("a node starts once")
        config = self.config
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, config.listen_host, config.listen_port
        )
        creation = 0
        try:
            if config.register:
                async with asyncio.timeout(config.connect_timeout):
                    self._registration = await register(self.name, self.port, *config.epmd_address())
                    creation = self._registration.creation
        except TimeoutError:
            self._server.close()
            raise HandshakeError("the port mapper took the connection and does not answer") from None
        except BaseException:
            self._server.close()
            raise
        # Values up to 3 are what old port mappers hand out again and again; OTP too draws its own then.
        if creation <= 3:
            creation = secrets.randbelow(0xFFFF_FFF0) + 4
        identity = Identity(name=self.name, cookie=self._cookie, creation=creation)
        self._connections = Connections(identity, config, received=self._received, down=self._node_down)
        self._peers = self._connections.peers
        self._processes = Processes(Atom(self.name), creation, config.mailbox_capacity, self._peers.get)
        self._calls = Calls(self._processes.caller, self._processes.reference, config.max_pending_calls)
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

    def heard_from(self, node: str) -> float | None:
        """Time of the event loop at which bytes of a node last came, or ``None`` without a connection."""
        peer = self._peers.get(node)
        return None if peer is None else peer.connection.last_received

    def statistics(self) -> NodeStatistics:
        """See ``NodeStatistics``."""
        if self._connections is None:
            return NodeStatistics(connections=0, pending_calls=0, calls=0, late_replies=0, undelivered=0)
        return NodeStatistics(
            connections=len(self._peers),
            pending_calls=len(self._calls),
            calls=self._calls.made,
            late_replies=self._calls.late,
            undelivered=self._processes.undelivered,
        )

    async def close(self) -> None:
        """Tell every watcher, close every connection and wait for it. Harmless twice."""
        if self._closing:
            return
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._registration is not None:
            self._registration.close()
        if self._connections is not None:
            self._processes.close()
            self._calls.close()
            await self._connections.close()

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

    async def disconnect(self, node: str, *, timeout: float = 1.0) -> None:  # the contract's name
        """Close the connection to a node, if there is one, and wait until it is closed.

        Args:
            node: full name.
            timeout: seconds for the peer to take what was sent to it; what is left then is lost.
        """
        if self._connections is not None:
            await self._connections.disconnect(node, timeout)

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
            LimitExceededError: ``max_pending_calls`` wait already; it did not run.
            ClosedError: this node was closed.
        """
        seconds = self.config.call_timeout if timeout is None else timeout
        peer = self._peers.get(node)
        deadline = None
        if peer is None:
            deadline = asyncio.get_running_loop().time() + seconds
            peer = await self._peer(node, min(seconds, self.config.connect_timeout))
        return await self._calls.call(peer, node, module, function, args, seconds=seconds, deadline=deadline)

    async def cast(self, node: str, module: str, function: str, args: Sequence[Any]) -> None:
        """Run ``module:function`` on a node and do not wait for it; nothing tells whether it ran.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
            DeadlineError: the peer takes no more for ``call_timeout``.
        """
        control = RegSend(source=self._started().caller, to=REX)
        await self._send(node, control, cast_message(module, function, args))

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
                raise ConfigurationError(f"send to a pid or to (name, node), not to {shorten(to)}")

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

    def _started(self) -> Processes:
        if self._connections is None or self._closing:
            raise ClosedError("the node does not run")
        return self._processes

    async def _peer(self, node: str, seconds: float) -> DistTransport:
        if self._connections is None or self._closing:
            raise ClosedError("the node does not run")
        return self._peers.get(node) or await self._connections.get(node, seconds)

    async def _send(self, node: str, control: ControlMessage, payload: Any = None) -> None:
        peer = await self._peer(node, self.config.connect_timeout)
        if not peer.writable:
            await peer.drain(asyncio.get_running_loop().time() + self.config.call_timeout)
        try:
            peer.send(control, payload)
        except InvalidStateError:
            raise NodeDownError(node, "the connection ended") from None

    def _accept(self) -> asyncio.BaseProtocol:
        # Between listening and knowing the creation there is nobody to answer as.
        return Refusal() if self._connections is None else self._connections.accept()

    def _received(self, transport: DistTransport, event: Received) -> None:
        control = event.control
        if type(control) is Send and control.to == self._processes.caller:
            self._calls.answer(event.payload)
        else:
            self._processes.receive(transport, control, event.payload)

    def _node_down(self, node: str, transport: DistTransport) -> None:
        self._calls.node_down(node)
        self._processes.node_down(node, transport)
        for callback in list(self._down_callbacks):
            try:
                callback(node)
            except Exception:
                _log.exception("a node-down callback failed")

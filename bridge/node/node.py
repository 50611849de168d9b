"""The hidden node."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bridge.dist import (
    ControlMessage,
    Exit2,
    Identity,
    Link,
    MonitorP,
    MonitorPExit,
    Received,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
)
from bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    HandshakeError,
    InvalidStateError,
    NodeDownError,
)
from bridge.etf import Atom, Pid, shorten
from bridge.node.calls import REX, Calls, Down, cast_message
from bridge.node.config import NodeConfig, read_cookie
from bridge.node.connections import Connections, Refusal
from bridge.node.epmd import Registration, register
from bridge.node.functions import Functions
from bridge.node.gen import GEN_CAST, gen_call
from bridge.node.incoming import Incoming
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.peer import Loopback, Peer
from bridge.node.processes import Processes
from bridge.node.server import GenServer, ServerProcess
from bridge.node.spawn import Spawns
from bridge.node.transport import DistTransport

Target = Pid | tuple[str | Atom, str | Atom]
"""a pid, or (registered name, node name)"""

_log = logging.getLogger("bridge.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """Counts since the node started.

    Attributes:
        connections: that stand now.
        pending_calls: that wait now.
        calls: made.
        late_replies: answers that came after their deadline.
        incoming_calls: of exposed functions, that run now.
        undelivered: messages to a pid or name that is not there.
    """

    connections: int
    pending_calls: int
    calls: int
    late_replies: int
    incoming_calls: int
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
        self._spawns: Spawns
        self._incoming: Incoming
        self._loopback: Loopback
        self._functions = Functions()
        self._down_callbacks: list[Callable[[str], None]] = []
        self._closing = False

    async def __aenter__(self) -> Self:
        """Listen and register.

        Raises:
            ConfigurationError: it cannot listen where its configuration says.
            HandshakeError: no port mapper answers, or the name is taken.
            InvalidStateError: it was started before.
        """
        if self._server is not None or self._closing:
            raise InvalidStateError("a node starts once")
        config = self.config
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept, config.listen_host, config.listen_port
            )
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise ConfigurationError(
                f"cannot listen on {config.listen_host}:{config.listen_port} ({reason or error}); "
                "set listen_host to an address of this machine, listen_port to a free one"
            ) from None
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
        self._processes = Processes(Atom(self.name), creation, config.mailbox_capacity, self._known)
        caller = self._processes.caller
        self._calls = Calls(caller, self._processes.reference_words, config.max_pending_calls)
        self._connections = Connections(
            identity,
            config,
            received=self._received,
            answered=self._calls.answers,
            answers_to=caller,
            down=self._node_down,
        )
        self._peers = self._connections.peers
        self._loopback = Loopback(self._received)
        self._spawns = Spawns(self._calls, caller)
        self._incoming = Incoming(
            self._functions,
            self._processes,
            maximum=config.max_incoming_calls,
            seconds=config.incoming_call_timeout,
        )
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
            return NodeStatistics(
                connections=0, pending_calls=0, calls=0, late_replies=0, incoming_calls=0, undelivered=0
            )
        return NodeStatistics(
            connections=len(self._peers),
            pending_calls=len(self._calls),
            calls=self._calls.made,
            late_replies=self._calls.late,
            incoming_calls=len(self._incoming),
            undelivered=self._processes.undelivered,
        )

    async def close(self) -> None:
        """Tell every watcher, close every connection and wait for it. Harmless twice."""
        if not self._closing:
            self._closing = True
            if self._server is not None:
                self._server.close()
            if self._registration is not None:
                self._registration.close()
            if self._connections is not None:
                self._processes.close()
                self._calls.close()
        if self._connections is not None:
            try:
                await self._incoming.close()
            finally:  # whoever is cancelled here leaves no connection open
                self._loopback.close()
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
            ConfigurationError: ``node`` is this node, or no node name.
        """
        if self._connections is None or self._closing:
            raise ClosedError("the node does not run")
        await self._connections.get(node, self.config.connect_timeout if timeout is None else timeout)

    async def disconnect(self, node: str, *, timeout: float = 1.0) -> None:  # the contract's name
        """Close the connection to a node, if there is one, and wait until it is closed.

        Args:
            node: full name.
            timeout: seconds for the peer to take what was sent to it; what is left then is lost.
        """
        if self._connections is not None:
            await self._connections.disconnect(node, timeout)

    def call(
        self, node: str, module: str, function: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Call ``module:function`` on a node through its ``rex`` server.

        Args:
            node: full name; connected to first where needed.
            module: name of the module.
            function: name of the function.
            args: terms, in a list; a string alone is refused with ``ConfigurationError``.
            timeout: seconds for all of it, decoding a large answer included; default ``call_timeout``.

        Returns:
            The decoded result, or the term that the function threw: ``rpc`` cannot tell them apart.

        Raises:
            RemoteRaisedError: the function raised ``error(reason)``; ``undef`` where there is none.
            RemoteExitedError: it called ``exit(reason)``, or its process was ended by a signal.
            RemoteRefusedError: ``rex`` did not call it.
            NodeDownError: the connection was lost before the answer; it may have run.
            DeadlineError: no answer in time; it may have run.
            HandshakeError: no connection could be made; it did not run.
            LimitExceededError: ``max_pending_calls`` wait already; it did not run.
            ClosedError: this node was closed.
        """
        seconds = self.config.call_timeout if timeout is None else timeout
        peer = self._peers.get(node)
        if peer is None:
            return self._connect_and_call(node, module, function, args, seconds)
        # Not awaited here: a coroutine around another would be paid for by every call.
        return self._calls.call(peer, node, module, function, args, seconds=seconds)

    async def _connect_and_call(
        self, node: str, module: str, function: str, args: Sequence[Any], seconds: float
    ) -> Any:
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

    async def erpc(
        self, node: str, module: str, function: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> Any:
        """Call ``module:function`` on a node as OTP's ``erpc`` does: in a process spawned for it.

        It costs more than ``call`` and tells exactly what happened, also where a function throws, or exits
        with what looks like a stack trace. Whoever gives up, by the deadline or by being cancelled, leaves no
        monitor behind; the function runs on.

        Args:
            node: full name; connected to first where needed.
            module: name of the module.
            function: name of the function.
            args: terms.
            timeout: seconds for all of it; default ``call_timeout``.

        Raises:
            RemoteRaisedError: the function raised ``error(reason)``; ``undef`` where there is none.
            RemoteThrewError: it threw ``reason``.
            RemoteExitedError: it called ``exit(reason)``, or an exit signal ended its process.
            RemoteRefusedError: ``erpc`` did not call it: ``notsup``, ``system_limit``, ``badarg``.
            NodeDownError, DeadlineError, HandshakeError, LimitExceededError, ClosedError: as for ``call``.
        """
        seconds = self.config.call_timeout if timeout is None else timeout
        deadline = asyncio.get_running_loop().time() + seconds
        peer = await self._peer(node, min(seconds, self.config.connect_timeout))
        return await self._spawns.call(peer, node, module, function, args, seconds=seconds, deadline=deadline)

    async def multicall(
        self,
        nodes: Iterable[str],
        module: str,
        function: str,
        args: Sequence[Any],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Call ``module:function`` on many nodes at once by ``erpc``, with one deadline for all.

        Returns:
            For each node its result, or the exception that ``erpc`` would have raised: no node's failure
            hides another one's result.

        Raises:
            ConfigurationError: an argument is no term, or a name no node name.
            ClosedError: this node does not run.
        """
        self._started()
        names = list(dict.fromkeys(nodes))
        calls = [self.erpc(node, module, function, args, timeout=timeout) for node in names]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, ConfigurationError) or (
                isinstance(outcome, BaseException) and not isinstance(outcome, BridgeError)
            ):
                raise outcome
        return dict(zip(names, outcomes, strict=True))

    async def gen_call(self, target: Target, request: Any, *, timeout: float | None = None) -> Any:
        """Call a ``gen_server`` (or any process that answers as one) and wait for its reply.

        Args:
            target: its pid, or (registered name, node name); of this node too.
            request: a term.
            timeout: seconds for all of it; default ``call_timeout``.

        Raises:
            RemoteExitedError: it ended before it replied; ``reason`` is why, ``noproc`` where there is none.
            NodeDownError: the connection was lost before the reply; it may have been served.
            DeadlineError, HandshakeError, LimitExceededError, ClosedError: as for ``call``.
        """
        seconds = self.config.call_timeout if timeout is None else timeout
        deadline = asyncio.get_running_loop().time() + seconds
        node, process = _target(target)
        peer = await self._peer(node, min(seconds, self.config.connect_timeout))
        return await gen_call(
            self._calls,
            peer,
            node,
            self._processes.caller,
            process,
            request,
            seconds=seconds,
            deadline=deadline,
        )

    async def gen_cast(self, target: Target, request: Any) -> None:
        """Send a ``gen_server`` a request that it does not answer; nothing tells whether it arrived.

        Raises:
            HandshakeError, NodeDownError, DeadlineError: as for ``send``.
        """
        await self.send(target, (GEN_CAST, request))

    async def send(self, to: Target | Mailbox, message: Any) -> None:
        """Send a message, as ``to ! message`` does: nothing tells whether it arrived.

        Args:
            to: a pid, or (registered name, node name); of this node too.
            message: any term.

        Raises:
            ConfigurationError: ``message`` is no term, or ``to`` no process.
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
            DeadlineError: the peer takes no more for ``call_timeout``.
        """
        match to:
            case Mailbox():
                await self._send(self.name, Send(to=to.pid), message)
            case Pid():
                await self._send(to.node.text, Send(to=to), message)
            case (name, node):
                control = RegSend(source=self._started().caller, to=Atom(str(name)))
                await self._send(str(node), control, message)
            case _:
                raise ConfigurationError(f"send to a pid or to (name, node), not to {shorten(to)}")

    def mailbox(self, name: str | None = None, *, trap_exit: bool = True) -> Mailbox:
        """A new mailbox with a pid of its own, registered under ``name`` if given.

        Args:
            name: to register it under.
            trap_exit: whether exit signals come as messages; otherwise they end it.

        Raises:
            ConfigurationError: the name is taken.
            ClosedError: this node does not run.
        """
        return self._started().mailbox(name, trap_exit=trap_exit)

    def serve(self, name: str | None, server: GenServer) -> ServerProcess:
        """A process that runs a server, while it is used as ``async with``; see ``GenServer``.

        Args:
            name: to register it under, or ``None``.
            server: whose callbacks answer.

        Raises:
            ClosedError: this node does not run.
        """
        processes = self._started()

        def mailbox(on_end: Callable[[Any], None]) -> Mailbox:
            return processes.mailbox(name, trap_exit=server.trap_exit, on_end=on_end)

        return ServerProcess(server, mailbox, processes, self.config.call_timeout)

    def expose(self, module: str, function: str, call: Callable[..., Any]) -> None:
        """Let other nodes call a Python function as ``module:function``, by ``rpc`` and ``erpc``.

        Nothing else of this process can be called. ``call`` takes the arguments as terms and gives a term;
        it may be a coroutine function. A plain one runs in the event loop, so one that blocks belongs into
        ``asyncio.to_thread``. What it raises is ``error:{python, ClassName, Message}`` to its caller (two
        binaries); the classes ``Remote…Error`` are what they stand for. It is cancelled after
        ``incoming_call_timeout``.

        Args:
            module: an atom's text; Elixir's ``Greeter`` is ``Elixir.Greeter``.
            function: an atom's text.
            call: takes as many arguments as it has parameters; any other number is ``undef``.

        Raises:
            ConfigurationError: the name is no atom, is taken, or ``call`` is not callable.
        """
        self._functions.expose(module, function, call)

    def withdraw(self, module: str, function: str | None = None) -> None:
        """Undo ``expose``, for all functions of a module where none is named; calls that run go on.

        Raises:
            ConfigurationError: there is none.
        """
        self._functions.withdraw(module, function)

    def register(self, name: str, process: Mailbox | ServerProcess) -> None:
        """Give a process of this node a registered name; it has one at most.

        Raises:
            ConfigurationError: the name is taken, or the process has one or has ended.
        """
        self._started().register(name, process.pid)

    def unregister(self, name: str) -> None:
        """Take a registered name from its process.

        Raises:
            ConfigurationError: no process has it.
        """
        self._started().unregister(name)

    def whereis(self, name: str) -> Pid | None:
        """The pid of the process of this node that has a registered name."""
        return self._started().whereis(name)

    async def monitor(self, target: Target, *, mailbox: Mailbox | None = None) -> Watch:
        """Watch a process; its end, or its node's, ends the watch.

        Args:
            target: a pid, or (registered name, node name).
            mailbox: gets ``('DOWN', Reference, process, Target, Reason)`` too.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
        """
        node, process = _target(target)
        peer = await self._ready(node)
        source = self._source(mailbox)
        reference = self._processes.reference()
        watch = Watch(process, node, source, reference, mailbox)
        # Nothing is awaited from here on: the mailbox may end, and tell that, after this was sent or never.
        _transmit(peer, node, MonitorP(source=source, to=process, reference=reference))
        self._processes.watch(watch)
        return watch

    async def demonitor(self, watch: Watch) -> None:
        """Give up a monitor: nothing of it arrives any more, and who waits for it gets ``ClosedError``.

        A ``DOWN`` that is in the mailbox already stays there. Harmless where it has ended.

        Raises:
            ConfigurationError: it is a link.
        """
        if watch.reference is None:
            raise ConfigurationError("a link is undone by unlink")
        self._started().demonitor(watch)

    async def link(self, target: Pid, *, mailbox: Mailbox | None = None) -> Watch:
        """Link to a process; the mailbox's end ends it too, unless it traps exits.

        Args:
            target: its pid.
            mailbox: this side of the link, which takes the exit signal as its ``trap_exit`` says; default:
                the node itself, which only ends the watch.

        Raises:
            HandshakeError: no connection could be made.
            NodeDownError: the connection ended.
        """
        node = target.node.text
        peer = await self._ready(node)
        source = self._source(mailbox)
        known = self._processes.linked(source, target)
        if known is not None:
            return known
        watch = Watch(target, node, source, None, mailbox)
        if self._processes.link(watch):
            try:
                _transmit(peer, node, Link(source=source, to=target))
            except NodeDownError:
                self._processes.unlink(source, target)  # nobody has it to undo it
                raise
        return watch

    async def unlink(self, target: Pid, *, mailbox: Mailbox | None = None) -> None:
        """Undo the link to a process, whichever side made it; harmless where there is none.

        Args:
            target: its pid.
            mailbox: this side of the link; default: the node itself.
        """
        self._started().unlink(self._processes.caller if mailbox is None else mailbox.pid, target)

    async def exit(self, target: Pid, reason: Any, *, mailbox: Mailbox | None = None) -> None:
        """Send a process an exit signal, as ``exit(Pid, Reason)`` does; ``kill`` cannot be trapped.

        Args:
            target: its pid.
            reason: a term.
            mailbox: whom it comes from; default: the node itself.

        Raises:
            HandshakeError, NodeDownError, DeadlineError: as for ``send``.
        """
        source = self._started().caller if mailbox is None else mailbox.pid
        await self._send(target.node.text, Exit2(source=source, to=target, reason=reason))

    def on_node_down(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(name)`` when a connection ends; gives a function that undoes it."""
        self._down_callbacks.append(callback)
        return lambda: self._down_callbacks.remove(callback) if callback in self._down_callbacks else None

    def _started(self) -> Processes:
        if self._connections is None or self._closing:
            raise ClosedError("the node does not run")
        return self._processes

    def _known(self, node: str) -> Peer | None:
        return self._loopback if node == self.name else self._peers.get(node)

    async def _peer(self, node: str, seconds: float) -> Peer:
        if self._connections is None or self._closing:
            raise ClosedError("the node does not run")
        return self._known(node) or await self._connections.get(node, seconds)

    async def _ready(self, node: str) -> Peer:
        peer = await self._peer(node, self.config.connect_timeout)
        if not peer.writable:
            await peer.drain(asyncio.get_running_loop().time() + self.config.call_timeout)
        return peer

    async def _send(self, node: str, control: ControlMessage, payload: Any = None) -> None:
        _transmit(await self._ready(node), node, control, payload)

    def _source(self, mailbox: Mailbox | None) -> Pid:
        """Whom a monitor or a link is of: a process that lives, since its end undoes them."""
        processes = self._started()
        if mailbox is None:
            return processes.caller
        if mailbox.closed:
            raise ClosedError("the mailbox has ended")
        return mailbox.pid

    def _accept(self) -> asyncio.BaseProtocol:
        # Between listening and knowing the creation there is nobody to answer as.
        return Refusal() if self._connections is None else self._connections.accept()

    def _received(self, transport: Peer, event: Received) -> None:
        control = event.control
        if type(control) is Send and control.to == self._processes.caller:
            self._calls.answer(event.payload)
            return
        match control:
            case MonitorPExit() if self._calls.settle(control.reference, Down(control.reason)):
                return
            case SpawnReply():
                self._spawns.replied(transport, control)
            case SpawnRequest():
                self._incoming.spawn(transport, control, event.payload)
            case _:
                self._processes.receive(transport, control, event.payload)

    def _node_down(self, node: str, transport: DistTransport) -> None:
        self._calls.node_down(node)
        self._spawns.node_down(node)
        self._processes.node_down(node, transport)
        for callback in list(self._down_callbacks):
            try:
                callback(node)
            except Exception:
                _log.exception("a node-down callback failed")


def _transmit(peer: Peer, node: str, control: ControlMessage, payload: Any = None) -> None:
    try:
        peer.send(control, payload)
    except InvalidStateError:
        raise NodeDownError(node, "the connection ended") from None


def _target(target: Target) -> tuple[str, Pid | Atom]:
    match target:
        case Pid():
            return target.node.text, target
        case (name, node):
            return str(node), Atom(str(name))
        case _:
            raise ConfigurationError(f"a process is a pid or (name, node), not {shorten(target)}")

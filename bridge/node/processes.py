"""The processes of a hidden node as the others see them: names, monitors, links, exits.

Source: Erlang "Distribution Protocol", section "Protocol between Connected Nodes"; Reference Manual, chapter
"Processes", for what an exit, a monitor and a link deliver.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, Final, Protocol

from bridge.dist import (
    ControlMessage,
    DemonitorP,
    Exit,
    Exit2,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    InvalidStateError,
    LimitExceededError,
)
from bridge.etf import Atom, Pid, Reference
from bridge.node.links import LinkEnd, Links
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.outcomes import NOCONNECTION, error_reason
from bridge.node.peer import Peer

NOPROC: Final = Atom("noproc")
_WORDS: Final = struct.Struct(">III")
_KILL: Final = Atom("kill")
_SHUTDOWN: Final = Atom("shutdown")


class LocalProcess(Protocol):
    """Something of this node that has a pid."""

    pid: Pid
    name: str | None

    def put(self, message: Any) -> None:
        """Take a message."""

    def exit_signal(self, source: Pid, reason: Any, *, kill: bool = False) -> None:
        """Take an exit signal; ``kill`` cannot be trapped."""

    def end_by_node(self, reason: Any) -> None:
        """The node stops."""


class Processes:
    """Local pids and who watches whom.

    Attributes:
        caller: the node's own process, which asks and is answered.
        undelivered: messages to a pid or name that is not there.
    """

    def __init__(self, node: Atom, creation: int, capacity: int, peer: Callable[[str], Peer | None]) -> None:
        self._node = node
        self._creation = creation
        self._capacity = capacity
        self._peer = peer
        self._numbers = count(1)
        self._references = count(1)
        self._by_pid: dict[Pid, LocalProcess] = {}
        self._by_name: dict[Atom, LocalProcess] = {}
        self._services: dict[Atom, Callable[[Any], None]] = {}
        self._watched_by: dict[Pid, dict[Reference, tuple[Peer, MonitorP]]] = {}
        self._monitors: dict[Reference, Watch] = {}
        self._monitors_of: dict[Pid, set[Reference]] = {}
        self._links = Links()
        self.undelivered = 0
        self.caller = self.new_pid()

    def new_pid(self) -> Pid:
        """A pid that was never given before."""
        number = next(self._numbers)
        return Pid(self._node, number & 0xFFF_FFFF, number >> 28, self._creation)

    def reference_words(self) -> bytes:
        """Three words of a new reference: a counter, since a random one could repeat and lose an answer."""
        number = next(self._references)
        # The first word has 18 bits in OTP's own references.
        return _WORDS.pack(number & 0x3_FFFF, number >> 18 & 0xFFFF_FFFF, number >> 50)

    def reference(self) -> Reference:
        """A new reference."""
        return Reference(self._node, self._creation, _WORDS.unpack(self.reference_words()))

    def service(self, name: str, take: Callable[[Any], None]) -> None:
        """Let the node's own process have a name, with a function that takes what is sent to it."""
        self._services[Atom(name)] = take

    def mailbox(
        self,
        name: str | None,
        *,
        trap_exit: bool = True,
        on_end: Callable[[Any], None] | None = None,
    ) -> Mailbox:
        """A new mailbox.

        Args:
            name: to register it under.
            trap_exit: see ``Mailbox``.
            on_end: called with the reason when it has ended.

        Raises:
            ConfigurationError: the name is taken.
        """
        atom = None if name is None else self._free(name)

        def closed(box: Mailbox, reason: Any) -> None:
            self.ended(box, reason)
            if on_end is not None:
                on_end(reason)

        box = Mailbox(self.new_pid(), name, self._capacity, closed, trap_exit=trap_exit)
        self.add(box)
        if atom is not None:
            self._by_name[atom] = box
        return box

    def add(self, process: LocalProcess) -> None:
        """Let messages, monitors, links and exits reach a process; ``ended`` undoes it."""
        self._by_pid[process.pid] = process

    def ended(
        self, process: LocalProcess, reason: Any, otherwise: Callable[[Exception], Any] = error_reason
    ) -> None:
        """Forget a process and tell whoever watches it, or is linked to it.

        Args:
            process: one that was added.
            reason: why it ended.
            otherwise: gives, for the error, what to tell where ``reason`` is no term or too large.
        """
        self._by_pid.pop(process.pid, None)
        if process.name is not None:
            self._by_name.pop(Atom(process.name), None)
        self._tell(process.pid, reason, otherwise)

    def register(self, name: str, pid: Pid) -> None:
        """Give a process of this node a name.

        Raises:
            ConfigurationError: the name is taken, the process has one, or there is no such process.
        """
        atom = self._free(name)
        process = self._by_pid.get(pid)
        if process is None:
            raise ConfigurationError(f"{pid} is no process of this node that lives")
        if process.name is not None:
            raise ConfigurationError(f"{pid} is registered as {process.name} already")
        process.name = name
        self._by_name[atom] = process

    def unregister(self, name: str) -> None:
        """Take a name from its process.

        Raises:
            ConfigurationError: no process has it.
        """
        process = self._by_name.pop(Atom(name), None)
        if process is None:
            raise ConfigurationError(f"no process of this node is called {name}")
        process.name = None

    def whereis(self, name: str) -> Pid | None:
        """The pid of a registered name."""
        return self.local(Atom(name))

    def watched(self, transport: Peer, monitor: MonitorP) -> None:
        """Remember that a process of a peer watches one of ours, or answer that there is none."""
        pid = self.local(monitor.to)
        if pid is None:
            answer = MonitorPExit(
                source=monitor.to, to=monitor.source, reference=monitor.reference, reason=NOPROC
            )
            self.send(transport, answer)
        else:
            self._watched_by.setdefault(pid, {})[monitor.reference] = (transport, monitor)

    def demonitor(self, watch: Watch) -> None:
        """Give up a monitor of ours; nothing of it arrives any more. Harmless twice."""
        assert watch.reference is not None
        if self._unwatched(watch.reference) is None:
            return
        watch.give_up(ClosedError("the monitor was given up"))
        peer = self._peer(watch.node)
        if peer is not None:
            self.send(peer, DemonitorP(source=watch.source, to=watch.target, reference=watch.reference))

    def link(self, watch: Watch) -> bool:
        """Set up a link of ours, or let one that the other side set up have a watch; whether to send LINK."""
        assert isinstance(watch.target, Pid)
        return self._links.set_up(watch.source, watch.target, watch)

    def linked(self, source: Pid, target: Pid) -> Watch | None:
        """The watch of the link that stands between two processes."""
        link = self._links.get(source, target)
        return None if link is None else link.watch

    def unlink(self, source: Pid, target: Pid) -> None:
        """Undo the link between two processes, whichever made it; without one nothing happens."""
        undone = self._links.undo(source, target)
        if undone is None:
            return
        number, watch = undone
        if watch is not None:
            watch.give_up(ClosedError("the link was undone"))
        peer = self._peer(target.node.text)
        if peer is not None:
            self.send(peer, UnlinkId(id=number, source=source, to=target))

    def deliver(self, to: Pid | Atom, message: Any) -> None:
        """Put a message into the mailbox of a pid or name; without one it is counted and dropped."""
        box = self._by_pid.get(to) if isinstance(to, Pid) else self._by_name.get(to)
        if box is None:
            self.undelivered += 1
        else:
            box.put(message)

    def watch(self, watch: Watch) -> None:
        """Remember a monitor of ours."""
        assert watch.reference is not None
        self._monitors[watch.reference] = watch
        self._monitors_of.setdefault(watch.source, set()).add(watch.reference)

    def receive(self, transport: Peer, message: ControlMessage, payload: Any) -> None:
        """Take a message of a peer."""
        match message:
            case Send():
                self.deliver(message.to, payload)
            case RegSend():
                service = self._services.get(message.to)
                if service is None:
                    self.deliver(message.to, payload)
                else:
                    service(payload)
            case MonitorP():
                self.watched(transport, message)
            case DemonitorP():
                pid = self.local(message.to)
                self._watched_by.get(pid, {}).pop(message.reference, None) if pid else None
            case MonitorPExit():
                watch = self._unwatched(message.reference)
                if watch is not None:
                    watch.end(message.reason)
            case Link():
                self.linked_by(transport, message.source, message.to)
            case UnlinkId():
                link = self._links.undone(message.to, message.source)
                if link is not None and link.watch is not None:
                    link.watch.give_up(ClosedError("the other side undid the link"))
                self.send(transport, UnlinkIdAck(id=message.id, source=message.to, to=message.source))
            case UnlinkIdAck():
                self._links.acknowledged(message.to, message.source, message.id)
            case Exit():
                link = self._links.broke(message.to, message.source)
                if link is not None:
                    self._link_broke(link, message.to, message.source, message.reason)
            case Exit2():
                process = self._by_pid.get(message.to)
                if process is not None:
                    process.exit_signal(message.source, message.reason, kill=message.reason is _KILL)
            case _:
                # Aliases are never made here, and there is no group leader to change.
                self.undelivered += 1

    def linked_by(self, transport: Peer, source: Pid, to: Pid) -> None:
        """Remember that a process of a peer is linked to one of ours, or answer that there is none."""
        if to == self.caller or to in self._by_pid:
            self._links.requested(to, source)
        else:
            self.send(transport, Exit(source=to, to=source, reason=NOPROC))

    def node_down(self, node: str, transport: Peer) -> None:
        """The connection ended: watches of that node end, and its watches of ours are forgotten."""
        for watchers in self._watched_by.values():
            for reference in [r for r, (where, _) in watchers.items() if where is transport]:
                del watchers[reference]
        # A process that an exit signal ends takes its own watches along, so each is looked for anew.
        for reference in [r for r, watch in self._monitors.items() if watch.node == node]:
            monitor = self._unwatched(reference)
            if monitor is not None:
                monitor.end(NOCONNECTION)
        for own, other, link in self._links.node_down(node):
            self._link_broke(link, own, other, NOCONNECTION)

    def send_if_connected(self, node: str, control: ControlMessage, payload: Any) -> None:
        """Send a message to a node; without a connection it is counted and dropped.

        Raises:
            ConfigurationError: something in it is no term.
            LimitExceededError: it is too large or too deep.
        """
        peer = self._peer(node)
        if peer is None:
            self.undelivered += 1
            return
        try:
            peer.send(control, payload)
        except InvalidStateError:
            self.undelivered += 1

    def writable(self, node: str) -> bool:
        """Whether a node keeps up with what is sent to it; one that is not connected does."""
        peer = self._peer(node)
        return peer is None or peer.writable

    async def drain(self, node: str, seconds: float) -> None:
        """Wait until a node has taken what was sent to it, or so many seconds, or for nothing."""
        peer = self._peer(node)
        if peer is not None and not peer.writable:
            with suppress(DeadlineError):
                await peer.drain(asyncio.get_running_loop().time() + seconds)

    def close(self) -> None:
        """End every mailbox: the node stops."""
        for box in list(self._by_pid.values()):
            box.end_by_node(_SHUTDOWN)
        self._tell(self.caller, _SHUTDOWN)

    def _free(self, name: str) -> Atom:
        atom = Atom(name)
        if atom in self._by_name or atom in self._services:
            raise ConfigurationError(f"the name {name} is taken on this node")
        return atom

    def _unwatched(self, reference: Reference) -> Watch | None:
        watch = self._monitors.pop(reference, None)
        if watch is not None:
            own = self._monitors_of[watch.source]
            own.discard(reference)
            if not own:
                del self._monitors_of[watch.source]
        return watch

    def _link_broke(self, link: LinkEnd, own: Pid, other: Pid, reason: Any) -> None:
        process = self._by_pid.get(own)
        if link.watch is not None:
            link.watch.end(reason)
        elif process is not None:
            process.exit_signal(other, reason)

    def _tell(self, pid: Pid, reason: Any, otherwise: Callable[[Exception], Any] = error_reason) -> None:
        for transport, monitor in self._watched_by.pop(pid, {}).values():
            self.send(
                transport,
                MonitorPExit(
                    source=monitor.to, to=monitor.source, reference=monitor.reference, reason=reason
                ),
                otherwise,
            )
        for other, link in self._links.ended(pid).items():
            if link.watch is not None:
                link.watch.give_up(ClosedError("the process that was linked has ended"))
            peer = self._peer(other.node.text)
            if peer is not None:
                self.send(peer, Exit(source=pid, to=other, reason=reason), otherwise)
        for reference in list(self._monitors_of.get(pid, ())):
            self.demonitor(self._monitors[reference])

    def local(self, to: Pid | Atom) -> Pid | None:
        """The pid of a process of this node that lives."""
        if isinstance(to, Pid):
            return to if to == self.caller or to in self._by_pid else None
        if to in self._services:
            return self.caller
        process = self._by_name.get(to)
        return None if process is None else process.pid

    def send(
        self,
        transport: Peer,
        message: ControlMessage,
        otherwise: Callable[[Exception], Any] = error_reason,
    ) -> None:
        """Send a signal, if the connection still stands.

        Args:
            transport: to the node.
            message: without payload.
            otherwise: see ``ended``.
        """
        try:
            transport.send(message)
        except InvalidStateError:
            # The connection ended in the same turn; the peer learns of it by that.
            return
        except (ConfigurationError, LimitExceededError) as error:
            assert isinstance(message, MonitorPExit | Exit)
            try:
                transport.send(replace(message, reason=otherwise(error)))
            except (ConfigurationError, LimitExceededError):
                # What a peer sends to the brim of a limit is over it with a word about it.
                transport.send(replace(message, reason=error_reason(error)))

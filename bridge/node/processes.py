"""The processes of a hidden node as the others see them: mailboxes, monitors, links, ``net_kernel``.

Source: Erlang "Distribution Protocol", sections "Protocol between Connected Nodes" and "Link Protocol" (an
UNLINK_ID is always acknowledged, also for a link that is gone); Reference Manual, chapter "Processes", for
what an exit, a monitor and a link deliver; ``net_adm:ping/1``, which calls ``net_kernel``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from bridge.dist import (
    AliasSend,
    ControlMessage,
    DemonitorP,
    Exit,
    Exit2,
    Link,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    SpawnReply,
    SpawnRequest,
    UnlinkId,
    UnlinkIdAck,
)
from bridge.errors import ConfigurationError, InvalidStateError
from bridge.etf import Atom, ImproperList, Pid, Reference
from bridge.node.mailbox import Mailbox, Watch
from bridge.node.transport import DistTransport

_NET_KERNEL: Final = Atom("net_kernel")
_GEN_CALL: Final = Atom("$gen_call")
_IS_AUTH: Final = Atom("is_auth")
_ALIAS: Final = Atom("alias")
_YES: Final = Atom("yes")
_NOPROC: Final = Atom("noproc")
_NOCONNECTION: Final = Atom("noconnection")
_SHUTDOWN: Final = Atom("shutdown")


class Processes:
    """Local pids and who watches whom.

    Attributes:
        caller: the node's own process, which asks and is answered.
        undelivered: messages to a pid or name that is not there.
    """

    def __init__(
        self, node: Atom, creation: int, capacity: int, peer: Callable[[str], DistTransport | None]
    ) -> None:
        self._node = node
        self._creation = creation
        self._capacity = capacity
        self._peer = peer
        self._numbers = count(1)
        self._references = count(1)
        self._by_pid: dict[Pid, Mailbox] = {}
        self._by_name: dict[Atom, Mailbox] = {}
        self._watched_by: dict[Pid, dict[Reference, tuple[DistTransport, MonitorP]]] = {}
        self._linked_by: dict[Pid, dict[Pid, DistTransport]] = {}
        self._monitors: dict[Reference, Watch] = {}
        self._links: dict[tuple[Pid, Pid], Watch] = {}
        self.undelivered = 0
        self.caller = self._pid()

    def _pid(self) -> Pid:
        number = next(self._numbers)
        return Pid(self._node, number & 0xFFF_FFFF, number >> 28, self._creation)

    def reference(self) -> Reference:
        """A new reference: a counter, since a random one could repeat and lose an answer."""
        number = next(self._references)
        # The first word has 18 bits in OTP's own references.
        return Reference(
            self._node, self._creation, (number & 0x3_FFFF, number >> 18 & 0xFFFF_FFFF, number >> 50)
        )

    def mailbox(self, name: str | None) -> Mailbox:
        """A new mailbox.

        Raises:
            ConfigurationError: the name is taken.
        """
        atom = None if name is None else Atom(name)
        if atom is not None and (atom in self._by_name or atom is _NET_KERNEL):
            raise ConfigurationError(f"the name {name} is taken on this node")
        box = Mailbox(self._pid(), name, self._capacity, self._closed)
        self._by_pid[box.pid] = box
        if atom is not None:
            self._by_name[atom] = box
        return box

    def deliver(self, to: Pid | Atom, message: Any) -> None:
        """Put a message into the mailbox of a pid or name; without one it is counted and dropped."""
        box = self._by_pid.get(to) if isinstance(to, Pid) else self._by_name.get(to)
        if box is None:
            self.undelivered += 1
        else:
            box.put(message)

    def watch(self, watch: Watch) -> None:
        """Remember a monitor or link of ours."""
        if watch.reference is not None:
            self._monitors[watch.reference] = watch
        elif isinstance(watch.target, Pid):
            self._links[watch.source, watch.target] = watch

    def linked(self, source: Pid, target: Pid) -> Watch | None:
        """The link that stands between two processes."""
        return self._links.get((source, target))

    def receive(self, transport: DistTransport, message: ControlMessage, payload: Any) -> None:
        """Take a message of a peer."""
        match message:
            case Send():
                self.deliver(message.to, payload)
            case RegSend():
                if message.to is _NET_KERNEL:
                    self._net_kernel(transport, payload)
                else:
                    self.deliver(message.to, payload)
            case MonitorP():
                self._monitored(transport, message)
            case DemonitorP():
                pid = self._local(message.to)
                self._watched_by.get(pid, {}).pop(message.reference, None) if pid else None
            case MonitorPExit():
                watch = self._monitors.pop(message.reference, None)
                if watch is not None:
                    watch.end(message.reason)
            case Link():
                if message.to == self.caller or message.to in self._by_pid:
                    self._linked_by.setdefault(message.to, {})[message.source] = transport
                else:
                    transport.send(Exit(source=message.to, to=message.source, reason=_NOPROC))
            case UnlinkId():
                self._linked_by.get(message.to, {}).pop(message.source, None)
                self._links.pop((message.to, message.source), None)
                transport.send(UnlinkIdAck(id=message.id, source=message.to, to=message.source))
            case Exit():
                self._linked_by.get(message.to, {}).pop(message.source, None)
                watch = self._links.pop((message.to, message.source), None)
                if watch is not None:
                    watch.end(message.reason)
                elif message.to in self._by_pid:
                    self.deliver(message.to, (Atom("EXIT"), message.source, message.reason))
            case Exit2():
                self.deliver(message.to, (Atom("EXIT"), message.source, message.reason))
            case SpawnRequest():
                # Nothing of this process may be started from outside; erpc raises {erpc, notsup} on this.
                reply = SpawnReply(request=message.request, to=message.source, flags=0, result=Atom("notsup"))
                transport.send(reply)
            case _:
                # Aliases and spawn requests are never made here, so nothing of ours is answered by the rest.
                self.undelivered += 1

    def node_down(self, node: str, transport: DistTransport) -> None:
        """The connection ended: watches of that node end, and its watches of ours are forgotten."""
        for reference, watch in list(self._monitors.items()):
            if watch.node == node:
                del self._monitors[reference]
                watch.end(_NOCONNECTION)
        for key, watch in list(self._links.items()):
            if watch.node == node:
                del self._links[key]
                watch.end(_NOCONNECTION)
        for watchers in self._watched_by.values():
            for reference in [r for r, (where, _) in watchers.items() if where is transport]:
                del watchers[reference]
        for pid, partners in self._linked_by.items():
            for partner in [p for p, where in partners.items() if where is transport]:
                del partners[partner]
                if pid in self._by_pid:
                    self.deliver(pid, (Atom("EXIT"), partner, _NOCONNECTION))

    def close(self) -> None:
        """End every mailbox: the node stops."""
        for box in list(self._by_pid.values()):
            box.end_by_node(_SHUTDOWN)
        self._tell(self.caller, _SHUTDOWN)

    def _closed(self, box: Mailbox, reason: Any) -> None:
        self._by_pid.pop(box.pid, None)
        if box.name is not None:
            self._by_name.pop(Atom(box.name), None)
        self._tell(box.pid, reason)

    def _tell(self, pid: Pid, reason: Any) -> None:
        for transport, monitor in self._watched_by.pop(pid, {}).values():
            answer = MonitorPExit(
                source=monitor.to, to=monitor.source, reference=monitor.reference, reason=reason
            )
            _send(transport, answer)
        partners = dict(self._linked_by.pop(pid, {}))
        for source, target in [key for key in self._links if key[0] == pid]:
            watch = self._links.pop((source, target))
            peer = self._peer(watch.node)
            if peer is not None:
                partners[target] = peer
        for partner, transport in partners.items():
            _send(transport, Exit(source=pid, to=partner, reason=reason))
        for reference in [r for r, watch in self._monitors.items() if watch.source == pid]:
            watch = self._monitors.pop(reference)
            peer = self._peer(watch.node)
            if peer is not None:
                _send(peer, DemonitorP(source=pid, to=watch.target, reference=reference))

    def _local(self, to: Pid | Atom) -> Pid | None:
        if isinstance(to, Pid):
            return to if to == self.caller or to in self._by_pid else None
        if to is _NET_KERNEL:
            return self.caller
        box = self._by_name.get(to)
        return None if box is None else box.pid

    def _monitored(self, transport: DistTransport, message: MonitorP) -> None:
        pid = self._local(message.to)
        if pid is None:
            answer = MonitorPExit(
                source=message.to, to=message.source, reference=message.reference, reason=_NOPROC
            )
            transport.send(answer)
            return
        self._watched_by.setdefault(pid, {})[message.reference] = (transport, message)

    def _net_kernel(self, transport: DistTransport, payload: Any) -> None:
        """Answer ``net_adm:ping``, the one question that every node must answer."""
        match payload:
            case (Atom() as kind, (Pid() as asker, tag), (Atom() as question, _)) if (
                kind is _GEN_CALL and question is _IS_AUTH
            ):
                answer = (tag, _YES)
                if (
                    isinstance(tag, ImproperList)
                    and list(tag.elements) == [_ALIAS]
                    and isinstance(tag.tail, Reference)
                ):
                    # By the alias, so that the runtime drops the answer when the asker has given up.
                    transport.send(AliasSend(source=self.caller, alias=tag.tail), answer)
                else:
                    transport.send(Send(to=asker), answer)
            case _:
                self.undelivered += 1


def _send(transport: DistTransport, message: ControlMessage) -> None:
    try:
        transport.send(message)
    except InvalidStateError:
        # The connection ended in the same turn; the peer learns of it by that.
        return

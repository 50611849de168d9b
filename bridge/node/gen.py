"""``gen_server`` as its callers speak to it, from both sides.

Source: OTP's ``gen`` (``do_call/4``: a monitor, ``{'$gen_call', {Pid, Tag}, Request}``, an answer
``{Tag, Reply}``; ``reply/2``: a tag with an alias is answered by the alias, which the runtime drops when the
caller has given up).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bridge.dist import AliasSend, ControlMessage, DemonitorP, MonitorP, RegSend, Send
from bridge.errors import BridgeError, InvalidStateError, NodeDownError, RemoteExitedError
from bridge.etf import Atom, ImproperList, Pid, Reference, shorten
from bridge.node.calls import Calls, Down
from bridge.node.outcomes import NOCONNECTION
from bridge.node.peer import Peer

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
_ALIAS: Final = Atom("alias")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who asked, and how the answer is told from others: ``From`` of ``handle_call/3``.

    Attributes:
        pid: the process that waits.
        tag: what its answer carries.
    """

    pid: Pid
    tag: Any
    _asked: Pid
    _send: Callable[[str, ControlMessage, Any], None]

    def reply(self, value: Any) -> None:
        """Answer; nothing tells whether it arrived. A second answer is for nobody.

        Raises:
            ConfigurationError: ``value`` is no term.
            LimitExceededError: it is too large or too deep.
        """
        alias = _alias(self.tag)
        control: ControlMessage = (
            Send(to=self.pid) if alias is None else AliasSend(source=self._asked, alias=alias)
        )
        self._send(self.pid.node.text, control, (self.tag, value))


def sender(term: Any, asked: Pid, send: Callable[[str, ControlMessage, Any], None]) -> Sender | None:
    """``{Pid, Tag}`` of a request, or ``None`` for another term.

    Args:
        term: what came with the request.
        asked: the process that was asked.
        send: sends a message to a node, if it is connected.
    """
    match term:
        case (Pid() as pid, tag):
            return Sender(pid, tag, asked, send)
    return None


def _alias(tag: Any) -> Reference | None:
    """The alias in ``[alias | Alias]`` or ``[[alias | Alias] | _]``."""
    match tag:
        case ImproperList(elements=[ImproperList() as first, *_]) | [ImproperList() as first, *_]:
            tag = first
    if isinstance(tag, ImproperList) and list(tag.elements) == [_ALIAS] and isinstance(tag.tail, Reference):
        return tag.tail
    return None


async def gen_call(
    calls: Calls,
    peer: Peer,
    node: str,
    source: Pid,
    target: Pid | Atom,
    request: Any,
    *,
    seconds: float,
    deadline: float | None,
) -> Any:
    """Ask a ``gen_server`` and wait for its reply; the monitor is given up however the wait ends.

    Raises:
        RemoteExitedError: it ended before it replied, or there is none (``noproc``).
        NodeDownError, DeadlineError, LimitExceededError, ClosedError: as for ``Calls.ask``.
    """
    monitored: list[Reference] = []
    reply: Any = None

    def send(reference: Reference) -> None:
        peer.send(MonitorP(source=source, to=target, reference=reference))
        monitored.append(reference)
        control: ControlMessage = (
            Send(to=target) if isinstance(target, Pid) else RegSend(source=source, to=target)
        )
        peer.send(control, (GEN_CALL, (source, reference), request))

    try:
        reply = await calls.ask(peer, node, f"a call to {target}", send, seconds=seconds, deadline=deadline)
    finally:
        if monitored and not isinstance(reply, Down):
            forget(peer, DemonitorP(source=source, to=target, reference=monitored[0]))
    if isinstance(reply, Down):
        raise _ended(node, target, reply.reason)
    return reply


def forget(peer: Peer, message: DemonitorP) -> None:
    """Give up a monitor, if the connection still stands; its end has ended the monitor otherwise."""
    try:
        peer.send(message)
    except InvalidStateError:
        return


def _ended(node: str, target: Pid | Atom, reason: Any) -> BridgeError:
    if reason is NOCONNECTION:
        return NodeDownError(node, f"the connection was lost before {target} replied")
    return RemoteExitedError(f"{target} on {node} ended before it replied: {shorten(reason)}", reason=reason)

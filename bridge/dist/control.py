"""Control messages between connected nodes.

Source: Erlang "Distribution Protocol", section "Protocol between Connected Nodes". The variants with a
trace token are read as those without: this side takes no part in sequential tracing. All operations of OTP
29 are here but ALTACT_SIG_SEND (37), which a peer sends only where ``ALTACT_SIG`` was agreed, and it
is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import DecodeError
from bridge.etf import Atom, Pid, Reference

_UNUSED: Final = Atom("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A message to a process (payload)."""

    to: Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class RegSend:
    """A message to a registered name (payload)."""

    source: Pid
    to: Atom


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasSend:
    """A message to an alias (payload)."""

    source: Pid
    alias: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """``source`` links itself to ``to``."""

    source: Pid
    to: Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkId:
    """``source`` undoes the link; acknowledged with the same ``id`` (1 … 2^64−1)."""

    id: int
    source: Pid
    to: Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlinkIdAck:
    """The answer to ``UnlinkId``."""

    id: int
    source: Pid
    to: Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A link broke because ``source`` ended."""

    source: Pid
    to: Pid
    reason: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit2:
    """``source`` called ``exit(to, reason)``."""

    source: Pid
    to: Pid
    reason: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLeader:
    """``to`` gets another group leader."""

    source: Pid
    to: Pid


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorP:
    """``source`` watches ``to``."""

    source: Pid
    to: Pid | Atom
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonitorP:
    """``source`` no longer watches ``to``."""

    source: Pid
    to: Pid | Atom
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorPExit:
    """What ``to`` watched has ended."""

    source: Pid | Atom
    to: Pid
    reference: Reference
    reason: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnRequest:
    """``source`` asks for a process that runs ``mfa`` (payload: the arguments)."""

    request: Reference
    source: Pid
    group_leader: Pid
    mfa: tuple[Any, ...]
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnReply:
    """The answer: ``result`` is a pid, or the reason as an atom; flags: 1 linked, 2 monitored."""

    request: Reference
    to: Pid
    flags: int
    result: Pid | Atom


ControlMessage = (
    Send
    | RegSend
    | AliasSend
    | Link
    | UnlinkId
    | UnlinkIdAck
    | Exit
    | Exit2
    | GroupLeader
    | MonitorP
    | DemonitorP
    | MonitorPExit
    | SpawnRequest
    | SpawnReply
)

WITH_PAYLOAD: Final = frozenset({2, 6, 12, 16, 22, 23, 24, 25, 26, 27, 28, 29, 30, 33, 34})
"""operations that a second term follows"""


def control_term(message: ControlMessage, *, exit_payload: bool) -> tuple[tuple[Any, ...], Any]:
    """The control tuple, and the reason to send after it where ``EXIT_PAYLOAD`` was agreed."""
    match message:
        case Send():
            return (2, _UNUSED, message.to), None
        case RegSend():
            return (6, message.source, _UNUSED, message.to), None
        case AliasSend():
            return (33, message.source, message.alias), None
        case Link():
            return (1, message.source, message.to), None
        case UnlinkId():
            return (35, message.id, message.source, message.to), None
        case UnlinkIdAck():
            return (36, message.id, message.source, message.to), None
        case Exit() | Exit2():
            plain, payload = (3, 24) if isinstance(message, Exit) else (8, 26)
            if exit_payload:
                return (payload, message.source, message.to), message.reason
            return (plain, message.source, message.to, message.reason), None
        case GroupLeader():
            return (7, message.source, message.to), None
        case MonitorP():
            return (19, message.source, message.to, message.reference), None
        case DemonitorP():
            return (20, message.source, message.to, message.reference), None
        case MonitorPExit():
            if exit_payload:
                return (28, message.source, message.to, message.reference), message.reason
            return (21, message.source, message.to, message.reference, message.reason), None
        case SpawnRequest():
            return (
                29,
                message.request,
                message.source,
                message.group_leader,
                message.mfa,
                message.options,
            ), None
        case SpawnReply():
            return (31, message.request, message.to, message.flags, message.result), None


def address_of(message: ControlMessage) -> Pid | Atom | Reference | None:
    """Whom a message is for, or ``None`` for a request to the node itself."""
    match message:
        case AliasSend():
            return message.alias
        case SpawnRequest():
            return None
        case _:
            return message.to


def parse_control_untrusted(term: Any, payload: Any) -> ControlMessage | None:
    """The message in a control tuple, or ``None`` for one that asks nothing of this side.

    Args:
        term: the decoded control tuple.
        payload: the decoded second term; the reason, for the payload variants of exit.

    Raises:
        DecodeError: not of the shape that its operation has.
    """
    if type(term) is not tuple or not term or type(term[0]) is not int:
        raise DecodeError("a control message is a tuple that starts with an integer")
    reader = _READERS.get(term[0])
    if reader is None:
        if term[0] in (4, 5):  # UNLINK without an id, which UNLINK_ID replaced; NODE_LINK
            return None
        raise DecodeError(f"control operation {term[0]} was not agreed")
    arity, read = reader
    if len(term) != arity:
        raise DecodeError(f"control operation {term[0]} has {arity} elements, not {len(term)}")
    return read(term, payload)


def _pid(term: Any) -> Pid:
    if type(term) is not Pid:
        raise DecodeError("a control message holds another term where a pid belongs")
    return term


def _reference(term: Any) -> Reference:
    if type(term) is not Reference:
        raise DecodeError("a control message holds another term where a reference belongs")
    return term


def _process(term: Any) -> Pid | Atom:
    if type(term) is Pid:
        return term
    if type(term) is not Atom and type(term) is not bool:
        raise DecodeError("a control message holds another term where a pid or a name belongs")
    return _atom(term)


def _atom(term: Any) -> Atom:
    if type(term) is bool:
        return Atom("true" if term else "false")
    if type(term) is not Atom:
        raise DecodeError("a control message holds another term where an atom belongs")
    return term


def _unlink_number(term: Any) -> int:
    if type(term) is not int or not 1 <= term < 1 << 64:
        raise DecodeError("an unlink id is 1 … 2^64−1")
    return term


def _spawn_request(t: tuple[Any, ...], _: Any) -> SpawnRequest:
    if type(t[4]) is not tuple or len(t[4]) != 3:
        raise DecodeError("a spawn request names module, function and arity")
    return SpawnRequest(
        request=_reference(t[1]), source=_pid(t[2]), group_leader=_pid(t[3]), mfa=t[4], options=t[5]
    )


def _spawn_reply(t: tuple[Any, ...], _: Any) -> SpawnReply:
    if type(t[3]) is not int:
        raise DecodeError("the flags of a spawn reply are an integer")
    return SpawnReply(request=_reference(t[1]), to=_pid(t[2]), flags=t[3], result=_process(t[4]))


def _send(t: tuple[Any, ...], _: Any) -> Send:
    return Send(to=_pid(t[2]))


def _reg_send(t: tuple[Any, ...], _: Any) -> RegSend:
    return RegSend(source=_pid(t[1]), to=_atom(t[3]))


def _alias_send(t: tuple[Any, ...], _: Any) -> AliasSend:
    return AliasSend(source=_pid(t[1]), alias=_reference(t[2]))


_Reader = Callable[[tuple[Any, ...], Any], ControlMessage]
_READERS: Final[dict[int, tuple[int, _Reader]]] = {
    1: (3, lambda t, _: Link(source=_pid(t[1]), to=_pid(t[2]))),
    2: (3, _send),
    3: (4, lambda t, _: Exit(source=_pid(t[1]), to=_pid(t[2]), reason=t[3])),
    6: (4, _reg_send),
    7: (3, lambda t, _: GroupLeader(source=_pid(t[1]), to=_pid(t[2]))),
    8: (4, lambda t, _: Exit2(source=_pid(t[1]), to=_pid(t[2]), reason=t[3])),
    12: (4, _send),
    13: (5, lambda t, _: Exit(source=_pid(t[1]), to=_pid(t[2]), reason=t[4])),
    16: (5, _reg_send),
    18: (5, lambda t, _: Exit2(source=_pid(t[1]), to=_pid(t[2]), reason=t[4])),
    19: (4, lambda t, _: MonitorP(source=_pid(t[1]), to=_process(t[2]), reference=_reference(t[3]))),
    20: (4, lambda t, _: DemonitorP(source=_pid(t[1]), to=_process(t[2]), reference=_reference(t[3]))),
    21: (
        5,
        lambda t, _: MonitorPExit(
            source=_process(t[1]), to=_pid(t[2]), reference=_reference(t[3]), reason=t[4]
        ),
    ),
    22: (3, _send),
    23: (4, _send),
    24: (3, lambda t, p: Exit(source=_pid(t[1]), to=_pid(t[2]), reason=p)),
    25: (4, lambda t, p: Exit(source=_pid(t[1]), to=_pid(t[2]), reason=p)),
    26: (3, lambda t, p: Exit2(source=_pid(t[1]), to=_pid(t[2]), reason=p)),
    27: (4, lambda t, p: Exit2(source=_pid(t[1]), to=_pid(t[2]), reason=p)),
    28: (
        4,
        lambda t, p: MonitorPExit(source=_process(t[1]), to=_pid(t[2]), reference=_reference(t[3]), reason=p),
    ),
    29: (6, _spawn_request),
    30: (7, _spawn_request),
    31: (5, _spawn_reply),
    32: (6, _spawn_reply),
    33: (3, _alias_send),
    34: (4, _alias_send),
    35: (4, lambda t, _: UnlinkId(id=_unlink_number(t[1]), source=_pid(t[2]), to=_pid(t[3]))),
    36: (4, lambda t, _: UnlinkIdAck(id=_unlink_number(t[1]), source=_pid(t[2]), to=_pid(t[3]))),
}

"""Both directions of a port, from bytes to messages and back; sans-IO.

Source: ``docs/protocol.md`` §9; Erlang ``open_port/2``, option ``{packet, 4}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import (
    ConfigurationError,
    DecodeError,
    HandshakeError,
    LimitExceededError,
    PeerLimitError,
    ProtocolError,
)
from bridge.etf import DEFAULT_LIMITS, Atom, Pid, TermLimits, decode_term_untrusted, encode_term, shorten

VERSION: Final = 1
_HELLO: Final = Atom("hello")
_REPLY: Final = Atom("reply")
_MESSAGE: Final = Atom("message")
_OK: Final = Atom("ok")
_ERROR: Final = Atom("error")
_THROW: Final = Atom("throw")
_EXIT: Final = Atom("exit")
_NODE: Final = Atom("port@nohost")
"""of the pids that stand for this side's inboxes; never a real node"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    """Ceilings of a port."""

    max_packet_bytes: int = 134_217_728
    """bytes of one packet in either direction"""
    limits: TermLimits = DEFAULT_LIMITS
    """what one received term may ask for"""
    max_pending_calls: int = 65_536
    """calls that wait at once; one more is refused. The other side runs 100,000, those it ends included"""
    mailbox_capacity: int = 100_000
    """messages that wait in one inbox; one more ends it"""
    hello_timeout: float = 30.0
    """seconds until the other side says that it is there; a virtual machine starts a store in that time"""

    def __post_init__(self) -> None:
        limits = (self.max_packet_bytes, self.max_pending_calls, self.mailbox_capacity)
        if min(limits) < 1 or self.hello_timeout <= 0:
            raise ConfigurationError("limits of a port are at least 1, its time-outs positive seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The virtual machine is there.

    Attributes:
        node: its name; ``nonode@nohost`` without a distribution.
        store: id of the store it runs, or ``None``.
        otp: its release.
    """

    node: str
    store: str | None
    otp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """A call was answered: with a value, or with what it raised."""

    id: int
    value: Any = None
    raised: tuple[Atom, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A message to one of this side's inboxes."""

    pid: Pid
    message: Any


PortEvent = Hello | Replied | Delivered


class PortConnection:
    """Sans-IO state of one port: most methods give bytes to write, ``receive_data`` gives events."""

    def __init__(self, config: PortConfig | None = None) -> None:
        self._config = config or PortConfig()
        self._buffer = bytearray()
        self._last_call = 0
        self._last_inbox = 0
        self._greeted = False

    def call(self, module: str, function: str, args: Sequence[Any]) -> tuple[int, bytes]:
        """A call's id, and what to write.

        Raises:
            ConfigurationError: an argument is no term.
            LimitExceededError: larger than ``max_packet_bytes``, or too deep.
        """
        self._last_call += 1
        request = (Atom("call"), self._last_call, Atom(module), Atom(function), list(args))
        return self._last_call, self._packet(request)

    def cast(self, module: str, function: str, args: Sequence[Any]) -> bytes:
        """What to write for a call that is not answered; raises as ``call`` does."""
        return self._packet((Atom("cast"), Atom(module), Atom(function), list(args)))

    def cancel(self, call: int) -> bytes:
        """What to write so that a call ends whose answer nobody awaits."""
        return self._packet((Atom("cancel"), call))

    def open(self) -> tuple[Pid, bytes]:
        """A pid that stands for a new inbox on the other side, and what to write."""
        self._last_inbox += 1
        pid = Pid(_NODE, self._last_inbox & 0xFFF_FFFF, self._last_inbox >> 28, 1)
        return pid, self._packet((Atom("open"), pid))

    def close(self, pid: Pid) -> bytes:
        """What to write when an inbox ends."""
        return self._packet((Atom("close"), pid))

    def receive_data(self, data: bytes) -> list[PortEvent]:
        """Take bytes of the stream, in any pieces.

        Raises:
            DecodeError, PeerLimitError, ProtocolError: the other side broke the protocol; end the port.
            HandshakeError: it speaks another version.
        """
        buffer = self._buffer
        buffer += data
        events: list[PortEvent] = []
        pos = 0
        while len(buffer) - pos >= 4:
            size = int.from_bytes(buffer[pos : pos + 4], "big")
            if size > self._config.max_packet_bytes:
                raise PeerLimitError("max_packet_bytes", self._config.max_packet_bytes, "bytes")
            if len(buffer) - pos - 4 < size:
                break
            with memoryview(buffer) as view:
                packet = bytes(view[pos + 4 : pos + 4 + size])
            events.append(self._event(decode_term_untrusted(packet, self._config.limits)))
            pos += 4 + size
        if pos:
            del buffer[:pos]
        return events

    def _event(self, term: Any) -> PortEvent:
        match term:
            case (Atom() as tag, int() as number, outcome) if tag is _REPLY and self._greeted:
                return _replied(number, outcome)
            case (Atom() as tag, Pid() as pid, message) if tag is _MESSAGE and self._greeted:
                return Delivered(pid=pid, message=message)
            case (Atom() as tag, dict() as hello) if tag is _HELLO and not self._greeted:
                self._greeted = True
                return _hello(hello)
            case _:
                raise ProtocolError(f"no message of a port, or not its turn: {shorten(term, 200)}")

    def _packet(self, term: Any) -> bytes:
        raw = encode_term(term, limits=self._config.limits)
        if len(raw) > self._config.max_packet_bytes:
            raise LimitExceededError("max_packet_bytes", self._config.max_packet_bytes, "bytes")
        return len(raw).to_bytes(4, "big") + raw


def _hello(members: dict[Any, Any]) -> Hello:
    version = members.get(Atom("version"))
    if version != VERSION:
        raise HandshakeError(
            f"the port speaks version {shorten(version, 40)} and this side {VERSION}: update one of them"
        )
    match members.get(Atom("node")), members.get(Atom("store")), members.get(Atom("otp")):
        case Atom() as node, Atom() as store, bytes() as otp:
            none = store is Atom("undefined")
            return Hello(node=str(node), store=None if none else str(store), otp=otp.decode(errors="replace"))
        case _:
            raise DecodeError("a hello names node, store and otp")


def _replied(number: int, outcome: Any) -> Replied:
    match outcome:
        case (Atom() as tag, value) if tag is _OK:
            return Replied(id=number, value=value)
        case (Atom() as kind, reason, list()) if kind in (_ERROR, _THROW, _EXIT):
            return Replied(id=number, raised=(kind, reason))
        case _:
            raise DecodeError("a reply is {ok, Value} or {Class, Reason, Stack}")

"""One distribution connection: handshake, packets and ticks, from bytes to events and back.

Source: Erlang "Distribution Protocol", sections "Distribution Handshake" and "Protocol between Connected
Nodes" (pass-through packets; an empty one is a tick); ``net_ticktime`` in the kernel application's reference.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from bridge.dist.control import WITH_PAYLOAD, ControlMessage, Send, control_term, parse_control_untrusted
from bridge.dist.events import Connected, Disconnected, DistEvent, HandshakeFailed, NameReceived, Received
from bridge.dist.flags import DistFlag
from bridge.dist.handshake import (
    Failure,
    Handshake,
    HandshakeRejectedError,
    Identity,
    Role,
    State,
    Status,
)
from bridge.errors import (
    ConfigurationError,
    DecodeError,
    InvalidStateError,
    LimitExceededError,
    ProtocolError,
)
from bridge.etf import DEFAULT_LIMITS, TermLimits, decode_prefix_untrusted, encode_term

_PASS_THROUGH: Final = b"p"
_TICK: Final = bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistConfig:
    """How a connection behaves."""

    net_ticktime: float = 60.0
    """seconds of silence after which the peer is down; the same on all nodes of a cluster (OTP's default)"""
    handshake_timeout: float = 7.0
    """seconds for the whole handshake (OTP's ``net_setuptime``)"""
    max_handshake_bytes: int = 2_048
    """bytes of one handshake frame; a name has at most 255 characters"""
    max_packet_bytes: int = 134_217_728
    """bytes of one packet; more than this from a peer ends the connection"""
    handshake_length_bytes: int = 2
    """bytes of the length before a handshake frame: 2 over TCP, 4 over TLS"""
    limits: TermLimits = DEFAULT_LIMITS
    """what one received term may ask for"""

    def __post_init__(self) -> None:
        if self.net_ticktime <= 0 or self.handshake_timeout <= 0:
            raise ConfigurationError("net_ticktime and handshake_timeout are positive seconds")
        if self.handshake_length_bytes not in (2, 4):
            raise ConfigurationError("handshake_length_bytes is 2 (TCP) or 4 (TLS)")


class DistConnection:
    """Sans-IO state of one connection.

    After each of ``receive_data``, ``receive_eof``, ``handle_timer``, ``answer_name`` and ``send*`` the
    caller writes ``data_to_send``, sets its timer by ``get_timer`` and takes ``next_event`` until ``None``.
    Times are absolute monotonic seconds. Close after ``HandshakeFailed`` or ``Disconnected``.

    Args:
        role: who dialled.
        identity: who we are.
        challenge: 32 unguessable bits for this connection alone.
        now: the time.
        peer: the node dialled.
    """

    def __init__(
        self,
        role: Role,
        identity: Identity,
        *,
        challenge: int,
        now: float,
        config: DistConfig | None = None,
        peer: str | None = None,
    ) -> None:
        self._config = config or DistConfig()
        self._handshake = Handshake(role, identity, challenge=challenge, peer=peer)
        self._buffer = bytearray()
        self._outbox: list[bytes] = []
        self._unsent = 0
        self._events: deque[DistEvent] = deque()
        self._connected = False
        self._ended = False
        self._deadline = now + self._config.handshake_timeout
        self._last_sent = now
        self._last_received = now
        self._exit_payload = False
        # The newest send's control message: all answers to one process begin with the same bytes, and since
        # an encoded term tells its own end, equal bytes are an equal term.
        self._usual: Send | None = None
        self._usual_bytes = b""
        self._handshake.start()
        self._flush_handshake()

    @property
    def peer(self) -> str | None:
        """The other node's name, once dialled or told."""
        return self._handshake.peer

    @property
    def connected(self) -> bool:
        """Whether messages may be sent."""
        return self._connected and not self._ended

    @property
    def last_received(self) -> float:
        """When bytes last came; before any, when it was made."""
        return self._last_received

    @property
    def bytes_to_send(self) -> int:
        """Bytes that ``data_to_send`` would give."""
        return self._unsent

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take bytes of the stream, in any pieces."""
        if self._ended:
            return
        self._last_received = now
        buffer = self._buffer
        if self._connected and not buffer:
            used = self._packets(data)
            if used < len(data):
                buffer += data[used:]
            return
        buffer += data
        if not self._connected:
            self._handshake_frames(now)
        if self._connected and not self._ended:
            used = self._packets(buffer)
            if used:
                del buffer[:used]

    def receive_eof(self, *, now: float) -> None:
        """The peer closed the stream."""
        del now
        if self._ended:
            return
        if self._connected:
            self._end(Disconnected(detail="the peer closed the connection"))
            return
        state = self._handshake.state
        if state in (State.WAIT_CHALLENGE_ACK, State.WAIT_CHALLENGE_REPLY):
            self._fail(
                Failure.CLOSED_AFTER_CHALLENGE,
                "the peer closed after the challenge: most likely the cookies differ; "
                "give both nodes the same one",
            )
        else:
            self._fail(Failure.CLOSED, f"the peer closed the connection in {state.name}")

    def handle_timer(self, *, now: float) -> None:
        """The time of ``get_timer`` has come (an early call does no harm)."""
        if self._ended:
            return
        if not self._connected:
            if now >= self._deadline:
                self._fail(
                    Failure.TIMEOUT,
                    f"no handshake within {self._config.handshake_timeout} s; is it an Erlang node?",
                )
            return
        ticktime = self._config.net_ticktime
        # OTP looks four times in a ticktime and so waits up to 1.25 of it; so does this side.
        if now - self._last_received >= 1.25 * ticktime:
            self._end(Disconnected(detail=f"nothing received for {1.25 * ticktime:g} s (net_ticktime)"))
        elif now - self._last_sent >= ticktime / 4:
            self._queue(_TICK)
            self._last_sent = now

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``."""
        if self._ended:
            return None
        if not self._connected:
            return self._deadline
        ticktime = self._config.net_ticktime
        return min(self._last_sent + ticktime / 4, self._last_received + 1.25 * ticktime)

    def data_to_send(self) -> list[bytes]:
        """What to write, in order; drains."""
        outbox = self._outbox
        self._outbox = []
        self._unsent = 0
        return outbox

    def next_event(self) -> DistEvent | None:
        """The next event, or ``None``."""
        return self._events.popleft() if self._events else None

    def answer_name(self, status: Status, *, now: float) -> None:
        """Decide about the peer of ``NameReceived``."""
        del now
        try:
            self._handshake.answer_name(status)
        except HandshakeRejectedError as refusal:
            self._flush_handshake()
            self._fail(refusal.failure, refusal.detail)
            return
        self._flush_handshake()

    def send(self, message: ControlMessage, payload: Any = None, *, now: float) -> None:
        """Send a control message, with its payload where its kind has one.

        Raises:
            InvalidStateError: not connected.
            ConfigurationError: something in it is no term.
            LimitExceededError: it is larger than ``max_packet_bytes``, or too deep.
        """
        control, reason = control_term(message, exit_payload=self._exit_payload)
        if control[0] in WITH_PAYLOAD:
            self.send_encoded(
                encode_term(control), encode_term(payload if reason is None else reason), now=now
            )
        else:
            self.send_encoded(encode_term(control), b"", now=now)

    def send_encoded(self, control: bytes, payload: bytes, *, now: float) -> None:
        """Like ``send`` with both terms encoded already, for callers that keep parts of them."""
        if not self._connected or self._ended:
            raise InvalidStateError("the connection does not stand")
        size = 1 + len(control) + len(payload)
        if size > self._config.max_packet_bytes:
            raise LimitExceededError("max_packet_bytes", self._config.max_packet_bytes, "bytes")
        self._last_sent = now
        if len(payload) < 65_536:
            self._queue(size.to_bytes(4, "big") + _PASS_THROUGH + control + payload)
        else:
            # Joining would copy what is large.
            self._queue(size.to_bytes(4, "big") + _PASS_THROUGH + control)
            self._queue(payload)

    def _queue(self, chunk: bytes) -> None:
        self._outbox.append(chunk)
        self._unsent += len(chunk)

    def _handshake_frames(self, now: float) -> None:
        width = self._config.handshake_length_bytes
        buffer = self._buffer
        while not self._connected and not self._ended and len(buffer) >= width:
            size = int.from_bytes(buffer[:width], "big")
            if size > self._config.max_handshake_bytes:
                self._fail(Failure.MALFORMED, f"a handshake frame of {size} bytes; is it an Erlang node?")
                return
            if len(buffer) < width + size:
                return
            frame = bytes(buffer[width : width + size])
            del buffer[: width + size]
            try:
                self._handshake.receive_frame(frame)
            except HandshakeRejectedError as refusal:
                self._flush_handshake()
                self._fail(refusal.failure, refusal.detail)
                return
            self._flush_handshake()
            self._after_frame(now)

    def _after_frame(self, now: float) -> None:
        handshake = self._handshake
        peer = handshake.peer or ""
        if handshake.state is State.WAIT_DECISION:
            self._events.append(NameReceived(peer=peer, creation=handshake.peer_creation))
        elif handshake.state is State.CONNECTED:
            self._connected = True
            self._last_sent = now
            self._exit_payload = DistFlag.EXIT_PAYLOAD in handshake.peer_flags
            self._events.append(
                Connected(peer=peer, creation=handshake.peer_creation, flags=handshake.peer_flags)
            )

    def _flush_handshake(self) -> None:
        width = self._config.handshake_length_bytes
        for frame in self._handshake.outbox:
            self._queue(len(frame).to_bytes(width, "big") + frame)
        self._handshake.outbox.clear()

    def _packets(self, data: bytes | bytearray) -> int:
        """Take all whole packets; gives how many bytes they were."""
        pos = 0
        size = len(data)
        while size - pos >= 4:
            length = int.from_bytes(data[pos : pos + 4], "big")
            if length == 0:
                pos += 4
                continue
            if length > self._config.max_packet_bytes:
                self._end_by(LimitExceededError("max_packet_bytes", self._config.max_packet_bytes, "bytes"))
                return size
            end = pos + 4 + length
            if end > size:
                break
            try:
                self._packet(bytes(memoryview(data)[pos + 4 : end]))
            except ProtocolError as error:
                self._end_by(error)
                return size
            pos = end
        return pos

    def _packet(self, packet: bytes) -> None:
        if packet[0] != 112:
            raise DecodeError(f"a packet of kind {packet[0]}; only pass-through (112) was agreed")
        limits = self._config.limits
        payload: Any = None
        if self._usual is not None and packet.startswith(self._usual_bytes, 1):
            payload, end = decode_prefix_untrusted(packet, 1 + len(self._usual_bytes), limits)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
            self._events.append(Received(control=self._usual, payload=payload))
            return
        term, end = decode_prefix_untrusted(packet, 1, limits)
        after = end
        if end < len(packet):
            payload, end = decode_prefix_untrusted(packet, end, limits)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
        elif type(term) is tuple and term and term[0] in WITH_PAYLOAD:
            raise DecodeError("the payload is missing")
        control = parse_control_untrusted(term, payload)
        if type(control) is Send:
            self._usual, self._usual_bytes = control, packet[1:after]
        if control is not None:
            self._events.append(Received(control=control, payload=payload))

    def _end_by(self, error: ProtocolError) -> None:
        self._end(Disconnected(detail=f"the peer broke the protocol: {error}", error=error))

    def _end(self, event: DistEvent) -> None:
        self._ended = True
        self._buffer.clear()
        self._events.append(event)

    def _fail(self, failure: Failure, detail: str) -> None:
        self._handshake.fail()
        self._end(HandshakeFailed(failure=failure, detail=detail))

"""One distribution connection: handshake, ticks and what is sent, from bytes to events and back.

Source: Erlang "Distribution Protocol", section "Distribution Handshake"; "External Term Format", section
"Distribution Header"; ``net_ticktime`` in the kernel application's reference.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from bridge.dist.config import DistConfig
from bridge.dist.control import (
    WITH_PAYLOAD,
    ControlMessage,
    address_of,
    control_term,
)
from bridge.dist.events import (
    Connected,
    Disconnected,
    DistEvent,
    HandshakeFailed,
    NameReceived,
)
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
from bridge.dist.outbox import LARGE, PORTION, Address, Outbox
from bridge.dist.packets import Packets
from bridge.errors import (
    InvalidStateError,
    LimitExceededError,
    ProtocolError,
)
from bridge.etf import (
    Pid,
    encode_bare,
)

_TICK: Final = bytes(4)
_NO_REFERENCES: Final = b"\x83D\x00"
"""a distribution header without atoms; see ``bridge.dist.headers`` for why there are none"""
_JOINED_BYTES: Final = 16_384
"""bytes of a packet's beginning that are joined with what comes next; of a longer one that would be slow"""


class DistConnection:
    """Sans-IO state of one connection.

    After each of ``receive_data``, ``receive_eof``, ``handle_timer``, ``answer_name`` and ``send*`` the
    caller writes ``data_to_send``, sets its timer by ``get_timer`` and takes ``next_event`` until ``None``.
    Times are absolute monotonic seconds. Close after ``HandshakeFailed`` or ``Disconnected``.

    Large messages go out in portions, so that small ones get in between. While ``wants_to_send``, the caller
    calls ``data_to_send`` again as soon as the socket has taken what was given before; until it has, it
    calls ``data_to_send(portion=0)``, which gives the small ones alone.

    Large payloads are decoded in steps: while ``unfinished``, the caller calls ``decode_on`` once in each turn
    of its loop, and does so after ``receive_data`` too. While it is not ``receptive``, it reads no more.
    Messages keep their order for each process; answers are told as soon as they are decoded.

    Args:
        role: who dialled.
        identity: who we are.
        challenge: 32 unguessable bits for this connection alone.
        now: the time.
        peer: the node dialled.
        answers_to: a process of ours that sends requests with references of three words. Once a first
            ``{Reference, Result}`` to it has come as ``Received``, those like it come as ``Answered``, which
            costs less.

    Attributes:
        take_answers: gives what ``Answered`` would hold, where that is the only event; else ``None``, and
            ``next_event`` has all. For a caller that asks one thing at a time, which needs no event for that.
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
        answers_to: Pid | None = None,
    ) -> None:
        self._config = config or DistConfig()
        self._handshake = Handshake(role, identity, challenge=challenge, peer=peer)
        self._buffer = bytearray()
        self._outbox = Outbox()
        self._events: deque[DistEvent] = deque()
        self._connected = False
        self._ended = False
        self._deadline = now + self._config.handshake_timeout
        self._last_sent = now
        self._last_received = now
        self._exit_payload = False
        self._headers = False
        self._fragments = False
        self._alone_bytes = min(LARGE, self._config.max_packet_bytes)
        self._packets = Packets(self._config, answers_to, self._events)
        self.take_answers = self._packets.take_answers
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
        """Bytes that ``data_to_send`` would give now."""
        return self._outbox.bytes_at_once

    @property
    def wants_to_send(self) -> int:
        """How many messages wait for ``data_to_send``: large ones, and those that stay behind them."""
        return self._outbox.waiting

    @property
    def receptive(self) -> bool:
        """Whether more is to be read: what waits to be decoded is less than one message may be."""
        return self._packets.receptive

    @property
    def unfinished(self) -> bool:
        """Whether messages wait to be decoded."""
        return self._packets.unfinished

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take bytes of the stream, in any pieces."""
        if self._ended:
            return
        self._last_received = now
        buffer = self._buffer
        if self._connected and len(buffer) <= _JOINED_BYTES:
            # The shorter way of answers, and slices that are bytes at once, are worth the copy.
            if buffer:
                data = bytes(buffer) + data
                buffer.clear()
            try:
                used = self._packets.receive_untrusted(data)
            except ProtocolError as error:
                self._end_by(error)
                return
            if used < len(data):
                buffer += memoryview(data)[used:]
            return
        buffer += data
        if not self._connected:
            self._handshake_frames(now)
        if self._connected and not self._ended:
            try:
                used = self._packets.receive_untrusted(buffer)
            except ProtocolError as error:
                self._end_by(error)
            else:
                del buffer[:used]

    def receive_eof(self, *, now: float) -> None:
        """The peer closed the stream; what came whole before is told before."""
        while self.unfinished:
            self.decode_on(now=now)
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

    def decode_on(self, *, now: float) -> None:
        """Decode one step, of a few milliseconds, of what is ``unfinished``; harmless where nothing is."""
        if not self.unfinished:
            return
        if not self.receptive:
            # Nothing is read for now, which is not the peer's silence.
            self._last_received = now
        try:
            self._packets.decode_on_untrusted()
        except ProtocolError as error:
            self._end_by(error)

    def drop_unfinished(self) -> None:
        """Tell nothing of what is not decoded: this side closes."""
        self._packets.drop_unfinished()

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
        elif now - self._last_sent >= self._config.tick_interval:
            self._outbox.put(_TICK)
            self._last_sent = now

    def get_timer(self) -> float | None:
        """When to call ``handle_timer``."""
        if self._ended:
            return None
        if not self._connected:
            return self._deadline
        config = self._config
        return min(self._last_sent + config.tick_interval, self._last_received + 1.25 * config.net_ticktime)

    def data_to_send(self, *, portion: int | None = PORTION) -> list[bytes]:
        """What to write, in order: every small message, then a portion of the large ones.

        Args:
            portion: bytes of large messages, up to a fragment more; ``None``: all of them, before a close.
        """
        return self._outbox.take(portion)

    def next_event(self) -> DistEvent | None:
        """The next event, or ``None``."""
        if not self._events:
            self._packets.report_answers()
        return self._events.popleft() if self._events else None

    def answer_name(self, status: Status, *, now: float) -> None:
        """Decide about the peer of ``NameReceived``; of no effect where the connection has ended since."""
        del now
        if self._ended:
            return
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
        encoded = b""
        if control[0] in WITH_PAYLOAD:
            encoded = encode_bare(payload if reason is None else reason)
        self.send_encoded(encode_bare(control), encoded, now=now, to=address_of(message))

    def send_encoded(self, control: bytes, payload: bytes, *, now: float, to: Address | None = None) -> int:
        """Like ``send`` with both terms encoded already, for callers that keep parts of them.

        Args:
            control: the control tuple by ``encode_bare``.
            payload: the second term likewise; empty where the kind has none.
            now: the time.
            to: whom it is for: it keeps its place behind large messages to the same process. Without it, it
                overtakes them and is overtaken: calls, of which each stands for a process of its own.

        Returns:
            ``bytes_to_send``, which senders look at each time.

        Raises:
            InvalidStateError: not connected.
            LimitExceededError: it is larger than ``max_packet_bytes``.
        """
        if not self._connected or self._ended:
            raise InvalidStateError("the connection does not stand")
        size = 3 + len(control) + len(payload)
        if size > self._config.max_packet_bytes:
            raise LimitExceededError("max_packet_bytes", self._config.max_packet_bytes, "bytes")
        self._last_sent = now
        outbox = self._outbox
        if self._fragments and len(payload) > LARGE:
            outbox.put_large(control, payload, to)
            return outbox.bytes_at_once
        if self._headers:
            head = size.to_bytes(4, "big") + _NO_REFERENCES + control
        elif payload:
            head = size.to_bytes(4, "big") + b"p\x83" + control + b"\x83"
        else:
            head = (size - 1).to_bytes(4, "big") + b"p\x83" + control
        if len(payload) > LARGE:
            # Nothing waits where there are no fragments; and joining would copy what is large.
            outbox.put(head)
            return outbox.put(payload)
        if to is not None and outbox.waiting and outbox.must_wait(to):
            outbox.put_behind(head + payload, to)
            return outbox.bytes_at_once
        return outbox.put(head + payload)

    def packet_alone(self, control: bytes, payload: bytes, *, now: float) -> bytes | None:
        """The packet of a small message that nothing waits before: the caller writes it, past the outbox.

        Returns:
            ``None`` where it has to go by ``send_encoded``, also if that would refuse it.
        """
        size = 3 + len(control) + len(payload)
        if size > self._alone_bytes or self._outbox.ready or not self._headers or self._ended:
            return None
        self._last_sent = now
        return size.to_bytes(4, "big") + _NO_REFERENCES + control + payload

    def _handshake_frames(self, now: float) -> None:
        width = self._config.handshake_length_bytes
        buffer = self._buffer
        while not self._connected and not self._ended and len(buffer) >= width:
            size = int.from_bytes(buffer[:width], "big")
            if size > self._config.max_handshake_bytes:
                self._fail(Failure.MALFORMED, _what_speaks(buffer, size))
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
            agreed = handshake.agreed_flags
            self._exit_payload = DistFlag.EXIT_PAYLOAD in agreed
            self._fragments = DistFlag.FRAGMENTS in agreed
            # Either brings the headers, as in erts: fragments have one.
            self._headers = self._fragments or DistFlag.DIST_HDR_ATOM_CACHE in agreed
            self._packets.agree(headers=self._headers, fragments=self._fragments)
            self._events.append(
                Connected(peer=peer, creation=handshake.peer_creation, flags=handshake.peer_flags)
            )

    def _flush_handshake(self) -> None:
        width = self._config.handshake_length_bytes
        for frame in self._handshake.outbox:
            self._outbox.put(len(frame).to_bytes(width, "big") + frame)
        self._handshake.outbox.clear()

    def _end_by(self, error: ProtocolError) -> None:
        self._end(Disconnected(detail=f"the peer broke the protocol: {error}", error=error))

    def _end(self, event: DistEvent) -> None:
        self._ended = True
        self._packets.end()
        self._buffer = bytearray()  # not cleared: a packet in it may be looked at
        self._outbox.clear()
        self._events.append(event)

    def _fail(self, failure: Failure, detail: str) -> None:
        self._handshake.fail()
        self._end(HandshakeFailed(failure=failure, detail=detail))


def _what_speaks(start: bytearray, size: int) -> str:
    # An alert or a greeting of TLS, of any version, where a length belongs.
    if start[0] in (21, 22) and start[1] == 3:
        return (
            "the peer speaks TLS (-proto_dist inet_tls) and this node does not: "
            "give both of them certificates"
        )
    return f"a handshake frame of {size} bytes; is it an Erlang node?"

"""One distribution connection: handshake, packets and ticks, from bytes to events and back.

Source: Erlang "Distribution Protocol", sections "Distribution Handshake" and "Protocol between Connected
Nodes" (an empty packet is a tick); "External Term Format", section "Distribution Header"; ``net_ticktime`` in
the kernel application's reference. Where both sides have distribution headers (atom cache, fragments), every
packet has one; else every packet is a pass-through one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from bridge.dist.control import (
    WITH_PAYLOAD,
    ControlMessage,
    Send,
    address_of,
    control_term,
    parse_control_untrusted,
)
from bridge.dist.events import (
    Answered,
    Connected,
    Disconnected,
    DistEvent,
    HandshakeFailed,
    NameReceived,
    Received,
)
from bridge.dist.flags import DistFlag
from bridge.dist.fragments import Assembler, FragmentedMessage
from bridge.dist.handshake import (
    Failure,
    Handshake,
    HandshakeRejectedError,
    Identity,
    Role,
    State,
    Status,
)
from bridge.dist.headers import AtomCache, Atoms, size_without_new_atoms
from bridge.dist.outbox import LARGE, PORTION, Address, Outbox
from bridge.dist.unfinished import AT_ONCE, Unfinished
from bridge.errors import (
    ConfigurationError,
    DecodeError,
    InvalidStateError,
    LimitExceededError,
    PeerLimitError,
    ProtocolError,
)
from bridge.etf import (
    DEFAULT_LIMITS,
    Pid,
    TermLimits,
    decode_bare_untrusted,
    decode_prefix_untrusted,
    encode_bare,
)

_TICK: Final = bytes(4)
_NO_REFERENCES: Final = b"\x83D\x00"
"""a distribution header without atoms; see ``bridge.dist.headers`` for why there are none"""
_ANSWER_HEADS: Final = 8
"""beginnings of answers that are tried; each shape of a result may have a header of its own"""
_JOINED_BYTES: Final = 16_384
"""bytes of a packet's beginning that are joined with what comes next; of a longer one that would be slow"""
_USUAL_BYTES: Final = 4_096
"""bytes that a remembered beginning may have; the header of a usual one has tens, and the peer chooses it"""
_USUAL_HEADERS: Final = 256
"""headers whose newest send is remembered; the peer chooses them, so there is a ceiling"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistConfig:
    """How a connection behaves."""

    net_ticktime: float = 60.0
    """seconds of silence after which the peer is down; the same on all nodes of a cluster (OTP's default)"""
    max_tick_interval: float = 2.0
    """seconds between ticks at most, however long ``net_ticktime`` is here: a handshake does not tell the
    peer's, and a homeserver, whose is 8 s, takes a side that is silent for longer than 6 s for one that is down"""
    handshake_timeout: float = 7.0
    """seconds for the whole handshake (OTP's ``net_setuptime``)"""
    max_handshake_bytes: int = 2_048
    """bytes of one handshake frame; a name has at most 255 characters"""
    max_packet_bytes: int = 134_217_728
    """bytes of one packet, and of one message that came in fragments; more ends the connection"""
    max_sequences: int = 1_024
    """messages of a peer that are on their way in fragments at once; each is a process of its own"""
    max_held_bytes: int = 536_870_912
    """bytes of all messages on their way in fragments: four of the largest"""
    handshake_length_bytes: int = 2
    """bytes of the length before a handshake frame: 2 over TCP, 4 over TLS"""
    limits: TermLimits = DEFAULT_LIMITS
    """what one received term may ask for"""

    def __post_init__(self) -> None:
        if min(self.net_ticktime, self.max_tick_interval, self.handshake_timeout) <= 0:
            raise ConfigurationError(
                "net_ticktime, max_tick_interval and handshake_timeout are positive seconds"
            )
        if self.handshake_length_bytes not in (2, 4):
            raise ConfigurationError("handshake_length_bytes is 2 (TCP) or 4 (TLS)")
        if min(self.max_packet_bytes, self.max_sequences, self.max_held_bytes) < 1:
            raise ConfigurationError("a limit is at least 1")

    @property
    def tick_interval(self) -> float:
        """Seconds of this side's silence after which it ticks.

        OTP's ``net_kernel`` ticks four times in a ``net_ticktime`` and gives a peer up at the fourth of its own
        ticks in a row before which nothing came: after three quarters of its ``net_ticktime`` at the soonest.
        """
        return min(self.net_ticktime / 4, self.max_tick_interval)


@dataclass(frozen=True, slots=True)
class _Usual:
    """The beginning of packets that bring messages to one process."""

    prefix: bytes
    size: int
    control: Send
    atoms: Atoms


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
        unfinished: whether messages wait to be decoded.
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
        self._limits = self._config.limits
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
        self._cache = AtomCache()
        self._assembler = Assembler(
            max_message_bytes=self._config.max_packet_bytes,
            max_sequences=self._config.max_sequences,
            max_held_bytes=self._config.max_held_bytes,
        )
        # By header, the newest send's bytes up to its payload: all answers to one process begin alike, and
        # since an encoded term tells its own end, equal bytes are an equal term. A header with new atoms is
        # never a key: its flags say so.
        self._usual: dict[bytes, _Usual] = {}
        self._answers_to = answers_to
        # Beginnings of such packets, up to the words of the reference: beginning, its size, atoms.
        self._answer_heads: list[tuple[bytes, int, Atoms]] = []
        self._answers: list[tuple[bytes, Any]] = []
        self._unfinished = Unfinished(answers_to)
        self.unfinished = False
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
        return self._unfinished.held_bytes < self._config.max_packet_bytes

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
            used = self._packets(data)
            if used < len(data) and not self._ended:
                buffer += memoryview(data)[used:]
            return
        buffer += data
        if not self._connected:
            self._handshake_frames(now)
        if self._connected and not self._ended:
            used = self._packets(buffer)
            if used and not self._ended:
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
            self._events.extend(self._unfinished.step_untrusted())
        except ProtocolError as error:
            self._end_by(error)
            return
        self.unfinished = len(self._unfinished) > 0

    def drop_unfinished(self) -> None:
        """Tell nothing of what is not decoded: this side closes."""
        self._unfinished.clear()
        self.unfinished = False

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
            self._report_answers()
        return self._events.popleft() if self._events else None

    def take_answers(self) -> list[tuple[bytes, Any]] | None:
        """What ``Answered`` would hold, where that is the only event; else ``None``, and ``next_event`` has all.

        For a caller that asks one thing at a time, which needs no event for that.
        """
        if self._events or not self._answers or self.unfinished:
            return None
        answers, self._answers = self._answers, []
        return answers

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
            self._events.append(
                Connected(peer=peer, creation=handshake.peer_creation, flags=handshake.peer_flags)
            )

    def _flush_handshake(self) -> None:
        width = self._config.handshake_length_bytes
        for frame in self._handshake.outbox:
            self._outbox.put(len(frame).to_bytes(width, "big") + frame)
        self._handshake.outbox.clear()

    def _report_answers(self) -> None:
        if self._answers:
            self._events.append(Answered(answers=self._answers))
            self._answers = []

    def _packets(self, data: bytes | bytearray) -> int:
        """Take all whole packets; gives how many bytes they were."""
        pos = 0
        size = len(data)
        # Answers are read in place, where a limit of a term's bytes would count all that follows it.
        in_place = type(data) is bytes and size <= self._limits.max_bytes
        heads = self._answer_heads if in_place else []
        while size - pos >= 4:
            length = int.from_bytes(data[pos : pos + 4], "big")
            if length == 0:
                pos += 4
                continue
            if length > self._config.max_packet_bytes:
                self._end_by(PeerLimitError("max_packet_bytes", self._config.max_packet_bytes, "bytes"))
                return size
            end = pos + 4 + length
            if end > size:
                break
            try:
                if heads and self._answer(data, pos + 4, end):
                    pos = end
                    continue
                if self._answers:
                    # What comes after an answer is told after it: the end of the process that gave it, say.
                    self._report_answers()
                if length > 1 and data[pos + 5] == 70 and self._headers:
                    self._next_fragment(memoryview(data)[pos + 4 : end])
                elif type(data) is bytes:
                    self._packet(data[pos + 4 : end])
                else:
                    self._packet(bytes(memoryview(data)[pos + 4 : end]))
            except ProtocolError as error:
                self._end_by(error)
                return size
            pos = end
        return pos

    def _answer(self, data: Any, start: int, end: int) -> bool:
        """Take the packet between the two if it begins as an answer does."""
        for head, size, atoms in self._answer_heads:
            if data.startswith(head, start):
                at = start + size + 12
                result, after = decode_bare_untrusted(data, at, self._limits, atoms)
                if after != end:
                    raise DecodeError("an answer is larger or smaller than its packet")
                self._answers.append((data[at - 12 : at], result))
                return True
        return False

    def _learn_answer(self, packet: bytes, payload: int, atoms: Atoms) -> None:
        """Remember what a packet begins with whose payload, at ``payload``, is an answer."""
        at = payload if self._headers else payload + 1
        # A pair, and a NEWER_REFERENCE_EXT of three words; then its node, by name or by number, and creation.
        if packet[at : at + 5] != b"h\x02Z\x00\x03":
            return
        at += 5
        match packet[at]:
            case 82:
                at += 2
            case 119:
                at += 2 + packet[at + 1]
            case _:
                return
        at += 4
        if len(self._answer_heads) >= _ANSWER_HEADS:
            self._answer_heads.pop()
        self._answer_heads.insert(0, (packet[:at], at, atoms))

    def _packet(self, packet: bytes) -> None:
        if not self._headers:
            if packet[0] != 112:
                raise DecodeError(f"a packet of kind {packet[0]}; only pass-through (112) was agreed")
            self._message(packet, 1)
        elif packet[:2] == b"\x83D" and len(packet) > 2:
            start = 2 + size_without_new_atoms(packet[2])
            known = self._usual.get(packet[:start])
            if known is None or not packet.startswith(known.prefix):
                self._message(packet, start)
                return
            payload, end = decode_bare_untrusted(packet, known.size, self._limits, known.atoms)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
            if known.control.to == self._answers_to:
                self._learn_answer(packet, known.size, known.atoms)
            self._tell(Received(control=known.control, payload=payload))
        elif packet[:2] == b"\x83E" and self._fragments:
            self._first_fragment(packet)
        else:
            raise DecodeError(f"a packet that begins with {packet[:2]!r}; distribution headers were agreed")

    def _message(self, packet: bytes, start: int) -> None:
        """Take a whole message; its control message is at ``start`` unless the header has new atoms."""
        usual_header = packet[:start]
        atoms: Atoms = ()
        if self._headers:
            atoms, start = self._references(packet, 2)
        term, after = self._term(packet, start, atoms)
        payload = None
        if after < len(packet):
            payload, end = self._term(packet, after, atoms)
            if end != len(packet):
                raise DecodeError("bytes follow the payload")
        elif type(term) is tuple and term and type(term[0]) is int and term[0] in WITH_PAYLOAD:
            raise DecodeError("the payload is missing")
        control = parse_control_untrusted(term, payload)
        if type(control) is Send and start == len(usual_header) and after <= _USUAL_BYTES:
            if self._headers:
                if len(self._usual) >= _USUAL_HEADERS:
                    self._usual.clear()
                self._usual[usual_header] = _Usual(packet[:after], after, control, atoms)
            if control.to == self._answers_to:
                self._learn_answer(packet, after, atoms)
        if control is not None:
            self._tell(Received(control=control, payload=payload))

    def _references(self, packet: bytes, offset: int) -> tuple[Atoms, int]:
        replaced = self._cache.replaced
        found = self._cache.read_untrusted(packet, offset)
        if self._cache.replaced != replaced:
            # Headers seen before may mean other atoms now.
            self._usual.clear()
            self._answer_heads.clear()
        return found

    def _term(self, packet: bytes, offset: int, atoms: Atoms) -> tuple[Any, int]:
        if self._headers:
            return decode_bare_untrusted(packet, offset, self._limits, atoms)
        return decode_prefix_untrusted(packet, offset, self._limits)

    def _first_fragment(self, packet: bytes) -> None:
        sequence, fragment = _fragment_numbers(packet)
        atoms, start = self._references(packet, 18)
        limits = self._limits
        term, after = decode_bare_untrusted(packet, start, limits, atoms)
        parse_control_untrusted(term, None)  # before the rest of it is waited for
        message = FragmentedMessage(term, atoms, fragment, packet[after:], limits)
        self._fragmented(self._assembler.start(sequence, message))

    def _next_fragment(self, packet: memoryview) -> None:
        if packet[0] != 131:
            raise DecodeError(f"a packet of kind {packet[0]}; distribution headers were agreed")
        self._fragmented(self._assembler.add(*_fragment_numbers(packet), packet[18:]))

    def _fragmented(self, message: FragmentedMessage | None) -> None:
        if message is None:
            return
        if message.size > AT_ONCE and not message.expected:
            self._unfinished.put_large(message, parse_control_untrusted(message.control, None))
            self.unfinished = True
            return
        payload = message.payload_untrusted() if message.size or message.control[0] in WITH_PAYLOAD else None
        control = parse_control_untrusted(message.control, payload)
        if control is not None:
            self._tell(Received(control=control, payload=payload))

    def _tell(self, event: Received) -> None:
        if self.unfinished and self._unfinished.must_wait(event.control):
            self._unfinished.put_behind(event)
        else:
            self._events.append(event)

    def _end_by(self, error: ProtocolError) -> None:
        self._end(Disconnected(detail=f"the peer broke the protocol: {error}", error=error))

    def _end(self, event: DistEvent) -> None:
        self._ended = True
        self._report_answers()
        self._buffer = bytearray()  # not cleared: a packet in it may be looked at
        self._assembler.clear()
        self.drop_unfinished()
        self._outbox.clear()
        self._events.append(event)

    def _fail(self, failure: Failure, detail: str) -> None:
        self._handshake.fail()
        self._end(HandshakeFailed(failure=failure, detail=detail))


def _fragment_numbers(packet: bytes | memoryview) -> tuple[int, int]:
    """Sequence id and fragment id."""
    if len(packet) < 18:
        raise DecodeError("a fragment is truncated")
    return int.from_bytes(packet[2:10], "big"), int.from_bytes(packet[10:18], "big")


def _what_speaks(start: bytearray, size: int) -> str:
    # An alert or a greeting of TLS, of any version, where a length belongs.
    if start[0] in (21, 22) and start[1] == 3:
        return (
            "the peer speaks TLS (-proto_dist inet_tls) and this node does not: "
            "give both of them certificates"
        )
    return f"a handshake frame of {size} bytes; is it an Erlang node?"

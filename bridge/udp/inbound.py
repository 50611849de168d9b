"""The receiving half of a session: what datagrams bring, who hears of it, and what is dropped.

States and messages wait here for the application; acknowledgements and credit go to the sending half at once,
and so do answers that must not wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, assert_never

from bridge.errors import DecodeError, ProtocolError
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.columns import Row
from bridge.udp.config import UdpConfig
from bridge.udp.events import CloseReason, MessageReceived
from bridge.udp.evidence import Evidence, ProofVerifier
from bridge.udp.frames import (
    ACK,
    ELICITING,
    STATE,
    STATE_HEADER,
    Ack,
    Close,
    Credit,
    Frame,
    Message,
    MessageCredit,
    PathChallenge,
    PathResponse,
    Ping,
    Proof,
    Reliable,
    State,
    encode_frame,
    parse_frames_untrusted,
    told_untrusted,
)
from bridge.udp.lone import LONE_TEXT
from bridge.udp.opening import OpenedRun, Opener
from bridge.udp.outbound import Outbound
from bridge.udp.path import CHALLENGE_DATAGRAM_BYTES, PathValidation
from bridge.udp.peers import Address
from bridge.udp.reliable import ReliableReceiver
from bridge.udp.rtt import RttEstimator
from bridge.udp.stamps import StampExchange
from bridge.udp.state_inbox import StateInbox
from bridge.udp.statistics import DropReason
from bridge.udp.unordered import UnorderedReceiver
from bridge.udp.wire import (
    PROLOGUE,
)
from bridge.udp.workspace import Matrix

_WIRE_REASONS: Final = 63
_REASONS: Final = frozenset(reason.value for reason in CloseReason)
_RELIABLE_KINDS: Final = frozenset((Reliable, Message))


class Inbound:
    """Everything that comes for a session.

    Attributes:
        opener: its keys, and which sequences were taken.
        reliable: the ordered stream.
        unordered: messages without an order.
        states: those that wait for the application.
        may_have_messages: whether :meth:`next_message` may give one.
        last_received: when the last datagram came, monotonic seconds.
        datagrams: that were taken, of so many ``bytes``.
        address_changes: how often the peer proved another address.
        drops: what went no further, and why.
    """

    __slots__ = (
        "_acknowledger",
        "_closed",
        "_outbound",
        "_path",
        "_peer",
        "_random_bytes",
        "_row",
        "_rtt",
        "_stamps",
        "_takes_unordered",
        "_verifier",
        "_violated",
        "address_changes",
        "bytes",
        "datagrams",
        "drops",
        "last_received",
        "may_have_messages",
        "opener",
        "reliable",
        "states",
        "unordered",
    )

    def __init__(
        self,
        config: UdpConfig,
        *,
        peer: str,
        session_id: bytes,
        opener: Opener,
        reliable: ReliableReceiver,
        unordered: UnorderedReceiver,
        acknowledger: Acknowledger,
        outbound: Outbound,
        stamps: StampExchange,
        rtt: RttEstimator,
        verifier: ProofVerifier | None,
        random_bytes: Callable[[int], bytes],
        violated: Callable[[str], None],
        closed: Callable[[CloseReason, str], None],
        now: float,
        row: Row,
    ) -> None:
        """Begin with nothing received.

        Args:
            peer: its name.
            outbound: the sending half.
            verifier: of the peer's proofs, in a signed session.
            violated: called with what is wrong where the peer does what the protocol does not allow.
            closed: called with the peer's reason and text when it ends the session.
            row: of the session, that which its other parts have.
        """
        self._peer = peer
        self.opener = opener
        self.reliable = reliable
        self.unordered = unordered
        self._acknowledger = acknowledger
        self._outbound = outbound
        self._stamps = stamps
        self._rtt = rtt
        self._verifier = verifier
        self._random_bytes = random_bytes
        self._violated = violated
        self._closed = closed
        self._row = row
        self._path = PathValidation()
        self.drops: Counter[DropReason] = Counter()
        self.states = StateInbox(
            peer=peer,
            session_id=session_id,
            max_streams=config.max_state_streams,
            maximum=config.max_pending_states,
            verifier=verifier,
            keep_evidence=config.keep_evidence,
            drops=self.drops,
        )
        self.may_have_messages = False
        self._takes_unordered = False
        self.last_received = now
        self.datagrams = 0
        self.bytes = 0
        self.address_changes = 0

    def receive_datagram(
        self, data: bytes | memoryview, address: Address, *, now: float
    ) -> DropReason | None:
        """Take a datagram that carries our connection id.

        Args:
            data: header included; not kept.
            address: where it came from.

        Returns:
            Why it was dropped, or ``None``.
        """
        if self._outbound.is_closed:
            return self._drop(DropReason.CLOSED)
        opened = self.opener.open(data, now=now)
        if not isinstance(opened, tuple):
            return self._drop(opened)
        sequence, plaintext = opened
        length = len(plaintext) - LONE_TEXT.size
        kind = plaintext[PROLOGUE.size] if length >= 0 else 0
        if kind == STATE and self._verifier is None:
            stamp, echo, hold, _, stream, number, said = LONE_TEXT.unpack_from(plaintext)
            if said == length and address == self._row.columns.addresses[self._row.index]:
                # What a round trip waits for: as below, without the objects that tell kinds of frames apart.
                if sequence > self.opener.replay.largest:
                    self._stamps.receive(stamp, echo, hold, now=now)
                self.opener.replay.mark(sequence)
                self.last_received = now
                self.datagrams += 1
                self.bytes += len(data)
                self.states.accept(stream, number, plaintext[LONE_TEXT.size :], echo, None, now=now)
                if self._acknowledger.note(urgent=False, now=now):
                    self._outbound.emit_frame(self._acknowledger.frames(), now=now)
                return None
        if kind == ACK and self._take_answer(sequence, len(data), plaintext, address, now=now):
            return None
        return self._take(sequence, len(data), plaintext, address, now=now)

    def _take_answer(
        self, sequence: int, size: int, plaintext: bytes, address: Address, *, now: float
    ) -> bool:
        """Take what tells of what came to the peer, alone or with one state behind it.

        What players answer to each tick: the same as :meth:`_take` would make of it, in half the time.

        Returns:
            Whether it was that, from where the peer is known to be; else nothing is done.
        """
        told = told_untrusted(plaintext, PROLOGUE.size)
        if told is None or address != self._row.columns.addresses[self._row.index]:
            return False
        largest, bits, received, limit, messages, end = told
        payload: bytes | None = None
        stream = number = 0
        if end < len(plaintext):
            if self._verifier is not None or len(plaintext) < end + STATE_HEADER.size:
                return False
            kind, stream, number, said = STATE_HEADER.unpack_from(plaintext, end)
            payload = plaintext[end + STATE_HEADER.size :]
            if kind != STATE or said != len(payload):
                return False
        replay, outbound = self.opener.replay, self._outbound
        is_newest = sequence > replay.largest
        replay.mark(sequence)
        self.last_received = now
        self.datagrams += 1
        self.bytes += size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintext)
        if is_newest:
            self._stamps.receive(stamp, echo, hold, now=now)
        try:
            outbound.messages.reliable.update(received, limit)
            if messages is not None:
                outbound.messages.unordered.update(*messages)
            if payload is not None:
                self.states.accept(stream, number, payload, echo, None, now=now)
            outbound.on_ack(largest, bits, now=now)
        except ProtocolError as error:
            self._violated(str(error))
        else:
            if payload is not None:
                self._note_eliciting(urgent=False, now=now)
        return True

    def receive_run(
        self, data: memoryview, datagrams: Matrix, address: Address, *, now: float
    ) -> list[DropReason]:
        """Take datagrams of one size that came together, all with our connection id.

        Args:
            data: the datagrams back to back.
            datagrams: the same as a matrix of shape (n, size), n at most
                :data:`~bridge.udp.workspace.RUN_ROWS`.

        Returns:
            Why some were dropped.
        """
        count, size = datagrams.shape
        opened = None if self._outbound.is_closed else self.opener.open_run(datagrams)
        if opened is None:
            reasons = (
                self.receive_datagram(data[start : start + size], address, now=now)
                for start in range(0, count * size, size)
            )
        elif (end := self.states.state_end(opened.plaintexts)) is not None:
            self._accept_states(opened, end, size, address, now=now)
            return []
        else:
            # Marked one by one: what is not taken must not be acknowledged.
            reasons = (
                self._take(sequence, size, plaintext.tobytes(), address, now=now)
                for sequence, plaintext in zip(opened.sequences.tolist(), opened.plaintexts, strict=True)
            )
        return [reason for reason in reasons if reason is not None]

    def _accept_states(self, opened: OpenedRun, end: int, size: int, address: Address, *, now: float) -> None:
        sequences, plaintexts = opened
        self.opener.mark_run(sequences)
        self.last_received = now
        self.datagrams += len(plaintexts)
        self.bytes += len(plaintexts) * size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintexts[-1])
        self._stamps.receive(stamp, echo, hold, now=now)
        if address != self._outbound.address:
            self._challenge(address, size=size, now=now)
        self._note_eliciting(urgent=False, now=now, count=len(plaintexts))
        self.states.accept_run(sequences, plaintexts, end, now=now)

    def _take(
        self, sequence: int, size: int, plaintext: bytes, address: Address, *, now: float
    ) -> DropReason | None:
        if self._outbound.is_closed:  # by a datagram before it in the same run
            return self._drop(DropReason.CLOSED)
        try:
            frames = parse_frames_untrusted(plaintext, PROLOGUE.size)
            for frame in frames:
                if type(frame) in _RELIABLE_KINDS and not self._has_room_for(frame):
                    # Not marked, hence never acknowledged: the peer sends these bytes again.
                    return self._drop(DropReason.REASSEMBLY_FULL)
            self._accept(sequence, size, plaintext, frames, address, now=now)
        except (DecodeError, ProtocolError) as error:
            self._violated(str(error))
        return None

    def _has_room_for(self, frame: Frame) -> bool:
        if isinstance(frame, Reliable):
            return self.reliable.can_accept(frame.offset, len(frame.chunk))
        return not isinstance(frame, Message) or self.unordered.can_accept(frame)

    def _drop(self, reason: DropReason) -> DropReason:
        self.drops[reason] += 1
        return reason

    def _accept(
        self, sequence: int, size: int, plaintext: bytes, frames: list[Frame], address: Address, *, now: float
    ) -> None:
        newest = self.opener.replay.largest
        self.opener.replay.mark(sequence)
        self.last_received = now
        self.datagrams += 1
        self.bytes += size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintext)
        if sequence > newest:
            self._stamps.receive(stamp, echo, hold, now=now)
            if address != self._outbound.address:
                is_asked = any(type(frame) is PathChallenge for frame in frames)
                spare = size - CHALLENGE_DATAGRAM_BYTES if is_asked else size
                self._challenge(address, size=spare, now=now)
        eliciting = urgent = False
        # Of these the last counts: a datagram has room for a hundred, each work for far more than its bytes.
        ack: Ack | None = None
        challenge: PathChallenge | None = None
        # Behind them, for it tells what they left undelivered; of these the first.
        close: Close | None = None
        evidence: Evidence | None = None
        is_proven = True
        if self._verifier is not None and any(type(frame) is State for frame in frames):
            is_proven, evidence = self.states.prove(sequence, plaintext, frames[-1], now=now)
        for frame in frames:
            # Outside the match: what most datagrams hold; class patterns cost more.
            if type(frame) is State:
                eliciting = True
                if is_proven:
                    self.states.accept(*frame, echo, evidence, now=now)
            elif type(frame) is Ack:
                ack = frame
            elif type(frame) is Credit:
                self._outbound.messages.reliable.update(frame.received, frame.limit)
            elif type(frame) is Ping:
                eliciting = urgent = True
            else:
                eliciting = eliciting or isinstance(frame, ELICITING)
                urgent = urgent or (type(frame) in _RELIABLE_KINDS and sequence != newest + 1)
                if type(frame) is PathChallenge:
                    challenge = frame
                elif type(frame) is Close:
                    close = close or frame
                self._on_frame(frame, address)
        if ack is not None:
            self._outbound.on_ack(ack.largest, ack.bits, now=now)
        if challenge is not None:
            self._outbound.emit_frame(encode_frame(PathResponse(challenge.token)), now=now, address=address)
        if eliciting:
            self._note_eliciting(urgent=urgent, now=now)
        if close is not None:
            is_known = close.code < _WIRE_REASONS and close.code in _REASONS
            self._closed(CloseReason(close.code) if is_known else CloseReason.UNKNOWN, close.text)

    def _challenge(self, address: Address, *, size: int, now: float) -> None:
        if self._path.should_challenge(address, size=size, now=now, interval=self._rtt.smoothed):
            token = self._random_bytes(8)
            self._path.challenge(address, token, now=now)
            self._outbound.emit_frame(encode_frame(PathChallenge(token)), now=now, address=address)

    def _on_frame(self, frame: Frame, address: Address) -> None:
        match frame:
            case Reliable(offset, chunk):
                self.reliable.insert(offset, chunk)
                self.may_have_messages = True
            case Message():
                self.unordered.insert(frame)
                self.may_have_messages = True
            case MessageCredit(low_water, limit):
                self._outbound.messages.unordered.update(low_water, limit)
            case PathResponse(token):
                if self._path.respond(address, token):
                    self._outbound.address = address
                    self.address_changes += 1
            case Ping() | PathChallenge() | Close() | Proof() | State() | Ack() | Credit():
                pass
            case _:
                assert_never(frame)

    def _note_eliciting(self, *, urgent: bool, now: float, count: int = 1) -> None:
        if self._acknowledger.note(urgent=urgent, now=now, count=count) and not self._outbound.is_closed:
            self._outbound.emit_frame(self._acknowledger.frames(), now=now)

    def next_message(self) -> MessageReceived | None:
        """The next message, of either kind in turn, or ``None``. Its bytes are credit for the peer again."""
        self._takes_unordered = not self._takes_unordered
        for unordered in (self._takes_unordered, not self._takes_unordered):
            message = self._next_unordered() if unordered else self._next_ordered()
            if message is not None:
                return message
        self.may_have_messages = False
        return None

    def _next_ordered(self) -> MessageReceived | None:
        try:
            message = self.reliable.next_message()
        except ProtocolError as error:
            self._violated(str(error))
            return None
        if message is None:
            return None
        return MessageReceived(peer=self._peer, payload=message, ordered=True)

    def _next_unordered(self) -> MessageReceived | None:
        message = self.unordered.next_message()
        if message is None:
            return None
        return MessageReceived(peer=self._peer, payload=message, ordered=False)

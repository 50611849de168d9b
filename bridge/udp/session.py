"""An established session: sealed datagrams in, events out, and back. Sans-IO.

After :meth:`Session.receive_datagram`, :meth:`Session.handle_timer` or a ``send_…`` call, the owner calls
:meth:`Session.datagrams_to_send`, re-arms by :meth:`Session.get_timer`, then drains
:meth:`Session.next_event`. ``now`` is monotonic seconds and never goes back.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, SupportsIndex, assert_never

import numpy as np

from bridge.errors import (
    ConfigurationError,
    DecodeError,
    InvalidStateError,
    ProtocolError,
)
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.columns import Columns, Row
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    SessionClosed,
    SessionEvent,
)
from bridge.udp.evidence import Evidence, ProofVerifier
from bridge.udp.keys import DirectionKeys, OpeningPhases, SealingPhases
from bridge.udp.lone import LONE_TEXT
from bridge.udp.opening import OpenedRun, Opener
from bridge.udp.outbound import Outbound
from bridge.udp.path import CHALLENGE_DATAGRAM_BYTES, PathValidation
from bridge.udp.peers import Address
from bridge.udp.proving import Unproven
from bridge.udp.reliable import ReliableReceiver
from bridge.udp.rtt import RttEstimator
from bridge.udp.sealing import Sealer
from bridge.udp.stamps import StampExchange
from bridge.udp.state_inbox import StateInbox
from bridge.udp.statistics import DropReason, SessionStatistics
from bridge.udp.transmit import Transmit
from bridge.udp.unordered import UnorderedReceiver
from bridge.udp.wire import (
    ELICITING,
    PROLOGUE,
    STATE,
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
)
from bridge.udp.workspace import Matrix, Workspace

_KEYS_KEPT: Final = 3
"""Probe timeouts for which the peer's keys of the phase before are kept (RFC 9001, section 6.5)."""
_CLOSE_COPIES: Final = 3
_WIRE_REASONS: Final = 63
_RELIABLE_KINDS: Final = frozenset((Reliable, Message))


def check_batch(payload: object) -> None:
    """Raise :class:`~bridge.errors.ConfigurationError` unless it is an array of states."""
    if not isinstance(payload, np.ndarray):
        raise ConfigurationError(
            f"a state is bytes, or an array of bytes (uint8) for many, not {type(payload).__name__}"
        )
    if payload.ndim != 2 or payload.dtype != np.uint8:
        raise ConfigurationError(
            "a batch of states is an array of bytes (uint8), one row for each stream, "
            f"not {payload.dtype} of shape {payload.shape}"
        )


def plain_number(stream: SupportsIndex) -> int:
    """An index of numpy's as Python's own, which has the methods and the arithmetic that are needed."""
    try:
        return int(operator.index(stream))
    except TypeError as error:
        raise ConfigurationError(f"a stream is a whole number, not {type(stream).__name__}") from error


def _check_message(message: object) -> None:
    # Found when it is sealed, it would stop the sending to all peers.
    if not isinstance(message, bytes):
        raise ConfigurationError(f"a message is bytes, not {type(message).__name__}")


def _ignore(_session: Session) -> None:
    return None


async def _refuse_to_wait(_session: Session) -> None:
    raise InvalidStateError("the session's events go elsewhere: only an engine without on_event lets it wait")


class Session:
    """One peer, one pair of keys. Made by the endpoint once keys are agreed.

    Attributes:
        peer: the peer's name.
        session_id: 16 bytes, chosen by the initiator.
        connection_id: ours: the peer puts it on every datagram.
        outbound: what leaves it, for the endpoint.
        acknowledger: tells of what came, likewise.
        row: its cells among those of the endpoint's other sessions.
    """

    def __init__(
        self,
        *,
        peer: str,
        session_id: bytes,
        config: UdpConfig,
        sending: DirectionKeys,
        receiving: DirectionKeys,
        connection_id: int,
        remote_connection_id: int,
        remote_window: int,
        address: Address,
        random_bytes: Callable[[int], bytes],
        now: float,
        workspace: Workspace | None = None,
        columns: Columns | None = None,
        verifier: ProofVerifier | None = None,
        on_pending: Callable[[Session], None] = _ignore,
        wait: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        """Begin a session.

        Args:
            remote_window: reliable bytes the peer takes before it grants more.
            workspace: memory for runs of datagrams, shared by the sessions of one endpoint.
            columns: likewise, where it gets a row.
            verifier: of the peer's proofs; with it the session is signed, both ways.
            on_pending: called when something is to be sent that no timer or datagram brought about.
            wait: returns once something came from the peer, or the session ended.
        """
        self.peer = peer
        self.session_id = session_id
        self.connection_id = connection_id
        self._config = config
        self._random_bytes = random_bytes
        self._on_pending = on_pending
        self._wait = wait or _refuse_to_wait
        shared = Workspace() if workspace is None else workspace
        self.row = row = Row(Columns() if columns is None else columns)
        sealing = SealingPhases(
            sending,
            after_datagrams=config.rekey_after_datagrams,
            after_seconds=config.rekey_after,
            now=now,
        )
        self._opener = Opener(
            OpeningPhases(receiving),
            sealing=sealing,
            keep=lambda: _KEYS_KEPT * self.outbound.probe_timeout(),
            workspace=shared,
            row=row,
        )
        self._replay = self._opener.replay
        self._rtt = RttEstimator(config.initial_rtt)
        self._stamps = StampExchange(self._rtt, longest=config.idle_timeout, row=row)
        self._path = PathValidation()
        self._verifier = verifier
        self._drops: Counter[DropReason] = Counter()
        self._reliable_in = ReliableReceiver(window=config.reliable_window_bytes)
        self._unordered_in = UnorderedReceiver(window=config.reliable_window_bytes)
        self._inbox = StateInbox(
            peer=peer,
            session_id=session_id,
            max_streams=config.max_state_streams,
            maximum=config.max_pending_states,
            verifier=verifier,
            keep_evidence=config.keep_evidence,
            drops=self._drops,
        )
        self.acknowledger = Acknowledger(
            config, replay=self._replay, reliable=self._reliable_in, unordered=self._unordered_in, row=row
        )
        self.outbound = Outbound(
            config,
            session_id=session_id,
            sealer=Sealer(sealing, remote_connection_id=remote_connection_id, workspace=shared, row=row),
            stamps=self._stamps,
            rtt=self._rtt,
            address=address,
            remote_window=remote_window,
            verifier=verifier,
            acknowledger=self.acknowledger,
            opening=self._opener.phases,
            now=now,
            row=row,
        )
        self._closed_event: SessionClosed | None = None
        self._why_closed = ""
        self._close_frame: Close | None = None
        self.is_closed = False
        """Nothing more is accepted; a last CLOSE may still have to be sent."""
        self._is_disowned = False

        self._last_received = now
        self._may_have_messages = False
        self._takes_unordered = False
        self._datagrams_received = 0
        self._bytes_received = 0
        self._address_changes = 0

    def __repr__(self) -> str:
        host, port = self.address
        return f"<Session with {self.peer} at {host} port {port}, {'closed' if self.is_closed else 'open'}>"

    @property
    def address(self) -> Address:
        """Where the peer is, as far as it has proven."""
        return self.outbound.address

    def move(self, address: Address) -> None:
        """Send to another address from now on: it was proven outside of the session."""
        self.outbound.address = address

    @property
    def is_confirmed(self) -> bool:
        """Whether the peer has shown that it holds the keys."""
        return self._replay.largest >= 0

    @property
    def is_signed(self) -> bool:
        """Whether states come with proofs, both ways."""
        return self._verifier is not None

    @property
    def max_state_bytes(self) -> int:
        """The longest payload of a state: 1152, or 738 where there has to be room for a proof."""
        return self.outbound.latest.max_state_bytes

    def send_state(self, payload: bytes | Matrix, stream: SupportsIndex = 0) -> int:
        """Send the newest state of a stream, or of many; older ones that were not yet sent are forgotten.

        Args:
            payload: at most :attr:`max_state_bytes`; or a batch: unsigned bytes of shape (n, size), row i
                being the state of ``stream + i``, each in a datagram of its own. Not copied until sent.
            stream: 0 … ``max_state_streams`` - 1.

        Returns:
            A number, rising with each call, 32 bits, wrapping; see :meth:`acknowledged_state`.

        Raises:
            ConfigurationError: neither bytes nor an array of that shape and type; a stream that is no number.
            InvalidStateError: the session is closed.
            LimitExceededError: payload too long, or a stream out of bounds.
        """
        if self.is_closed:
            self._check_open()
        if not isinstance(payload, bytes):
            check_batch(payload)
        if type(stream) is not int:
            stream = plain_number(stream)
        number = self.outbound.latest.put(stream, payload)
        self._on_pending(self)
        return number

    def drop_states(self) -> None:
        """Forget the states that were not sent yet; what the peer has it keeps."""
        queued, at = self.row.columns.is_queued, self.row.index
        self.outbound.latest.drop(queued=queued[at])
        queued[at] = 0

    @property
    def states_waiting(self) -> int:
        """States not sent yet: above zero after a flush where the peer or the path is too slow for them."""
        return self.outbound.latest.waiting + self.row.columns.is_queued[self.row.index]

    @property
    def states_unacknowledged(self) -> int:
        """Datagrams sent whose arrival or loss is not known yet."""
        return self.outbound.ledger.in_flight

    def acknowledged_state(self, stream: int = 0) -> int | None:
        """Number of the newest state of the stream that the peer has acknowledged."""
        return self.outbound.latest.acknowledged(stream)

    def send_reliable(self, message: bytes) -> None:
        """Queue a message for the reliable stream.

        Args:
            message: at most 64 KiB.

        Raises:
            ConfigurationError: not bytes.
            InvalidStateError: the session is closed.
            LimitExceededError: too long, or the buffer is full because the peer does not acknowledge.
        """
        self._check_open()
        _check_message(message)
        self.outbound.write_ordered(message)
        self._on_pending(self)

    @property
    def reliable_end(self) -> int:
        """Where the last message of :meth:`send_reliable` ends: bytes since the session began."""
        return self.outbound.reliable.end

    @property
    def reliable_taken(self) -> int:
        """Up to where the peer's application has taken messages, as its credit for them tells.

        More than an acknowledgement, which tells that they arrived.
        """
        return self.outbound.reliable.taken

    def send_unordered(self, message: bytes) -> None:
        """Queue a message that is delivered reliably, but as soon as it is whole, whatever else is missing.

        Args:
            message: at most 64 KiB.

        Raises:
            ConfigurationError: not bytes.
            InvalidStateError: the session is closed.
            LimitExceededError: too long, or the buffer is full because the peer does not acknowledge.
        """
        self._check_open()
        _check_message(message)
        self.outbound.write_unordered(message)
        self._on_pending(self)

    async def drain(self, *, at_most: int | None = None) -> None:
        """Wait until little of what was sent reliably is still unacknowledged: who sends much awaits this.

        Args:
            at_most: bytes of each kind, ordered and not; half of ``reliable_buffer_bytes`` if ``None``. With
                0 everything has arrived.

        Raises:
            InvalidStateError: the session is closed, or no engine runs it, or one with ``on_event``.
        """
        limit = self._config.reliable_buffer_bytes // 2 if at_most is None else at_most
        self._check_open()
        while max(self.outbound.reliable.buffered, self.outbound.unordered.buffered) > limit:
            await self._wait(self)
            self._check_open()

    def close(self, reason: CloseReason = CloseReason.APPLICATION, detail: str = "") -> None:
        """Tell the peer and end the session; closing twice is closing once.

        Args:
            reason: one that is local, such as ``IDLE``, reaches the peer as ``UNKNOWN``.
            detail: for people; cut to 64 bytes of UTF-8.

        Raises:
            ConfigurationError: no reason of that kind, or a detail that is no text.
        """
        if not isinstance(reason, CloseReason) or not isinstance(detail, str):
            raise ConfigurationError(f"close(CloseReason.…, 'text'), not close({reason!r}, {detail!r})")
        if self.is_closed:
            return
        self._close_frame = Close(reason.value, detail)
        self._finish(reason, by_peer=False, detail=detail)
        self._on_pending(self)

    def statistics(self) -> SessionStatistics:
        """Counters so far."""
        return SessionStatistics(
            datagrams_sent=self.outbound.datagrams_sent,
            datagrams_received=self._datagrams_received,
            bytes_sent=self.outbound.bytes_sent,
            bytes_received=self._bytes_received,
            datagrams_lost=self.outbound.ledger.lost,
            states_superseded=self.outbound.latest.superseded,
            address_changes=self._address_changes,
            rekeys=self.outbound.sealer.phases.phase,
            rtt=None if self._rtt.latest is None else self._rtt.smoothed,
            rtt_minimum=self._rtt.minimum,
            reliable_buffered=self.outbound.reliable.buffered,
            reliable_credit=self.outbound.reliable.available_credit,
            unordered_buffered=self.outbound.unordered.buffered,
            unordered_credit=self.outbound.unordered.available_credit,
            reassembly_bytes=self._reliable_in.buffered + self._unordered_in.buffered,
            congestion_window=self.outbound.ledger.window_bytes,
            signatures_checked=0 if self._verifier is None else self._verifier.signatures_checked,
            rate=self.outbound.rate.bytes_per_second,
            loss=self.outbound.rate.loss,
            paced=self.outbound.paced,
            drops=dict(self._drops),
        )

    def disown(self) -> None:
        """End the session without a word, in a child of the process that it belongs to.

        The parent goes on sealing with the same keys, and two plaintexts under one sequence give both away.
        """
        self.is_closed = self.outbound.is_closed = self._is_disowned = True
        self.row.columns.is_idle[self.row.index] = 0
        self._close_frame = None

    def _check_open(self) -> None:
        if self._is_disowned:
            raise InvalidStateError(
                f"the session with {self.peer} belongs to the parent of this process: "
                "make an engine of its own after a fork"
            )
        if self.is_closed:
            raise InvalidStateError(f"the session with {self.peer} is closed{self._why_closed}")

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
        if self.is_closed:
            return self._drop(DropReason.CLOSED)
        opened = self._opener.open(data, now=now)
        if not isinstance(opened, tuple):
            return self._drop(opened)
        sequence, plaintext = opened
        length = len(plaintext) - LONE_TEXT.size
        if length >= 0 and self._verifier is None:
            stamp, echo, hold, kind, stream, number, said = LONE_TEXT.unpack_from(plaintext)
            if kind == STATE and said == length and address == self.row.columns.addresses[self.row.index]:
                # What a round trip waits for: as below, without the objects that tell kinds of frames apart.
                if sequence > self._replay.largest:
                    self._stamps.receive(stamp, echo, hold, now=now)
                self._replay.mark(sequence)
                self._last_received = now
                self._datagrams_received += 1
                self._bytes_received += len(data)
                self._inbox.accept(stream, number, plaintext[LONE_TEXT.size :], echo, None, now=now)
                if self.acknowledger.note(urgent=False, now=now):
                    self.outbound.emit_frame(self.acknowledger.frames(), now=now)
                return None
        return self._take(sequence, len(data), plaintext, address, now=now)

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
        opened = None if self.is_closed else self._opener.open_run(datagrams)
        if opened is None:
            reasons = (
                self.receive_datagram(data[start : start + size], address, now=now)
                for start in range(0, count * size, size)
            )
        elif (end := self._inbox.state_end(opened.plaintexts)) is not None:
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
        self._opener.mark_run(sequences)
        self._last_received = now
        self._datagrams_received += len(plaintexts)
        self._bytes_received += len(plaintexts) * size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintexts[-1])
        self._stamps.receive(stamp, echo, hold, now=now)
        if address != self.address:
            self._challenge(address, size=size, now=now)
        self._note_eliciting(urgent=False, now=now, count=len(plaintexts))
        self._inbox.accept_run(sequences, plaintexts, end, now=now)

    def _take(
        self, sequence: int, size: int, plaintext: bytes, address: Address, *, now: float
    ) -> DropReason | None:
        if self.is_closed:  # by a datagram before it in the same run
            return self._drop(DropReason.CLOSED)
        try:
            frames = parse_frames_untrusted(plaintext, PROLOGUE.size)
            for frame in frames:
                if type(frame) in _RELIABLE_KINDS and not self._has_room_for(frame):
                    # Not marked, hence never acknowledged: the peer sends these bytes again.
                    return self._drop(DropReason.REASSEMBLY_FULL)
            self._accept(sequence, size, plaintext, frames, address, now=now)
        except (DecodeError, ProtocolError) as error:
            self.close(CloseReason.PROTOCOL_ERROR, str(error))
        return None

    def _has_room_for(self, frame: Frame) -> bool:
        if isinstance(frame, Reliable):
            return self._reliable_in.can_accept(frame.offset, len(frame.chunk))
        return not isinstance(frame, Message) or self._unordered_in.can_accept(frame)

    def _drop(self, reason: DropReason) -> DropReason:
        self._drops[reason] += 1
        return reason

    def _accept(
        self, sequence: int, size: int, plaintext: bytes, frames: list[Frame], address: Address, *, now: float
    ) -> None:
        newest = self._replay.largest
        self._replay.mark(sequence)
        self._last_received = now
        self._datagrams_received += 1
        self._bytes_received += size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintext)
        if sequence > newest:
            self._stamps.receive(stamp, echo, hold, now=now)
            if address != self.outbound.address:
                is_asked = any(type(frame) is PathChallenge for frame in frames)
                spare = size - CHALLENGE_DATAGRAM_BYTES if is_asked else size
                self._challenge(address, size=spare, now=now)
        eliciting = urgent = False
        # Of these the last counts: a datagram has room for a hundred, each work for far more than its bytes.
        ack: Ack | None = None
        challenge: PathChallenge | None = None
        evidence: Evidence | None = None
        is_proven = True
        if self._verifier is not None and any(type(frame) is State for frame in frames):
            is_proven, evidence = self._inbox.prove(sequence, plaintext, frames[-1], now=now)
        for frame in frames:
            # Outside the match: what most datagrams hold; class patterns cost more.
            if type(frame) is State:
                eliciting = True
                if is_proven:
                    self._inbox.accept(*frame, echo, evidence, now=now)
            elif type(frame) is Ack:
                ack = frame
            elif type(frame) is Credit:
                self.outbound.reliable.update(frame.received, frame.limit)
            else:
                eliciting = eliciting or isinstance(frame, ELICITING)
                urgent = (
                    urgent
                    or isinstance(frame, Ping)
                    or (type(frame) in _RELIABLE_KINDS and sequence != newest + 1)
                )
                if type(frame) is PathChallenge:
                    challenge = frame
                self._on_frame(frame, address)
        if ack is not None:
            self.outbound.on_ack(ack.largest, ack.bits, now=now)
        if challenge is not None:
            self.outbound.emit_frame(encode_frame(PathResponse(challenge.token)), now=now, address=address)
        if eliciting:
            self._note_eliciting(urgent=urgent, now=now)

    def _challenge(self, address: Address, *, size: int, now: float) -> None:
        if self._path.should_challenge(address, size=size, now=now, interval=self._rtt.smoothed):
            token = self._random_bytes(8)
            self._path.challenge(address, token, now=now)
            self.outbound.emit_frame(encode_frame(PathChallenge(token)), now=now, address=address)

    def _on_frame(self, frame: Frame, address: Address) -> None:
        match frame:
            case Reliable(offset, chunk):
                self._reliable_in.insert(offset, chunk)
                self._may_have_messages = True
            case Message():
                self._unordered_in.insert(frame)
                self._may_have_messages = True
            case MessageCredit(low_water, limit):
                self.outbound.unordered.update(low_water, limit)
            case Close(code, text):
                is_known = code < _WIRE_REASONS and code in _REASONS
                reason = CloseReason(code) if is_known else CloseReason.UNKNOWN
                self._finish(reason, by_peer=True, detail=text)
            case PathResponse(token):
                if self._path.respond(address, token):
                    self.move(address)
                    self._address_changes += 1
            case Ping() | PathChallenge() | Proof() | State() | Ack() | Credit():
                pass
            case _:
                assert_never(frame)

    def _note_eliciting(self, *, urgent: bool, now: float, count: int = 1) -> None:
        if self.acknowledger.note(urgent=urgent, now=now, count=count) and not self.is_closed:
            self.outbound.emit_frame(self.acknowledger.frames(), now=now)

    def datagrams_to_send(self, *, now: float, may_sign: bool = True) -> list[Transmit]:
        """Seal what is due; each datagram is at most 1200 bytes and is handed out once.

        States of a signed session are not among them: they wait in :meth:`take_unproven`.

        Args:
            may_sign: whether that is the case; without it they stay unsent.
        """
        if self.is_closed:
            if self._close_frame is not None:
                # Nobody is left to repeat a lost CLOSE, so it goes several times, each sealed anew.
                for _ in range(_CLOSE_COPIES):
                    self.outbound.emit_frame(encode_frame(self._close_frame), now=now)
                self._close_frame = None
            return self.outbound.drain()
        if self.outbound.is_exhausted:
            self.close(CloseReason.KEY_EXHAUSTED)
            return self.datagrams_to_send(now=now)
        self.outbound.send_frames(now=now, may_sign=may_sign)
        return self.outbound.drain()

    def take_unproven(self) -> list[Unproven]:
        """Datagrams of :meth:`datagrams_to_send` to be signed and given to :meth:`seal_proven`, in order."""
        return self.outbound.take_unproven()

    def seal_proven(self, unproven: Unproven, proofs: list[Matrix], *, now: float) -> list[Transmit]:
        """See :meth:`bridge.udp.outbound.Outbound.seal_proven`."""
        return self.outbound.seal_proven(unproven, proofs, now=now)

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called, monotonic seconds; ``None`` once closed."""
        if self.is_closed:
            return None
        # Comparisons one by one, for this is asked after every datagram.
        config, out = self._config, self.outbound
        timer = self._last_received + config.idle_timeout
        if (when := out.last_sent + config.keepalive_interval) < timer:
            timer = when
        if (due := self.acknowledger.due_at) is not None and due < timer:
            timer = due
        if (due := out.paced_until) is not None and due < timer:
            timer = due
        if (due := out.probe_at(is_confirmed=self.is_confirmed)) is not None and due < timer:
            timer = due
        return timer

    def handle_timer(self, *, now: float) -> None:
        """Do what is due at ``now``; early calls are harmless."""
        if self.is_closed:
            return
        if now >= self._last_received + self._config.idle_timeout:
            self._finish(CloseReason.IDLE, by_peer=False, detail="nothing received")
            return
        self._opener.phases.forget_previous(now=now)
        self.acknowledger.handle_timer(now=now)
        if now >= self.outbound.last_sent + self._config.keepalive_interval:
            self.outbound.ping_wanted = True
        probe = self.outbound.probe_at(is_confirmed=self.is_confirmed)
        if probe is not None and now >= probe:
            self.outbound.probe(now=now)

    def request_confirmation(self) -> None:
        """Ask the peer to show that it holds the keys; repeated by the probe timer until it does."""
        self.outbound.ping_wanted = True
        self._on_pending(self)

    async def __aiter__(self) -> AsyncIterator[SessionEvent]:
        """Events as they come, the last being :class:`SessionClosed`; for one reader.

        What is not taken waits here: states up to ``max_pending_states``, and messages until the peer has
        used up its credit and has to stop.

        Raises:
            InvalidStateError: no engine runs the session, or its events go to the engine's ``on_event``.
        """
        while True:
            event = self.next_event()
            if event is not None:
                yield event
            elif self.is_closed:
                return
            else:
                await self._wait(self)

    @property
    def has_events(self) -> bool:
        """Whether :meth:`next_event` may give something."""
        return bool(self._inbox.states or self._may_have_messages or self._closed_event)

    def next_event(self) -> SessionEvent | None:
        """The next event, or ``None``: messages, then states, then the end.

        Taking a message gives its bytes back to the peer as credit.
        """
        if self._may_have_messages:
            self._takes_unordered = not self._takes_unordered
            for unordered in (self._takes_unordered, not self._takes_unordered):
                message = self._next_unordered() if unordered else self._next_ordered()
                if message is not None:
                    return message
            self._may_have_messages = False
        if self._inbox.states:
            return self._inbox.pop()
        closed, self._closed_event = self._closed_event, None
        return closed

    def _next_ordered(self) -> MessageReceived | None:
        try:
            message = self._reliable_in.next_message()
        except ProtocolError as error:
            self.close(CloseReason.PROTOCOL_ERROR, str(error))
            return None
        if message is None:
            return None
        self._message_taken()
        return MessageReceived(peer=self.peer, payload=message, ordered=True)

    def _next_unordered(self) -> MessageReceived | None:
        message = self._unordered_in.next_message()
        if message is None:
            return None
        self._message_taken()
        return MessageReceived(peer=self.peer, payload=message, ordered=False)

    def _message_taken(self) -> None:
        if self.acknowledger.message_taken():
            self._on_pending(self)

    def fail(self, error: Exception) -> None:
        """End the session because of something that should never be raised; the peer hears no details."""
        self._close_frame = Close(CloseReason.FAULT.value, "")
        self._finish(CloseReason.FAULT, by_peer=False, detail=f"{type(error).__name__}: {error}")
        self._on_pending(self)

    def abandon(self, reason: CloseReason) -> None:
        """End the session without a word to the peer: it was displaced."""
        self._finish(reason, by_peer=False, detail="")

    def _finish(self, reason: CloseReason, *, by_peer: bool, detail: str) -> None:
        if self.is_closed:
            return
        self.is_closed = self.outbound.is_closed = True
        self.row.columns.is_idle[self.row.index] = 0
        self._why_closed = f": {reason.name}{' by the peer' if by_peer else ''}"
        self._closed_event = SessionClosed(
            peer=self.peer,
            reason=reason,
            by_peer=by_peer,
            detail=detail,
            undelivered=self.outbound.reliable.undelivered(),
            undelivered_unordered=self.outbound.unordered.undelivered(),
        )


_REASONS: Final = frozenset(reason.value for reason in CloseReason)

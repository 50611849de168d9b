"""An established session: sealed datagrams in, events out, and back. Sans-IO.

After :meth:`Session.receive_datagram`, :meth:`Session.handle_timer` or a ``send_…`` call, the owner calls
:meth:`Session.datagrams_to_send`, re-arms by :meth:`Session.get_timer`, then drains
:meth:`Session.next_event`. ``now`` is monotonic seconds and never goes back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from bridge.errors import (
    ConfigurationError,
    DecodeError,
    InvalidStateError,
    LimitExceededError,
    ProtocolError,
)
from bridge.udp.config import UdpConfig
from bridge.udp.draft import Draft
from bridge.udp.events import (
    CloseReason,
    MessageReceived,
    SessionClosed,
    SessionEvent,
    StateReceived,
    StatesReceived,
)
from bridge.udp.evidence import Evidence, EvidenceRun, ProofVerifier, Unsigned
from bridge.udp.evidence.proof import are_proofs
from bridge.udp.keys import DirectionKeys, OpeningPhases, SealingPhases
from bridge.udp.latest import LatestReceiver, LatestSender, PendingState
from bridge.udp.loss import Carried, Fate, SentLedger, SentRun
from bridge.udp.opening import OpenedRun, Opener
from bridge.udp.path import PathValidation
from bridge.udp.peers import Address
from bridge.udp.proving import Unproven
from bridge.udp.rate import Pacer, StateRate
from bridge.udp.reliable import ReliableReceiver, ReliableSender
from bridge.udp.rtt import RttEstimator
from bridge.udp.sealing import Reserved, Sealer
from bridge.udp.stamps import StampExchange, echo_age, oldest_echo_age
from bridge.udp.statistics import DropReason, SessionStatistics
from bridge.udp.transmit import Transmit
from bridge.udp.unordered import MAX_AHEAD, UnorderedReceiver, UnorderedSender
from bridge.udp.wire import (
    DATA_HEADER_BYTES,
    ELICITING,
    MAX_PROOF_BYTES,
    MAX_STATE_BYTES,
    MESSAGE_HEADER_BYTES,
    PROLOGUE,
    RELIABLE_HEADER_BYTES,
    STATE,
    STATE_HEADER,
    TAG_BYTES,
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
    encode_ack,
    encode_frame,
    parse_frames_untrusted,
)
from bridge.udp.workspace import RUN_ROWS, Matrix, Workspace

_ACK_AT_ONCE: Final = 512
"""Datagrams in one receive batch after which an ACK is sealed without waiting for the batch to end."""
_SMALLEST_CHUNK: Final = 64
"""Bytes of room below which a reliable chunk goes into a datagram of its own."""
_PROBE_DATAGRAMS: Final = 2
_KEYS_KEPT: Final = 3
"""Probe timeouts for which the peer's keys of the phase before are kept (RFC 9001, section 6.5)."""
_MAX_BACKOFF: Final = 6
_COLLAPSE_BACKOFF: Final = 3
_CLOSE_COPIES: Final = 3
_PING_FRAME: Final = encode_frame(Ping())
_WIRE_REASONS: Final = 63
_STATE_PAYLOAD_AT: Final = PROLOGUE.size + STATE_HEADER.size
"""Where the payload begins in a plaintext that holds one state and nothing else."""
_STATE_LENGTH: Final = slice(_STATE_PAYLOAD_AT - 2, _STATE_PAYLOAD_AT)
_STATE_OVERHEAD: Final = DATA_HEADER_BYTES + _STATE_PAYLOAD_AT + TAG_BYTES
"""Bytes of a datagram with one state beside the payload."""
_STATE_KIND_AND_LENGTH: Final = [PROLOGUE.size, _STATE_PAYLOAD_AT - 2, _STATE_PAYLOAD_AT - 1]
_STATE_HEADS: Final = np.dtype(
    [
        ("stamp", ">u4"),
        ("echo", ">u4"),
        ("hold", ">u2"),
        ("kind", "u1"),
        ("stream", ">u2"),
        ("number", ">u4"),
        ("length", ">u2"),
    ]
)
"""The bytes before that payload."""


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
        address: where the peer is, as far as it has proven.
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
        verifier: ProofVerifier | None = None,
        on_pending: Callable[[Session], None] = _ignore,
        wait: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        """Begin a session.

        Args:
            remote_window: reliable bytes the peer takes before it grants more.
            workspace: memory for runs of datagrams, shared by the sessions of one endpoint.
            verifier: of the peer's proofs; with it the session is signed, both ways.
            on_pending: called when something is to be sent that no timer or datagram brought about.
            wait: returns once something came from the peer, or the session ended.
        """
        self.peer = peer
        self.session_id = session_id
        self.connection_id = connection_id
        self.address = address
        self._config = config
        self._random_bytes = random_bytes
        self._on_pending = on_pending
        self._wait = wait or _refuse_to_wait
        shared = Workspace() if workspace is None else workspace
        sealing = SealingPhases(
            sending,
            after_datagrams=config.rekey_after_datagrams,
            after_seconds=config.rekey_after,
            now=now,
        )
        self._sealer = Sealer(sealing, remote_connection_id=remote_connection_id, workspace=shared)
        self._opener = Opener(
            OpeningPhases(receiving),
            sealing=sealing,
            keep=lambda: _KEYS_KEPT * self._probe_timeout(),
            workspace=shared,
        )
        self._replay = self._opener.replay
        self._rtt = RttEstimator(config.initial_rtt)
        self._stamps = StampExchange(self._rtt, longest=config.idle_timeout, now=now)
        self._path = PathValidation()
        self._ledger = SentLedger(self._rtt)
        self._rate = StateRate(
            initial=config.initial_rate, floor=config.min_rate, ceiling=config.max_rate, now=now
        )
        self._pacer = Pacer(self._rate.bytes_per_second, now=now)
        self._paced_until: float | None = None  # when what waits because of the rate may go on
        self._reliable_out = ReliableSender(credit=remote_window, buffer_limit=config.reliable_buffer_bytes)
        self._reliable_in = ReliableReceiver(window=config.reliable_window_bytes)
        self._unordered_out = UnorderedSender(credit=remote_window, buffer_limit=config.reliable_buffer_bytes)
        self._unordered_in = UnorderedReceiver(window=config.reliable_window_bytes)
        self._verifier = verifier
        # Trees may be as deep as they get: how deep, nobody knows before all of a tick is there.
        self._proof_room = 0 if verifier is None else MAX_PROOF_BYTES
        self._latest_out = LatestSender(
            max_streams=config.max_state_streams, max_state_bytes=MAX_STATE_BYTES - self._proof_room
        )
        self._latest_in = LatestReceiver(max_streams=config.max_state_streams)

        self._outbox: list[Transmit] = []
        self._unproven: list[Unproven] = []
        self._states: deque[StateReceived | StatesReceived] = deque()
        self._states_kept = 0
        self._closed_event: SessionClosed | None = None
        self._close_frame: Close | None = None
        self.is_closed = False
        """Nothing more is accepted; a last CLOSE may still have to be sent."""

        self._last_received = now
        self._last_sent = now
        self._unacknowledged = 0
        self._ack_at: float | None = None
        self._ack_now = False
        self._credit_granted = config.reliable_window_bytes
        self._messages_granted = MessageCredit(0, config.reliable_window_bytes)
        self._takes_unordered = False
        self._prefers_unordered = False  # whose turn it is, where both kinds of messages wait
        self._ping_wanted = False
        self._probe_from = now
        self._probe_backoff = 0
        self._probing = False

        self._drops: Counter[DropReason] = Counter()
        self._datagrams_sent = 0
        self._datagrams_received = 0
        self._bytes_sent = 0
        self._bytes_received = 0
        self._address_changes = 0
        self._paced = 0

    # -- the application's verbs --------------------------------------------------------------

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
        return self._latest_out.max_state_bytes

    def send_state(self, payload: bytes | Matrix, stream: int = 0) -> int:
        """Send the newest state of a stream, or of many; older ones that were not yet sent are forgotten.

        Args:
            payload: at most :attr:`max_state_bytes`; or a batch: unsigned bytes of shape (n, size), row i
                being the state of ``stream + i``, each in a datagram of its own. Not copied until sent.
            stream: 0 … ``max_state_streams`` - 1.

        Returns:
            A number, rising with each call, 32 bits, wrapping; see :meth:`acknowledged_state`.

        Raises:
            ConfigurationError: an array that is not of that shape and type.
            InvalidStateError: the session is closed.
            LimitExceededError: payload too long, or a stream out of bounds.
        """
        self._check_open()
        if not isinstance(payload, bytes) and (payload.ndim != 2 or payload.dtype != np.uint8):
            raise ConfigurationError(
                f"a batch of states is an array of bytes (uint8), one row for each stream, "
                f"not {payload.dtype} of shape {payload.shape}"
            )
        number = self._latest_out.put(stream, payload)
        self._on_pending(self)
        return number

    @property
    def states_waiting(self) -> int:
        """States not sent yet: above zero after a flush where the peer or the path is too slow for them."""
        return self._latest_out.waiting

    @property
    def states_unacknowledged(self) -> int:
        """Datagrams sent whose arrival or loss is not known yet."""
        return self._ledger.in_flight

    def acknowledged_state(self, stream: int = 0) -> int | None:
        """Number of the newest state of the stream that the peer has acknowledged."""
        return self._latest_out.acknowledged(stream)

    def send_reliable(self, message: bytes) -> None:
        """Queue a message for the reliable stream.

        Args:
            message: at most 64 KiB.

        Raises:
            InvalidStateError: the session is closed.
            LimitExceededError: too long, or the buffer is full because the peer does not acknowledge.
        """
        self._check_open()
        self._reliable_out.write(message)
        self._on_pending(self)

    def send_unordered(self, message: bytes) -> None:
        """Queue a message that is delivered reliably, but as soon as it is whole, whatever else is missing.

        Args:
            message: at most 64 KiB.

        Raises:
            InvalidStateError: the session is closed.
            LimitExceededError: too long, or the buffer is full because the peer does not acknowledge.
        """
        self._check_open()
        self._unordered_out.write(message)
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
        while max(self._reliable_out.buffered, self._unordered_out.buffered) > limit:
            await self._wait(self)
            self._check_open()

    def close(self, reason: CloseReason = CloseReason.APPLICATION, detail: str = "") -> None:
        """Tell the peer and end the session; closing twice is closing once.

        Args:
            detail: for people; cut to 64 bytes of UTF-8.
        """
        if self.is_closed:
            return
        self._close_frame = Close(reason.value, detail)
        self._finish(reason, by_peer=False, detail=detail)
        self._on_pending(self)

    def statistics(self) -> SessionStatistics:
        """Counters so far."""
        return SessionStatistics(
            datagrams_sent=self._datagrams_sent,
            datagrams_received=self._datagrams_received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            datagrams_lost=self._ledger.lost,
            states_superseded=self._latest_out.superseded,
            address_changes=self._address_changes,
            rekeys=self._sealer.phases.phase,
            rtt=None if self._rtt.latest is None else self._rtt.smoothed,
            rtt_minimum=self._rtt.minimum,
            reliable_buffered=self._reliable_out.buffered,
            reliable_credit=self._reliable_out.available_credit,
            unordered_buffered=self._unordered_out.buffered,
            unordered_credit=self._unordered_out.available_credit,
            reassembly_bytes=self._reliable_in.buffered + self._unordered_in.buffered,
            congestion_window=self._ledger.window_bytes,
            signatures_checked=0 if self._verifier is None else self._verifier.signatures_checked,
            rate=self._rate.bytes_per_second,
            loss=self._rate.loss,
            paced=self._paced,
            drops=dict(self._drops),
        )

    def _check_open(self) -> None:
        if self.is_closed:
            raise InvalidStateError(f"the session with {self.peer} is closed")

    # -- datagrams in -------------------------------------------------------------------------

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
        if isinstance(opened, DropReason):
            return self._drop(opened)
        sequence, plaintext = opened
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
        elif (end := self._state_end(opened.plaintexts)) is not None:
            self._accept_states(opened, end, size, address, now=now)
            return []
        else:
            # Marked one by one: what is not taken must not be acknowledged.
            reasons = (
                self._take(sequence, size, plaintext.tobytes(), address, now=now)
                for sequence, plaintext in zip(opened.sequences.tolist(), opened.plaintexts, strict=True)
            )
        return [reason for reason in reasons if reason is not None]

    def _state_end(self, plaintexts: Matrix) -> int | None:
        """Where the one state of every datagram ends that holds nothing else, but for a proof behind it."""
        end = width = plaintexts.shape[1]
        if width < _STATE_PAYLOAD_AT:
            return None
        if self._verifier is not None:
            end = _STATE_PAYLOAD_AT + int.from_bytes(plaintexts[0, _STATE_LENGTH].tobytes(), "big")
            if not are_proofs(plaintexts[:, end:]):
                return None
        length = end - _STATE_PAYLOAD_AT
        expected = (STATE, length >> 8, length & 0xFF)
        return end if (plaintexts[:, _STATE_KIND_AND_LENGTH] == expected).all() else None

    def _accept_states(self, opened: OpenedRun, end: int, size: int, address: Address, *, now: float) -> None:
        sequences, plaintexts = opened
        count = len(plaintexts)
        self._opener.mark_run(sequences)
        self._last_received = now
        self._datagrams_received += count
        self._bytes_received += count * size
        stamp, echo, hold = PROLOGUE.unpack_from(plaintexts[-1])
        self._stamps.receive(stamp, echo, hold, now=now)
        if address != self.address:
            self._challenge(address, size=size, now=now)
        self._note_eliciting(urgent=False, now=now, count=count)

        if self._verifier is not None:
            proven = self._verifier.verify(sequences, plaintexts, end, now=now)
            if not proven.all():
                count = int(proven.sum())
                self._drops[DropReason.UNPROVEN] += len(proven) - count
                if not count:
                    return
                sequences, plaintexts = sequences[proven], plaintexts[proven]
        heads = np.ascontiguousarray(plaintexts[:, :_STATE_PAYLOAD_AT]).view(_STATE_HEADS).ravel()
        streams = heads["stream"].astype(np.intp)
        numbers = heads["number"].astype(np.int64)
        try:
            newer = self._latest_in.accept_run(streams, numbers)
        except LimitExceededError:
            self._drops[DropReason.STATE_STREAMS] += count
            return
        payloads = plaintexts[:, _STATE_PAYLOAD_AT:end]
        evidence = self._evidence_run(sequences, plaintexts, end)
        if not newer.all():
            self._drops[DropReason.STALE_STATE] += count - int(newer.sum())
            if not newer.any():
                return
            streams, numbers, payloads = streams[newer], numbers[newer], payloads[newer]
            evidence = None if evidence is None else evidence.only(newer)
        self._keep(
            StatesReceived(
                peer=self.peer,
                streams=streams,
                numbers=numbers,
                payloads=payloads,
                received_at=now,
                echo_age=oldest_echo_age(heads["echo"], now=now),
                evidence=evidence,
            ),
            len(streams),
        )

    def _evidence_run(
        self, sequences: npt.NDArray[np.uint64], plaintexts: Matrix, proof_at: int
    ) -> EvidenceRun | None:
        if self._verifier is None or not self._config.keep_evidence:
            return None
        return EvidenceRun(
            sender=self._verifier.sender,
            recipient=self._verifier.recipient,
            session_id=self.session_id,
            sequences=sequences,
            plaintexts=plaintexts,
            proof_at=proof_at,
        )

    def _take(
        self, sequence: int, size: int, plaintext: bytes, address: Address, *, now: float
    ) -> DropReason | None:
        try:
            frames = parse_frames_untrusted(plaintext, PROLOGUE.size)
            if not all(map(self._has_room_for, frames)):
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
            if address != self.address:
                self._challenge(address, size=size, now=now)
        eliciting = urgent = False
        evidence: Evidence | None = None
        is_proven = True
        if self._verifier is not None and any(type(frame) is State for frame in frames):
            is_proven, evidence = self._prove(sequence, plaintext, frames[-1], now=now)
        for frame in frames:
            # Outside the match: nearly every frame on the data path is a state, and class patterns cost more.
            if type(frame) is State:
                eliciting = True
                if is_proven:
                    self._on_state(frame, echo, evidence, now=now)
                continue
            eliciting = eliciting or isinstance(frame, ELICITING)
            urgent = (
                urgent
                or isinstance(frame, Ping)
                or (isinstance(frame, Reliable | Message) and sequence != newest + 1)
            )
            self._on_frame(frame, address, now=now)
        if eliciting:
            self._note_eliciting(urgent=urgent, now=now)

    def _prove(
        self, sequence: int, plaintext: bytes, last: Frame, *, now: float
    ) -> tuple[bool, Evidence | None]:
        """Whether the states of a datagram may be believed, and what shows it to others."""
        assert self._verifier is not None
        if isinstance(last, Proof):
            sequences = np.array([sequence], dtype=np.uint64)
            row = np.frombuffer(plaintext, dtype=np.uint8).reshape(1, -1)
            proof_at = len(plaintext) - len(last.body) - 1
            if self._verifier.verify(sequences, row, proof_at, now=now)[0]:
                kept = self._evidence_run(sequences, row, proof_at)
                return True, None if kept is None else kept[0]
        self._drops[DropReason.UNPROVEN] += 1
        return False, None

    def _challenge(self, address: Address, *, size: int, now: float) -> None:
        if self._path.should_challenge(address, size=size, now=now, interval=self._rtt.smoothed):
            token = self._random_bytes(8)
            self._path.challenge(address, token, now=now)
            self._emit_frame(encode_frame(PathChallenge(token)), now=now, address=address)

    def _on_frame(self, frame: Frame, address: Address, *, now: float) -> None:
        match frame:
            case Ack(largest, bits):
                self._on_ack(largest, bits, now=now)
            case Reliable(offset, chunk):
                self._reliable_in.insert(offset, chunk)
            case Credit(received, limit):
                self._reliable_out.update(received, limit)
            case Message():
                self._unordered_in.insert(frame)
            case MessageCredit(low_water, limit):
                self._unordered_out.update(low_water, limit)
            case Close(code, text):
                is_known = code < _WIRE_REASONS and code in _REASONS
                reason = CloseReason(code) if is_known else CloseReason.UNKNOWN
                self._finish(reason, by_peer=True, detail=text)
            case PathChallenge(token):
                self._emit_frame(encode_frame(PathResponse(token)), now=now, address=address)
            case PathResponse(token):
                if self._path.respond(address, token):
                    self.address = address
                    self._address_changes += 1
            case Ping() | State() | Proof():
                pass
            case _:
                assert_never(frame)

    def _note_eliciting(self, *, urgent: bool, now: float, count: int = 1) -> None:
        self._unacknowledged += count
        if urgent or self._unacknowledged >= self._config.acknowledge_every:
            self._ack_now = True
        elif self._ack_at is None:
            self._ack_at = now + self._config.max_ack_delay
        if self._unacknowledged >= _ACK_AT_ONCE and not self.is_closed:
            self._emit_frame(self._acknowledgement(), now=now)

    def _on_state(self, state: State, echo: int, evidence: Evidence | None, *, now: float) -> None:
        stream, number, payload = state
        try:
            if not self._latest_in.accept(stream, number):
                self._drops[DropReason.STALE_STATE] += 1
                return
        except LimitExceededError:
            self._drops[DropReason.STATE_STREAMS] += 1
            return
        self._keep(
            StateReceived(
                peer=self.peer,
                stream=stream,
                number=number,
                payload=payload,
                received_at=now,
                echo_age=echo_age(echo, now=now),
                evidence=evidence,
            ),
            1,
        )

    def _keep(self, event: StateReceived | StatesReceived, count: int) -> None:
        self._states.append(event)
        self._states_kept += count
        while self._states_kept > self._config.max_pending_states and len(self._states) > 1:
            self._drops[DropReason.STATE_OVERFLOW] += self._forget_oldest_state()

    def _forget_oldest_state(self) -> int:
        oldest = self._states.popleft()
        count = len(oldest) if isinstance(oldest, StatesReceived) else 1
        self._states_kept -= count
        return count

    def _on_ack(self, largest: int, bits: int, *, now: float) -> None:
        if largest >= self._sealer.next_sequence:
            raise ProtocolError("acknowledgement of a datagram that was never sent")
        self._sealer.phases.acknowledge(largest)
        arrived, lost, late = self._ledger.acknowledge(largest, bits, now=now)
        for run, absent in lost:
            self._rate.lost(absent.bit_count(), run.sent_at)
        for run, present in late:
            self._rate.arrived_late(present.bit_count(), run.sent_at)
            self._note_states(run, present)
        for run, present in arrived:
            self._rate.arrived(present.bit_count(), run.sent_at)
            self._note_states(run, present)
            for fragment in run.carried.fragments:
                self._unordered_out.acknowledge(*fragment)
        self._resend(lost)
        if self._rate.update(rtt=self._rtt.smoothed, now=now):
            self._pacer.set_rate(self._rate.bytes_per_second)
        if arrived:
            self._probe_backoff = 0
            self._probe_from = now

    def _note_states(self, run: SentRun, present: int) -> None:
        batch = run.carried.batch
        if batch is not None:
            self._latest_out.acknowledge_run(*batch, present)
        for stream, number in run.carried.states:
            self._latest_out.acknowledge(stream, number)

    def _resend(self, lost: list[Fate]) -> None:
        for run, _ in lost:
            if run.carried.run is not None:
                self._reliable_out.lose(*run.carried.run)
            for fragment in run.carried.fragments:
                self._unordered_out.lose(*fragment)

    # -- datagrams out ------------------------------------------------------------------------

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
                    self._emit_frame(encode_frame(self._close_frame), now=now)
                self._close_frame = None
            return self._drain()
        room = self._sealer.phases.room(self._sealer.next_sequence, self._config.max_datagrams_per_key)
        if room <= self._latest_out.waiting:
            self.close(CloseReason.KEY_EXHAUSTED)
            return self.datagrams_to_send(now=now)
        self._send_frames(now=now, may_sign=may_sign)
        return self._drain()

    def take_unproven(self) -> list[Unproven]:
        """Datagrams of :meth:`datagrams_to_send` to be signed and given to :meth:`seal_proven`, in order."""
        unproven, self._unproven = self._unproven, []
        return unproven

    def seal_proven(self, unproven: Unproven, proofs: list[Matrix], *, now: float) -> list[Transmit]:
        """Seal datagrams with their proofs.

        Args:
            proofs: PROOF frames for the next m datagrams, shape (m, size); m together give all.
        """
        transmits = self._sealer.seal_reserved(unproven.reserved, proofs, unproven.address)
        carried, sequence = unproven.carried, unproven.reserved.first
        for transmit in transmits:
            self._record(transmit, sequence, carried, now=now)
            sequence += transmit.datagram_count
            if carried.batch is not None:
                stream, number = carried.batch
                carried = Carried(batch=(stream + transmit.datagram_count, number))
        return transmits

    def _drain(self) -> list[Transmit]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def _send_frames(self, *, now: float, may_sign: bool) -> None:
        self._paced_until = None
        may_send_reliable = self._may_send_reliable()
        pending = self._latest_out.pending if may_sign or self._verifier is None else {}
        if not (pending or may_send_reliable or self._ack_now or self._ping_wanted):
            return
        draft = Draft()
        prologue = self._stamps.prologue(now=now)
        if self._ack_now or self._unacknowledged:
            draft.add(self._acknowledgement())
        if self._ping_wanted and not may_send_reliable:
            draft.add(_PING_FRAME)
            draft.is_pinging = True
        self._ping_wanted = False
        allowance = self._pacer.allowance(now)
        is_held_back = False
        # Where states wait too, messages leave them half of the rate.
        messages_to = allowance >> 1 if self._latest_out.pending else allowance
        while self._may_send_reliable(draft.size):
            if draft.size >= messages_to and not self._probing:
                is_held_back = True
                break
            if not self._put_reliable(draft):
                size = self._emit(draft, now=now, prologue=prologue)
                allowance -= size
                messages_to -= size
                draft = Draft()
        room = self._config.max_flight_datagrams - self._ledger.in_flight
        for state in list(pending.values()):
            if room <= 0:
                break
            if draft.size >= allowance:
                is_held_back = True
                break
            payload = state.payload
            if not isinstance(payload, bytes):
                sent, size = self._emit_batch(state, payload, room, allowance, now=now)
                room -= sent
                allowance -= size
                is_held_back = is_held_back or bool(state.left and room > 0)
                continue
            if STATE_HEADER.size + len(payload) > draft.room - self._proof_room:
                allowance -= self._emit(draft, now=now, prologue=prologue)
                draft = Draft()
                room -= 1
            draft.add(STATE_HEADER.pack(STATE, state.stream, state.number, len(payload)))
            draft.add(payload)
            draft.states.append((state.stream, state.number))
            self._latest_out.sent(state, 1)
        if draft.pieces:
            self._emit(draft, now=now, prologue=prologue)
        if is_held_back:
            self._paced += 1
            self._rate.held_back()
            self._paced_until = self._pacer.ready_at()

    def _put_reliable(self, draft: Draft) -> bool:
        """Add messages, or parts of them, of whichever kind waits, in turn; whether any found room."""
        before = draft.size
        for unordered in (self._prefers_unordered, not self._prefers_unordered):
            if unordered:
                self._put_unordered(draft)
            else:
                self._put_ordered(draft)
        self._prefers_unordered = not self._prefers_unordered
        if draft.size == before:
            return False
        self._probing = False
        return True

    def _put_ordered(self, draft: Draft) -> None:
        room = draft.room - RELIABLE_HEADER_BYTES
        taken = self._reliable_out.take(room) if draft.run is None and room >= _SMALLEST_CHUNK else None
        if taken is not None:
            offset, chunk = taken
            draft.run = (offset, offset + len(chunk))
            draft.add(encode_frame(Reliable(offset, chunk)))

    def _put_unordered(self, draft: Draft) -> None:
        while (room := draft.room - MESSAGE_HEADER_BYTES) >= _SMALLEST_CHUNK:
            fragment = self._unordered_out.take(room)
            if fragment is None:
                return
            draft.fragments.append((fragment.number, fragment.offset, fragment.offset + len(fragment.chunk)))
            draft.add(encode_frame(fragment))

    def _emit_batch(
        self, state: PendingState, payload: Matrix, room: int, allowance: int, *, now: float
    ) -> tuple[int, int]:
        """Seal rows of a batch, each in a datagram.

        Args:
            payload: that of ``state``.
            room: how many datagrams may go.
            allowance: bytes that may go; the last datagram may exceed it.

        Returns:
            How many went, and their bytes.
        """
        sent = size = 0
        width = _STATE_OVERHEAD + payload.shape[1] + self._proof_room
        self._prepare_keys(now=now)
        prologue = self._stamps.prologue(now=now)
        while state.left and sent < room and size < allowance:
            paced = -((size - allowance) // width)
            first, rows = state.take_rows(min(room - sent, paced, RUN_ROWS))
            count = len(rows)
            stream, number = state.stream + first, state.number
            carried = Carried(batch=(stream, number))
            if self._verifier is None:
                sequence = self._sealer.next_sequence
                transmit = self._sealer.seal_batch(
                    prologue, stream=stream, number=number, rows=rows, address=self.address
                )
                self._outbox.append(transmit)
                self._record(transmit, sequence, carried, now=now)
            else:
                reserved = self._sealer.reserve_batch(prologue, stream=stream, number=number, rows=rows)
                self._await_proof(reserved, carried, self.address)
            sent += count
            size += count * width
        self._latest_out.sent(state, sent)
        return sent, size

    def _await_proof(self, reserved: Reserved, carried: Carried, address: Address) -> None:
        assert self._verifier is not None
        recipient = self._verifier.sender.thumbprint_bytes()
        unsigned = Unsigned(recipient, self.session_id, reserved.first, reserved.plaintexts)
        self._unproven.append(Unproven(unsigned, reserved, carried, address))

    def _record(self, transmit: Transmit, sequence: int, carried: Carried | None, *, now: float) -> None:
        """Note what was sealed; what carries nothing that anybody asks about is not tracked."""
        count = transmit.datagram_count
        self._last_sent = now
        self._datagrams_sent += count
        self._bytes_sent += len(transmit.payload)
        self._pacer.spend(len(transmit.payload))
        self._rate.sent(len(transmit.payload))
        if carried is not None:
            given_up = self._ledger.record(SentRun(sequence, now, transmit.segment, carried, count))
            if given_up:
                self._resend(given_up)

    def _prepare_keys(self, *, now: float) -> None:
        self._sealer.phases.prepare(self._sealer.next_sequence, follow=self._opener.phases.phase, now=now)

    def _may_send_reliable(self, unsealed: int = 0) -> bool:
        return (self._reliable_out.has_pending or self._unordered_out.has_pending) and (
            self._probing or self._ledger.reliable_bytes + unsealed < self._ledger.window_bytes
        )

    def _acknowledgement(self) -> bytes:
        self._ack_now = False
        self._ack_at = None
        self._unacknowledged = 0
        self._credit_granted = self._reliable_in.limit
        largest, bits = self._replay.acknowledgement()
        if largest < 0:
            return b""
        frames = encode_ack(largest, bits) + encode_frame(
            Credit(self._reliable_in.received, self._credit_granted)
        )
        if self._unordered_in.has_begun:
            self._messages_granted = MessageCredit(self._unordered_in.low_water, self._unordered_in.limit)
            frames += encode_frame(self._messages_granted)
        return frames

    def _emit_frame(self, frame: bytes, *, now: float, address: Address | None = None) -> None:
        draft = Draft()
        draft.add(frame)
        self._emit(draft, now=now, address=address)

    def _emit(
        self, draft: Draft, *, now: float, prologue: bytes | None = None, address: Address | None = None
    ) -> int:
        """Seal a datagram; its size."""
        self._prepare_keys(now=now)
        plaintext = b"".join((prologue or self._stamps.prologue(now=now), *draft.pieces))
        carried = draft.carried
        if carried is not None and (carried.is_reliable or draft.is_pinging):
            self._probe_from = now
        if draft.states and self._verifier is not None:
            assert carried is not None
            self._await_proof(self._sealer.reserve(plaintext), carried, address or self.address)
            return DATA_HEADER_BYTES + len(plaintext) + self._proof_room + TAG_BYTES
        sequence = self._sealer.next_sequence
        transmit = Transmit.of_one(self._sealer.seal(plaintext), address or self.address)
        self._outbox.append(transmit)
        self._record(transmit, sequence, carried, now=now)
        return transmit.segment

    # -- timers -------------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called, monotonic seconds; ``None`` once closed."""
        if self.is_closed:
            return None
        timer = min(
            self._last_received + self._config.idle_timeout, self._last_sent + self._config.keepalive_interval
        )
        if self._ack_at is not None:
            timer = min(timer, self._ack_at)
        if self._paced_until is not None:
            timer = min(timer, self._paced_until)
        probe = self._probe_at()
        return timer if probe is None else min(timer, probe)

    def _probe_at(self) -> float | None:
        waits = (
            self._reliable_out.in_flight
            or self._reliable_out.is_blocked
            or self._unordered_out.in_flight
            or self._unordered_out.is_blocked
            or self._latest_out.waiting
        )
        if self.is_confirmed and not waits:
            return None
        return self._probe_from + self._probe_timeout() * (1 << self._probe_backoff)

    def _probe_timeout(self) -> float:
        return self._rtt.probe_timeout(
            ack_delay=self._config.max_ack_delay, minimum=self._config.min_probe_timeout
        )

    def handle_timer(self, *, now: float) -> None:
        """Do what is due at ``now``; early calls are harmless."""
        if self.is_closed:
            return
        if now >= self._last_received + self._config.idle_timeout:
            self._finish(CloseReason.IDLE, by_peer=False, detail="nothing received")
            return
        self._opener.phases.forget_previous(now=now)
        if self._ack_at is not None and now >= self._ack_at:
            self._ack_now = True
        if now >= self._last_sent + self._config.keepalive_interval:
            self._ping_wanted = True
        probe = self._probe_at()
        if probe is not None and now >= probe:
            self._probe_backoff = min(self._probe_backoff + 1, _MAX_BACKOFF)
            self._probe_from = now
            if self._probe_backoff >= _COLLAPSE_BACKOFF:
                self._ledger.collapse_window()
            self._resend(self._ledger.give_up_oldest(_PROBE_DATAGRAMS))
            self._probing = self._reliable_out.has_pending or self._unordered_out.has_pending
            self._ping_wanted = not self._probing

    def request_confirmation(self) -> None:
        """Ask the peer to show that it holds the keys; repeated by the probe timer until it does."""
        self._ping_wanted = True
        self._on_pending(self)

    # -- events -------------------------------------------------------------------------------

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

    def next_event(self) -> SessionEvent | None:
        """The next event, or ``None``: messages, then states, then the end.

        Taking a message gives its bytes back to the peer as credit.
        """
        self._takes_unordered = not self._takes_unordered
        for unordered in (self._takes_unordered, not self._takes_unordered):
            message = self._next_unordered() if unordered else self._next_ordered()
            if message is not None:
                return message
        if self._states:
            event = self._states[0]
            self._forget_oldest_state()
            return event
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
        if self._reliable_in.limit - self._credit_granted > self._config.reliable_window_bytes // 2:
            self._grant()
        return MessageReceived(peer=self.peer, payload=message, ordered=True)

    def _next_unordered(self) -> MessageReceived | None:
        message = self._unordered_in.next_message()
        if message is None:
            return None
        low_water, limit = self._messages_granted
        if (
            self._unordered_in.limit - limit > self._config.reliable_window_bytes // 2
            or self._unordered_in.low_water - low_water > MAX_AHEAD // 2
        ):
            self._grant()
        return MessageReceived(peer=self.peer, payload=message, ordered=False)

    def _grant(self) -> None:
        self._ack_now = True
        self._on_pending(self)

    def abandon(self, reason: CloseReason) -> None:
        """End the session without a word to the peer: it was displaced."""
        self._finish(reason, by_peer=False, detail="")

    def _finish(self, reason: CloseReason, *, by_peer: bool, detail: str) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._closed_event = SessionClosed(
            peer=self.peer,
            reason=reason,
            by_peer=by_peer,
            detail=detail,
            undelivered=self._reliable_out.undelivered(),
            undelivered_unordered=self._unordered_out.undelivered(),
        )


_REASONS: Final = frozenset(reason.value for reason in CloseReason)

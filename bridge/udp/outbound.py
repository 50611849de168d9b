"""The sending half of a session: what goes into which datagram, when, and what becomes of it.

Messages and states wait here until the congestion window, the rate and the datagrams in flight leave room;
acknowledgements tell what arrived, and what was lost goes out again, or not, by its kind.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import ProtocolError
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.columns import Columns, Row
from bridge.udp.config import UdpConfig
from bridge.udp.draft import Draft
from bridge.udp.evidence import ProofVerifier, Unsigned
from bridge.udp.frames import (
    MAX_PROOF_BYTES,
    MAX_STATE_BYTES,
    STATE,
    STATE_HEADER,
    Ping,
    encode_frame,
)
from bridge.udp.keys import OpeningPhases
from bridge.udp.latest import LatestSender, PendingState
from bridge.udp.lone import LONE_BYTES, LONE_TEXT
from bridge.udp.loss import Carried, Fate, SentLedger, SentRun
from bridge.udp.messages import OutgoingMessages
from bridge.udp.peers import Address
from bridge.udp.probe import ProbeTimer
from bridge.udp.proving import Unproven
from bridge.udp.rate import Pacer, StateRate
from bridge.udp.rtt import RttEstimator
from bridge.udp.sealing import Reserved, Sealer
from bridge.udp.stamps import StampExchange
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    DATA_HEADER_BYTES,
    TAG_BYTES,
)
from bridge.udp.workspace import RUN_ROWS, Matrix

_PROBE_DATAGRAMS: Final = 2
_new: Final = tuple.__new__
"""What the constructor of a named tuple comes down to, without the cost of calling it."""
_COLLAPSE_BACKOFF: Final = 3
_MAX_ANSWERS: Final = 64
"""Datagrams that wait to be taken, beyond which what the peer asks for is not answered."""
_PING_FRAME: Final = encode_frame(Ping())


class Outbound:
    """Everything that leaves a session.

    Attributes:
        sealer: its keys and sequences.
        ledger: what is in flight.
        rate: how fast it may be.
        messages: of both kinds.
        latest: states.
        ping_wanted: whether the next datagram is to be answered.
        is_closed: whether only what closes the session may still go.
        paced_until: when what waits because of the rate may go on; ``None`` where nothing does.
        paced: how often something waited.
    """

    __slots__ = (
        "_acknowledger",
        "_bytes_sent",
        "_config",
        "_datagrams_sent",
        "_opening",
        "_outbox",
        "_pacer",
        "_probe",
        "_probing",
        "_proof_room",
        "_row",
        "_rtt",
        "_session_id",
        "_stamps",
        "_unproven",
        "_verifier",
        "is_closed",
        "latest",
        "ledger",
        "messages",
        "paced",
        "paced_until",
        "ping_wanted",
        "rate",
        "sealer",
    )

    def __init__(
        self,
        config: UdpConfig,
        *,
        session_id: bytes,
        sealer: Sealer,
        stamps: StampExchange,
        rtt: RttEstimator,
        address: Address,
        remote_window: int,
        verifier: ProofVerifier | None,
        acknowledger: Acknowledger,
        opening: OpeningPhases,
        now: float,
        row: Row | None = None,
    ) -> None:
        """Begin with nothing to send.

        Args:
            address: where datagrams go.
            remote_window: bytes of messages of either kind that the peer takes before it grants more.
            verifier: of the peer's proofs, in a signed session: the keys of both sides.
            acknowledger: what rides along with everything that goes.
            opening: tells the key phase in which the peer seals.
            row: of the session, that which its other parts have; ``None`` for one of its own.
        """
        self._row = row = row or Row(Columns())
        self._config = config
        self._session_id = session_id
        self.sealer = sealer
        self._stamps = stamps
        self._rtt = rtt
        self.address = address
        self._verifier = verifier
        self._acknowledger = acknowledger
        self._opening = opening
        self.ledger = SentLedger(rtt, row=row)
        self.rate = StateRate(
            initial=config.initial_rate, floor=config.min_rate, ceiling=config.max_rate, now=now, row=row
        )
        self._pacer = Pacer(self.rate.bytes_per_second, now=now, row=row)
        self.messages = OutgoingMessages(credit=remote_window, buffer_limit=config.reliable_buffer_bytes)
        # Trees may be as deep as they get: how deep, nobody knows before all of a tick is there.
        self._proof_room = 0 if verifier is None else MAX_PROOF_BYTES
        self.latest = LatestSender(
            max_streams=config.max_state_streams,
            max_state_bytes=MAX_STATE_BYTES - self._proof_room,
            row=row,
        )
        self._outbox: list[Transmit] = []
        self._unproven: list[Unproven] = []
        self.ping_wanted = False
        self.is_closed = False
        self._probe = ProbeTimer(
            rtt, ack_delay=config.max_ack_delay, minimum=config.min_probe_timeout, now=now
        )
        self._probing = False  # messages go past the window, until some did
        self.paced_until: float | None = None
        self.paced = 0
        row.columns.last_sent[row.index] = now
        self._datagrams_sent = 0
        self._bytes_sent = 0

    @property
    def address(self) -> Address:
        """Where datagrams go."""
        address = self._row.columns.addresses[self._row.index]
        assert address is not None
        return address

    @address.setter
    def address(self, address: Address) -> None:
        self._row.columns.addresses[self._row.index] = address

    @property
    def last_sent(self) -> float:
        """When the last datagram went, monotonic seconds."""
        return self._row.columns.last_sent[self._row.index]

    @property
    def datagrams_sent(self) -> int:
        """All that went."""
        return self._datagrams_sent + self._row.columns.lone_datagrams[self._row.index]

    @property
    def bytes_sent(self) -> int:
        """Of UDP payload."""
        return self._bytes_sent + self._row.columns.lone_bytes[self._row.index]

    def drain(self) -> list[Transmit]:
        """What was sealed since the last call."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def take_unproven(self) -> list[Unproven]:
        """Datagrams of :meth:`datagrams_to_send` to be signed and given to :meth:`seal_proven`, in order."""
        unproven, self._unproven = self._unproven, []
        return unproven

    def seal_proven(self, unproven: Unproven, proofs: list[Matrix], *, now: float) -> list[Transmit]:
        """Seal datagrams with their proofs.

        Args:
            proofs: PROOF frames for the next m datagrams, shape (m, size); m together give all.
        """
        transmits = self.sealer.seal_reserved(unproven.reserved, proofs, unproven.address)
        carried, sequence = unproven.carried, unproven.reserved.first
        for transmit in transmits:
            count = transmit.datagram_count
            self._record(sequence, count, transmit.segment, carried, now=now)
            sequence += count
            if carried.batch is not None:
                stream, number = carried.batch
                carried = Carried(batch=(stream + count, number))
        if self.paced_until is not None:
            # Told before these datagrams had their sizes.
            self.paced_until = self._pacer.ready_at()
        return transmits

    @property
    def is_exhausted(self) -> bool:
        """Whether the present key may not seal what waits."""
        room = self.sealer.phases.room(self.sealer.next_sequence, self._config.max_datagrams_per_key)
        return room <= self.latest.waiting

    def send_frames(self, *, now: float, may_sign: bool) -> None:
        """Seal what is due and may go.

        Args:
            may_sign: whether states of a signed session may go; else they stay.
        """
        self.paced_until = None
        acknowledges = self._acknowledger.rides(now=now)
        may_send_reliable = self._may_send_reliable()
        pending = self.latest.pending if may_sign or self._verifier is None else {}
        if not (pending or may_send_reliable or self._acknowledger.is_due or self.ping_wanted):
            return
        draft = Draft()
        prologue = self._stamps.prologue(now=now)
        if acknowledges:
            draft.add(self._acknowledger.frames())
        if self.ping_wanted and not may_send_reliable:
            draft.add(_PING_FRAME)
            draft.is_pinging = True
        self.ping_wanted = False
        allowance = self._pacer.allowance(now)
        is_held_back = False
        # Where states wait too, messages leave them half of the rate.
        messages_to = allowance >> 1 if self.latest.pending else allowance
        while may_send_reliable and self._may_send_reliable(draft.size):
            if draft.size >= messages_to and not self._probing:
                is_held_back = True
                break
            if self.messages.put(draft):
                self._probing = False
            else:
                size = self._emit(draft, now=now, prologue=prologue)
                allowance -= size
                messages_to -= size
                draft = Draft()
        room = self._config.max_flight_datagrams - self.ledger.in_flight
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
            self.latest.sent(state, 1)
        if draft.pieces:
            self._emit(draft, now=now, prologue=prologue)
        if is_held_back:
            self.paced += 1
            self.rate.held_back()
            self.paced_until = self._pacer.ready_at()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent but perhaps an acknowledgement."""
        return not (
            self.latest.pending
            or (self.messages.may_be_held and self.messages.are_held())
            or self.ping_wanted
            or self._outbox
            or self.is_closed
        )

    def lone_state(self) -> PendingState | None:
        """The one state that waits, if it does not have to be proven and nothing but it is to be sent."""
        if (
            self.latest.waiting != 1
            or self.ping_wanted
            or self.is_closed
            or self._verifier is not None
            or self._outbox
            or (self.messages.may_be_held and self.messages.are_held())
        ):
            return None
        (state,) = self.latest.pending.values()
        return state if type(state.payload) is bytes else None

    def lone_went(self) -> None:
        """The :meth:`lone_state` was sealed."""
        self.latest.pending.clear()
        self.latest.waiting = 0
        self.paced_until = None

    def seal_lone(self, stamp: int, *, now: float) -> Transmit | None:
        """Seal the :meth:`lone_state` if it may go and nothing goes along: a round trip waits for this.

        The same as :meth:`send_frames` would make of it, in half the time: so some of what others do in
        methods is written out.

        Args:
            stamp: of ``now``.
        """
        state = self.lone_state()
        if state is None:
            return None
        columns, at = self._row.columns, self._row.index
        sealer = self.sealer
        phases, sequence = sealer.phases, columns.sequence[at]
        if (
            now >= columns.acks_from[at]
            or columns.in_flight[at] >= self._config.max_flight_datagrams
            or sequence >= phases.due_from
            or now >= phases.due_at
            or self._opening.phase > phases.phase
        ):
            return None
        payload, stream, number = state.payload, state.stream, state.number
        assert isinstance(payload, bytes)
        length = len(payload)
        size = LONE_BYTES + length
        if not self._pacer.take(size, now=now):
            return None
        echo, held = self._stamps.echo(now=now)
        datagram = sealer.seal(LONE_TEXT.pack(stamp, echo, held, STATE, stream, number, length) + payload)
        latest = self.latest
        latest.pending.clear()
        latest.waiting = 0
        self.paced_until = None
        columns.last_sent[at] = now
        self._datagrams_sent += 1
        self._bytes_sent += size
        self.rate.sent_bytes += size
        given_up = self.ledger.record(
            SentRun(sequence, now, size, _new(Carried, (None, (), (stream, number), ())))
        )
        if given_up:
            self._resend(given_up)
        return _new(Transmit, (datagram, size, columns.addresses[at]))

    def rest(self) -> None:
        """All that could go went: note whether a state given to it from now on would be all that is to go."""
        self._row.columns.is_idle[self._row.index] = self._verifier is None and self.is_idle

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
        width = LONE_BYTES + payload.shape[1] + self._proof_room
        self._prepare_keys(now=now)
        prologue = self._stamps.prologue(now=now)
        while state.left and sent < room and size < allowance:
            paced = -((size - allowance) // width)
            first, rows = state.take_rows(min(room - sent, paced, RUN_ROWS))
            count = len(rows)
            stream, number = state.stream + first, state.number
            carried = Carried(batch=(stream, number))
            if self._verifier is None:
                sequence = self.sealer.next_sequence
                transmit = self.sealer.seal_batch(
                    prologue, stream=stream, number=number, rows=rows, address=self.address
                )
                self._outbox.append(transmit)
                self._record(sequence, count, transmit.segment, carried, now=now)
            else:
                reserved = self.sealer.reserve_batch(prologue, stream=stream, number=number, rows=rows)
                self._await_proof(reserved, carried, self.address)
            sent += count
            size += count * width
        self.latest.sent(state, sent)
        return sent, size

    def _await_proof(self, reserved: Reserved, carried: Carried, address: Address) -> None:
        assert self._verifier is not None
        recipient = self._verifier.sender.thumbprint_bytes()
        unsigned = Unsigned(recipient, self._session_id, reserved.first, reserved.plaintexts)
        self._unproven.append(Unproven(unsigned, reserved, carried, address))

    def _record(self, sequence: int, count: int, size: int, carried: Carried | None, *, now: float) -> None:
        """Note datagrams of one size that were sealed; those that nobody asks about are not tracked."""
        total = count * size
        self._row.columns.last_sent[self._row.index] = now
        self._datagrams_sent += count
        self._bytes_sent += total
        if carried is not None:
            # Acknowledgements do not ask the rate, so they do not spend it either: to a peer that sends more
            # than this side may, they alone are more, and nothing would be left for states, for ever.
            self._pacer.spend(total)
            self.rate.sent_bytes += total
            given_up = self.ledger.record(SentRun(sequence, now, size, carried, count))
            if given_up:
                self._resend(given_up)

    def _prepare_keys(self, *, now: float) -> None:
        self.sealer.prepare(follow=self._opening.phase, now=now)

    def _may_send_reliable(self, unsealed: int = 0) -> bool:
        # Most datagrams go while no message waits: that is asked first.
        return (
            self.messages.may_be_held
            and self.messages.are_held()
            and self.messages.has_pending
            and (self._probing or self.ledger.reliable_bytes + unsealed < self.ledger.window_bytes)
        )

    def emit_frame(self, frame: bytes, *, now: float, address: Address | None = None) -> None:
        """Seal a datagram of one frame at once, past everything that waits.

        While the kernel has no room nobody takes what was sealed: then answers are left out beyond a few.
        """
        if len(self._outbox) >= _MAX_ANSWERS and not self.is_closed:
            return
        self._row.columns.is_idle[self._row.index] = 0
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
        if draft.is_pinging or draft.is_reliable:
            self._probe.since = now
        if draft.states and self._verifier is not None:
            assert carried is not None
            self._await_proof(self.sealer.reserve(plaintext), carried, address or self.address)
            return DATA_HEADER_BYTES + len(plaintext) + self._proof_room + TAG_BYTES
        sequence = self.sealer.next_sequence
        datagram = self.sealer.seal(plaintext)
        size = len(datagram)
        self._outbox.append(Transmit(datagram, size, address or self.address))
        self._record(sequence, 1, size, carried, now=now)
        return size

    def on_ack(self, largest: int, bits: int, *, now: float) -> None:
        """Apply an ACK frame.

        Raises:
            ProtocolError: it names what was never sent.
        """
        if largest >= self.sealer.next_sequence:
            raise ProtocolError("acknowledgement of a datagram that was never sent")
        self.sealer.phases.acknowledge(largest)
        notes = self.ledger.take_arrived_notes(largest, bits)
        has_arrived = self._settle(largest, bits, now=now) if notes is None else self._notes_arrived(notes)
        if self.rate.update(rtt=self._rtt.smoothed, now=now):
            self._pacer.set_rate(self.rate.bytes_per_second)
        if has_arrived:
            self._probe.backoff = 0
            self._probe.since = now

    def _notes_arrived(self, notes: range) -> bool:
        columns, rate, latest = self._row.columns, self.rate, self.latest
        for note in notes:
            rate.arrived(1, columns.note_times[note])
            latest.acknowledge(columns.note_streams[note], columns.note_numbers[note])
        return True

    def _settle(self, largest: int, bits: int, *, now: float) -> bool:
        """Have the ledger say what arrived and what is lost, and act on it; whether anything arrived."""
        arrived, lost, late = self.ledger.acknowledge(largest, bits, now=now)
        for run, absent in lost:
            self.rate.lost(absent.bit_count(), run.sent_at)
        for run, present in late:
            self.rate.arrived_late(present.bit_count(), run.sent_at)
            self._note_states(run, present)
        for run, present in arrived:
            self.rate.arrived(present.bit_count(), run.sent_at)
            carried = run.carried
            if carried.batch is not None:
                self.latest.acknowledge_run(*carried.batch, present)
                continue
            for state in carried.states:
                self.latest.acknowledge(*state)
            for fragment in carried.fragments:
                self.messages.unordered.acknowledge(*fragment)
        if lost:
            self._resend(lost)
        return bool(arrived)

    def _note_states(self, run: SentRun, present: int) -> None:
        batch = run.carried.batch
        if batch is not None:
            self.latest.acknowledge_run(*batch, present)
        for stream, number in run.carried.states:
            self.latest.acknowledge(stream, number)

    def _resend(self, lost: list[Fate]) -> None:
        for run, _ in lost:
            self.messages.lose(run.carried)

    def probe_at(self, *, is_confirmed: bool) -> float | None:
        """When the peer is to be asked again; ``None`` where nothing waits for it."""
        if is_confirmed and not (self.latest.waiting or self.messages.are_waited_for):
            return None
        return self._probe.due_at()

    def probe_timeout(self) -> float:
        """Seconds after which silence is worth asking about."""
        return self._probe.timeout()

    def probe(self, *, now: float) -> None:
        """The probe timer fired: send the oldest messages in flight again, or ask for an acknowledgement."""
        self._probe.fired(now=now)
        if self._probe.backoff >= _COLLAPSE_BACKOFF:
            self.ledger.collapse_window()
        self._resend(self.ledger.give_up_oldest(_PROBE_DATAGRAMS))
        self._probing = self.messages.has_pending
        self.ping_wanted = not self._probing

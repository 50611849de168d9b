"""An established session: sealed datagrams in, events out, and back. Sans-IO.

After :meth:`Inbound.receive_datagram`, :meth:`Session.handle_timer` or a ``send_…`` call, the owner calls
:meth:`Session.datagrams_to_send`, re-arms by :meth:`Session.get_timer`, then drains
:meth:`Session.next_event`. ``now`` is monotonic seconds and never goes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, SupportsIndex

from bridge.errors import (
    ConfigurationError,
    InvalidStateError,
)
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.columns import Columns, Row
from bridge.udp.config import UdpConfig
from bridge.udp.events import (
    CloseReason,
    SessionClosed,
    SessionEvent,
)
from bridge.udp.evidence import ProofVerifier
from bridge.udp.frames import (
    Close,
    encode_frame,
)
from bridge.udp.inbound import Inbound
from bridge.udp.keys import DirectionKeys, OpeningPhases, SealingPhases
from bridge.udp.latest import check_batch, plain_number
from bridge.udp.opening import Opener
from bridge.udp.outbound import Outbound
from bridge.udp.peers import Address
from bridge.udp.proving import Unproven
from bridge.udp.reliable import ReliableReceiver
from bridge.udp.rtt import RttEstimator
from bridge.udp.sealing import Sealer
from bridge.udp.stamps import StampExchange
from bridge.udp.statistics import SessionStatistics
from bridge.udp.transmit import Transmit
from bridge.udp.unordered import UnorderedReceiver
from bridge.udp.workspace import Matrix, Workspace

_KEYS_KEPT: Final = 3
"""Probe timeouts for which the peer's keys of the phase before are kept (RFC 9001, section 6.5)."""
_CLOSE_COPIES: Final = 3


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
        inbound: takes what comes for it, for the endpoint.
        outbound: what leaves it, likewise.
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
        opener = Opener(
            OpeningPhases(receiving),
            sealing=sealing,
            keep=lambda: _KEYS_KEPT * self.outbound.probe_timeout(),
            workspace=shared,
            row=row,
        )
        self._rtt = RttEstimator(config.initial_rtt)
        stamps = StampExchange(self._rtt, longest=config.idle_timeout, row=row)
        self._verifier = verifier
        reliable = ReliableReceiver(window=config.reliable_window_bytes)
        unordered = UnorderedReceiver(window=config.reliable_window_bytes)
        self.acknowledger = Acknowledger(
            config, replay=opener.replay, reliable=reliable, unordered=unordered, row=row
        )
        self.outbound = Outbound(
            config,
            session_id=session_id,
            sealer=Sealer(sealing, remote_connection_id=remote_connection_id, workspace=shared, row=row),
            stamps=stamps,
            rtt=self._rtt,
            address=address,
            remote_window=remote_window,
            verifier=verifier,
            acknowledger=self.acknowledger,
            opening=opener.phases,
            now=now,
            row=row,
        )
        self.inbound = Inbound(
            config,
            peer=peer,
            session_id=session_id,
            opener=opener,
            reliable=reliable,
            unordered=unordered,
            acknowledger=self.acknowledger,
            outbound=self.outbound,
            stamps=stamps,
            rtt=self._rtt,
            verifier=verifier,
            random_bytes=random_bytes,
            violated=self._violated,
            closed=self._closed_by_peer,
            now=now,
            row=row,
        )
        self._closed_event: SessionClosed | None = None
        self._why_closed = ""
        self._close_frame: Close | None = None
        self.is_closed = False
        """Nothing more is accepted; a last CLOSE may still have to be sent."""
        self._is_disowned = False

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
        return self.inbound.opener.replay.largest >= 0

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
        self.outbound.messages.write_ordered(message)
        self._on_pending(self)

    @property
    def reliable_end(self) -> int:
        """Where the last message of :meth:`send_reliable` ends: bytes since the session began."""
        return self.outbound.messages.reliable.end

    @property
    def reliable_taken(self) -> int:
        """Up to where the peer's application has taken messages, as its credit for them tells.

        More than an acknowledgement, which tells that they arrived.
        """
        return self.outbound.messages.reliable.taken

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
        self.outbound.messages.write_unordered(message)
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
        while (
            max(self.outbound.messages.reliable.buffered, self.outbound.messages.unordered.buffered) > limit
        ):
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
            datagrams_received=self.inbound.datagrams,
            bytes_sent=self.outbound.bytes_sent,
            bytes_received=self.inbound.bytes,
            datagrams_lost=self.outbound.ledger.lost,
            states_superseded=self.outbound.latest.superseded,
            address_changes=self.inbound.address_changes,
            rekeys=self.outbound.sealer.phases.phase,
            rtt=None if self._rtt.latest is None else self._rtt.smoothed,
            rtt_minimum=self._rtt.minimum,
            reliable_buffered=self.outbound.messages.reliable.buffered,
            reliable_credit=self.outbound.messages.reliable.available_credit,
            unordered_buffered=self.outbound.messages.unordered.buffered,
            unordered_credit=self.outbound.messages.unordered.available_credit,
            reassembly_bytes=self.inbound.reliable.buffered + self.inbound.unordered.buffered,
            congestion_window=self.outbound.ledger.window_bytes,
            signatures_checked=0 if self._verifier is None else self._verifier.signatures_checked,
            rate=self.outbound.rate.bytes_per_second,
            loss=self.outbound.rate.loss,
            paced=self.outbound.paced,
            drops=dict(self.inbound.drops),
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
        timer = self.inbound.last_received + config.idle_timeout
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
        if now >= self.inbound.last_received + self._config.idle_timeout:
            self._finish(CloseReason.IDLE, by_peer=False, detail="nothing received")
            return
        self.inbound.opener.phases.forget_previous(now=now)
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
        inbound = self.inbound
        return bool(inbound.states.states or inbound.may_have_messages or self._closed_event)

    def next_event(self) -> SessionEvent | None:
        """The next event, or ``None``: messages, then states, then the end.

        Taking a message gives its bytes back to the peer as credit.
        """
        inbound = self.inbound
        if inbound.may_have_messages and (message := inbound.next_message()) is not None:
            if not self.is_closed and self.acknowledger.message_taken():
                self._on_pending(self)
            return message
        if inbound.states.states:
            return inbound.states.pop()
        closed, self._closed_event = self._closed_event, None
        return closed

    def _violated(self, what: str) -> None:
        self.close(CloseReason.PROTOCOL_ERROR, what)

    def _closed_by_peer(self, reason: CloseReason, text: str) -> None:
        self._finish(reason, by_peer=True, detail=text)

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
            undelivered=self.outbound.messages.reliable.undelivered(),
            undelivered_unordered=self.outbound.messages.unordered.undelivered(),
        )

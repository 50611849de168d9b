"""Many sessions on one socket: peers, dispatch by connection id, who has something to send. Sans-IO."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from bridge.errors import (
    ConfigurationError,
    DecodeError,
    InvalidStateError,
)
from bridge.jose import Jwk
from bridge.udp.bucket import TokenBucket
from bridge.udp.columns import Columns
from bridge.udp.config import UdpConfig
from bridge.udp.events import CloseReason, PeerUnreachable, SessionEstablished, UdpEvent
from bridge.udp.evidence import ProofVerifier, TickSigner
from bridge.udp.evidence.tree import MAX_LEAVES, SALT_BYTES, LeafHasher
from bridge.udp.fanout import FanOut
from bridge.udp.handshake import (
    Agreement,
    Initiator,
    Responder,
)
from bridge.udp.handshakes import Handshakes
from bridge.udp.latest import Matrix
from bridge.udp.lone import FEW
from bridge.udp.peers import Address, Peer, PeerTable
from bridge.udp.proving import SigningPace, Unproven
from bridge.udp.session import Session
from bridge.udp.stamps import stamp_of
from bridge.udp.statistics import DropReason, EndpointStatistics
from bridge.udp.timers import Timers
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    CONNECTION_ID,
    DATA,
    MAX_DATAGRAM_BYTES,
    MIN_DATA_BYTES,
    Init,
    Reply,
    Retry,
    parse_datagram_untrusted,
)
from bridge.udp.workspace import RUN_ROWS, Workspace

_DATA_HEAD_BYTES: Final = 1 + CONNECTION_ID.size
_MAX_ANSWERS: Final = 1024
"""To INITs, beyond which none is answered before those are taken: twice what comes in one turn."""
_FEW: Final = 4
"""Datagrams that are cheaper one by one than as a run."""


_logger = logging.getLogger("bridge.udp")


def _ignore() -> None:
    return None


def _ignore_session(_session: Session) -> None:
    return None


class Endpoint:
    """One identity, one socket's worth of sessions.

    After every verb that takes ``now`` the owner sends :meth:`datagrams_to_send`, re-arms by
    :meth:`get_timer` and drains :meth:`next_event`. Between verbs ``on_pending`` tells it that the
    application gave a session something to send.
    """

    def __init__(
        self,
        config: UdpConfig,
        *,
        identity: Jwk,
        random_bytes: Callable[[int], bytes],
        unix_ms: Callable[[], int],
        on_pending: Callable[[], None] = _ignore,
        on_heard: Callable[[Session], None] = _ignore_session,
        wait: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        """Make an endpoint without peers.

        Args:
            identity: private P-256 key.
            random_bytes: gives as many unpredictable bytes as asked for.
            unix_ms: the wall clock, for the issue times of handshakes and the claims of signed states alone.
            on_heard: called when a session that may ``wait`` took something, or ended.
            wait: lets a session wait for that. With it the events of sessions are taken from them, and
                :meth:`next_event` has those of the endpoint alone.
        """
        if not identity.is_private or identity.curve != "P-256":
            raise ConfigurationError("the identity of an endpoint is a private key on P-256")
        self._config = config
        self._identity = identity
        self._random_bytes = random_bytes
        self._unix_ms = unix_ms
        self._on_pending = on_pending
        self._on_heard = on_heard
        self._wait = wait
        self._peers = PeerTable(maximum=config.max_peers)
        self._by_connection: dict[int, Session] = {}
        self._established: dict[str, Session] = {}
        self._unconfirmed: dict[Session, Initiator | Responder] = {}
        self._handshakes = Handshakes(
            config,
            identity=identity,
            peers=self._peers,
            connections=self._by_connection,
            random_bytes=random_bytes,
            unix_ms=unix_ms,
        )

        self._workspace = Workspace()
        self._columns = Columns()
        self._fanout = FanOut(
            config,
            columns=self._columns,
            workspace=self._workspace,
            touch=self._touch,
            went_alone=self._went_alone,
        )
        self._hasher = LeafHasher()
        self._signer = TickSigner(identity, self._hasher)
        self._pace = SigningPace(per_second=config.signatures_per_second, burst=config.signature_burst)
        self._held: dict[Session, None] = {}  # with states that wait for their turn to be signed
        self._outbox: list[Transmit] = []
        self._dirty: dict[Session, None] = {}
        self._ready: dict[Session, None] = {}
        self._events: deque[UdpEvent] = deque()
        self._timers: Timers[Session] = Timers()
        self._is_closed = False

        self._drops: Counter[DropReason] = Counter()
        self._received = 0
        self._sent = 0

    def add_peer(self, peer: Peer) -> None:
        """Allow sessions with a peer, or change its address or key; another key ends the old key's session.

        Raises:
            ConfigurationError: our own key, a key another peer has, or too many peers.
        """
        if peer.thumbprint == self._identity.thumbprint():
            raise ConfigurationError(f"peer {peer.name} has this endpoint's own key")
        old = self._peers.add(peer)
        if old is not None and old.thumbprint != peer.thumbprint:
            self._forget_peer(peer.name)

    def peer(self, name: str) -> Peer:
        """The peer of that name.

        Raises:
            ConfigurationError: it was not added.
        """
        return self._peers.by_name(name)

    def remove_peer(self, name: str) -> None:
        """Forget a peer and end what runs with it; unknown names are fine."""
        if self._peers.remove(name) is not None:
            self._forget_peer(name)

    def _forget_peer(self, name: str) -> None:
        if self.is_connecting(name):
            self._events.append(PeerUnreachable(peer=name))
            self._on_pending()
        self._handshakes.forget_peer(name)
        self._discard_unconfirmed(name)
        session = self._established.get(name)
        if session is not None:
            session.close(CloseReason.PEER_REMOVED)

    def connect(self, name: str, *, now: float) -> None:
        """Begin a handshake, unless a session or handshake with the peer exists.

        :class:`SessionEstablished` or :class:`PeerUnreachable` follows.

        Raises:
            ConfigurationError: no such peer.
            InvalidStateError: the endpoint is closed.
        """
        peer = self._peers.by_name(name)
        if self._is_closed:
            raise InvalidStateError("the endpoint is closed")
        if self.session(name) is not None:
            return
        self._handshakes.initiate(peer, now=now)
        self._on_pending()

    def session(self, name: str) -> Session | None:
        """The established session with a peer, or ``None``."""
        session = self._established.get(name)
        return None if session is None or session.is_closed else session

    def sessions(self) -> list[Session]:
        """All established sessions."""
        return [session for session in self._established.values() if not session.is_closed]

    def is_connecting(self, name: str) -> bool:
        """Whether a :meth:`connect` is under way, by our own handshake or by waiting for the peer's."""
        return self._handshakes.is_wanted_with(name)

    def close(self) -> None:
        """Close all sessions; :meth:`datagrams_to_send` then gives the last datagrams."""
        self._is_closed = True
        for name in {handshake.peer.name for handshake in self._handshakes}:
            self._handshakes.discard(name)
            self._discard_unconfirmed(name)
        for session in list(self._established.values()):
            session.close(CloseReason.SHUTDOWN)

    def disown(self) -> None:
        """Let all sessions go without a word, in a child of the process that they belong to."""
        self._is_closed = True
        for session in {*self._by_connection.values(), *self._established.values()}:
            session.disown()
        self._handshakes.disown()
        self._fanout.disown()
        self._dirty.clear()
        self._outbox.clear()

    def statistics(self) -> EndpointStatistics:
        """Counters so far."""
        return EndpointStatistics(
            peers=len(self._peers),
            sessions=len(self._established),
            handshakes_pending=len(self._handshakes),
            handshakes_checked=self._handshakes.admission.checked,
            retries=self._handshakes.admission.retries,
            signatures_made=self._signer.signatures_made,
            datagrams_received=self._received,
            datagrams_sent=self._sent,
            drops=dict(self._drops),
        )

    def receive_datagram(self, data: bytes | memoryview, address: Address, *, now: float) -> None:
        """Take any datagram from anybody; never raises for what is in it.

        Args:
            data: not kept, so it may be a view of a buffer that is used again.
        """
        self._received += 1
        reason: DropReason | None
        if MIN_DATA_BYTES <= len(data) <= MAX_DATAGRAM_BYTES and data[0] & 0xFE == DATA:
            # What the parser of all others would find, without the object it would make.
            session = self._by_connection.get(CONNECTION_ID.unpack_from(data, 1)[0])
            if session is None:
                self._drops[DropReason.UNKNOWN_CONNECTION] += 1
            elif (reason := session.inbound.receive_datagram(data, address, now=now)) is None:
                self._heard(session)
            else:
                self._drops[reason] += 1
            return
        try:
            datagram = parse_datagram_untrusted(data)
        except DecodeError:
            reason = DropReason.MALFORMED
        else:
            if self._is_closed:
                reason = DropReason.CLOSED
            elif isinstance(datagram, Init):
                reason = self._on_init(datagram, address, now=now)
            elif isinstance(datagram, Reply):
                reason = self._on_reply(datagram, now=now)
            else:
                assert isinstance(datagram, Retry)
                reason = self._handshakes.receive_retry(datagram, now=now)
        if reason is not None:
            self._drops[reason] += 1

    def receive_run(self, data: memoryview, segment: int, address: Address, *, now: float) -> None:
        """Take datagrams that came together; never raises for what is in them.

        Args:
            data: datagrams of ``segment`` bytes back to back, the last perhaps shorter; not kept.
        """
        size = len(data)
        start = 0
        if segment * _FEW <= size and MIN_DATA_BYTES <= segment <= MAX_DATAGRAM_BYTES:
            whole = size // segment
            datagrams = np.frombuffer(data, dtype=np.uint8, count=whole * segment).reshape(whole, segment)
            heads = datagrams[:, :_DATA_HEAD_BYTES]
            if data[0] & 0xFE == DATA and (heads == heads[0]).all():
                session = self._by_connection.get(CONNECTION_ID.unpack_from(data, 1)[0])
                if session is not None:
                    for first in range(0, whole, RUN_ROWS):
                        rows = datagrams[first : first + RUN_ROWS]
                        run = data[first * segment : (first + len(rows)) * segment]
                        self._drops.update(session.inbound.receive_run(run, rows, address, now=now))
                    self._received += whole
                    self._heard(session)
                    start = whole * segment
        for at in range(start, size, segment):
            self.receive_datagram(data[at : at + segment], address, now=now)

    def _heard(self, session: Session) -> None:
        acknowledger, row = session.acknowledger, session.row
        if session in self._unconfirmed:
            if session.is_confirmed and not session.is_closed:
                self._establish(session)
            self._touch(session)
        elif acknowledger.is_due:
            self._touch(session)
        elif row.columns.is_idle[row.index] or session.outbound.is_idle:
            # What came wants an answer later, or none; but for that, timers move back.
            self._arm_for(session, acknowledger.due_at)
        else:
            self._touch(session)
        if self._wait is not None:
            self._on_heard(session)
        elif session.has_events:
            self._ready[session] = None

    def _on_init(self, init: Init, address: Address, *, now: float) -> DropReason | None:
        if len(self._outbox) >= _MAX_ANSWERS:
            return DropReason.HANDSHAKE_RATE
        answer = self._handshakes.receive_init(init, address, now=now)
        if isinstance(answer, DropReason):
            return answer
        if isinstance(answer, Transmit):
            self._outbox.append(answer)
            return None
        session = self._by_connection.get(answer.parameters.connection_id)
        if session is None:
            self._begin_session(answer, answer.agreement, address, now=now)
        else:
            session.move(address)
        self._outbox.append(Transmit.of_one(answer.reply, address))
        return None

    def _on_reply(self, reply: Reply, *, now: float) -> DropReason | None:
        answer = self._handshakes.receive_reply(reply, now=now)
        if isinstance(answer, DropReason):
            return answer
        initiator, agreement = answer
        # Where the INIT went, wherever the REPLY says it is from: only there the INIT can have been read.
        address = initiator.peer.address
        self._begin_session(initiator, agreement, address, now=now).request_confirmation()
        return None

    def _begin_session(
        self, handshake: Initiator | Responder, agreement: Agreement, address: Address, *, now: float
    ) -> Session:
        session = Session(
            peer=handshake.peer.name,
            session_id=handshake.session_id,
            config=self._config,
            sending=agreement.sending,
            receiving=agreement.receiving,
            connection_id=handshake.parameters.connection_id,
            remote_connection_id=agreement.remote.connection_id,
            remote_window=agreement.remote.reliable_window,
            address=address,
            random_bytes=self._random_bytes,
            now=now,
            workspace=self._workspace,
            columns=self._columns,
            verifier=self._verifier(handshake) if agreement.is_signed else None,
            on_pending=self._mark,
            wait=self._wait,
        )
        self._by_connection[session.connection_id] = session
        self._unconfirmed[session] = handshake
        return session

    def _verifier(self, handshake: Initiator | Responder) -> ProofVerifier:
        config = self._config
        return ProofVerifier(
            sender=handshake.peer.public_key,
            recipient=self._identity.thumbprint_bytes(),
            session_id=handshake.session_id,
            # Twice what an endpoint like this one makes: ticks bunch up on their way.
            checks=TokenBucket(rate=2 * config.signatures_per_second, burst=2 * config.signature_burst),
            hasher=self._hasher,
        )

    def _establish(self, session: Session) -> None:
        self._handshakes.confirm(self._unconfirmed.pop(session))
        self._discard_unconfirmed(session.peer)
        old = self._established.get(session.peer)
        if old is not None:
            old.abandon(CloseReason.DISPLACED)
            self._remove(old)
        self._established[session.peer] = session
        self._events.append(SessionEstablished(peer=session.peer, session=session))

    def _discard_unconfirmed(self, name: str) -> None:
        for session in [session for session in self._unconfirmed if session.peer == name]:
            del self._unconfirmed[session]
            self._let_go(session)

    def _let_go(self, session: Session) -> None:
        self._by_connection.pop(session.connection_id, None)
        self._timers.forget(session)
        self._dirty.pop(session, None)
        self._ready.pop(session, None)
        self._held.pop(session, None)
        self._fanout.forget_crowd()

    def _remove(self, session: Session) -> None:
        self._let_go(session)
        handshake = self._unconfirmed.pop(session, None)
        if handshake is not None:
            # Nobody has heard of this session yet, so nobody hears of its end; the handshake's is told.
            self._fail(handshake)
            return
        if self._established.get(session.peer) is session:
            del self._established[session.peer]
        if self._wait is not None:
            self._on_heard(session)
            return
        while (event := session.next_event()) is not None:
            self._events.append(event)

    def _fail(self, handshake: Initiator | Responder) -> None:
        self._handshakes.fail(handshake)
        if isinstance(handshake, Initiator):
            self._events.append(PeerUnreachable(peer=handshake.peer.name))

    def _mark(self, session: Session) -> None:
        if not self._dirty:
            self._on_pending()  # else it was told, or is about to send in any case
        self._dirty[session] = None
        self._columns.is_idle[session.row.index] = 0

    def _touch(self, session: Session) -> None:
        """Have the session looked at with the next datagrams."""
        self._dirty[session] = None
        self._columns.is_idle[session.row.index] = 0

    def send_states(
        self, sessions: Sequence[Session], payloads: Matrix, stream: SupportsIndex = 0
    ) -> npt.NDArray[np.int64]:
        """Give many sessions their newest state of a stream: see :meth:`UdpEngine.send_states`.

        Args:
            payloads: kept until the next :meth:`datagrams_to_send`, which is to follow at once.
        """
        return self._fanout.give(sessions, payloads, stream)

    def part_states(self) -> None:
        """Hand what :meth:`send_states` was given to its sessions, where it waits and is superseded."""
        self._fanout.part()

    def _went_alone(self, session: Session) -> None:
        """A state of it did: what it waits for moves back as time goes by, but for one thing."""
        self._columns.is_idle[session.row.index] = 1
        self._arm_for(session, session.acknowledger.due_at)

    def datagrams_to_send(self, *, now: float) -> list[Transmit]:
        """Everything due, datagrams of one session next to each other; each is handed out once.

        What is a view is good until the next call.
        """
        handshakes, fanout = self._handshakes, self._fanout
        if not (self._dirty or self._outbox or handshakes.initiators or fanout.queued):
            return []
        outbox, self._outbox = self._outbox, []
        if handshakes.initiators:
            outbox += handshakes.datagrams_to_send(now=now)
        may_sign = now >= self._pace.due_at
        unproven: list[tuple[Session, Unproven]] = []
        stamp = stamp_of(now)
        alone = fanout.seal_queued(now=now) if fanout.queued else []
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            visits: Iterable[Session] = dirty
            if len(dirty) >= FEW:
                sealed, visits = fanout.seal_alone(dirty, now=now)
                alone += sealed
            for session in visits:
                try:
                    one = session.outbound.seal_lone(stamp, now=now)
                    if one is not None:
                        alone.append(one)
                        self._went_alone(session)
                        continue
                    outbox += session.datagrams_to_send(now=now, may_sign=may_sign)
                    if session.is_signed and not session.is_closed:
                        unproven += [(session, waiting) for waiting in session.take_unproven()]
                except Exception as error:  # the other peers' datagrams must go all the same
                    self._give_up(session, error)
                    continue
                if session.is_closed:
                    self._remove(session)
                    self._initiate_wanted(session.peer, now=now)
                    continue
                if session.is_signed and session.states_waiting and not may_sign:
                    self._held[session] = None
                session.outbound.rest()
                self._arm(session)
        if unproven:
            outbox += self._seal_proven(unproven, now=now)
        self._sent += len(alone)
        if not outbox:
            return alone
        for transmit in outbox:
            self._sent += 1 if len(transmit.payload) <= transmit.segment else transmit.datagram_count
        outbox += alone
        return outbox

    def _seal_proven(self, unproven: list[tuple[Session, Unproven]], *, now: float) -> list[Transmit]:
        """Sign the states of all sessions together, and have each session seal its own."""
        total = sum(waiting.unsigned.datagrams for _, waiting in unproven)
        proofs = self._signer.sign(
            [waiting.unsigned for _, waiting in unproven],
            sealed_at_ms=self._unix_ms(),
            salts=self._random_bytes(SALT_BYTES * total),
        )
        self._pace.signed(-(-total // MAX_LEAVES), now=now)
        transmits: list[Transmit] = []
        for (session, waiting), frames in zip(unproven, proofs, strict=True):
            try:
                transmits += session.seal_proven(waiting, frames, now=now)
            except Exception as error:
                self._give_up(session, error)
            else:
                self._arm(session)
        return transmits

    def _give_up(self, session: Session, error: Exception) -> None:
        """Something was raised that should not be: end that session, so that all others go on."""
        _logger.error("session with %s failed and is closed", session.peer, exc_info=error)
        if session.is_closed:
            self._remove(session)
        else:
            session.fail(error)

    def _arm_for(self, session: Session, due: float | None) -> None:
        """Where nothing that it waits for can have come nearer, but what is ``due`` then."""
        armed = self._timers.armed.get(session)
        if armed is None or (due is not None and due < armed):
            self._arm(session)

    def _arm(self, session: Session) -> None:
        if session.connection_id in self._by_connection:
            self._timers.arm(session)

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called, monotonic seconds; ``None`` for never."""
        first, handshakes = self._timers.first(), self._handshakes
        if not (self._held or handshakes.initiators or handshakes.responders):
            return first
        timers = (first, self._pace.due_at if self._held else None, handshakes.get_timer())
        return min(timer for timer in timers if timer is not None)

    def handle_timer(self, *, now: float) -> None:
        """Do what is due; early calls are harmless."""
        for session in self._timers.due(now=now):
            try:
                session.handle_timer(now=now)
            except Exception as error:
                self._give_up(session, error)
            self._touch(session)
        if self._held and now >= self._pace.due_at:
            self._dirty |= self._held  # of signed sessions, which are never idle
            self._held.clear()
        self._expire_handshakes(now=now)

    def _expire_handshakes(self, *, now: float) -> None:
        for handshake in self._handshakes:
            if now < handshake.deadline:
                continue
            session = self._by_connection.get(handshake.parameters.connection_id)
            if session is not None:
                self._remove(session)
            else:
                self._fail(handshake)
            self._initiate_wanted(handshake.peer.name, now=now)

    def _initiate_wanted(self, name: str, *, now: float) -> None:
        """A handshake of the peer came to nothing: go on with our own, should it have waited for that one."""
        if not self._is_closed and self._handshakes.take_wanted(name):
            self.connect(name, now=now)

    def next_event(self) -> UdpEvent | None:
        """The next event, or ``None``. Messages stay with their session, unpaid, until asked for here."""
        if self._events:
            return self._events.popleft()
        while self._ready:
            session = next(iter(self._ready))
            event = None if session in self._unconfirmed else session.next_event()
            if event is None or not session.has_events:
                del self._ready[session]
            if event is not None:
                return event
        return None

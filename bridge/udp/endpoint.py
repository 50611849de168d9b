"""Many sessions on one socket: peers, handshakes, dispatch by connection id. Sans-IO.

What a stranger's datagram can cost is bounded at every step: a look at its first bytes, under load a cookie
that shows it can read where it says it is, then a look-up of the thumbprint it names among the peers that
were added, then a token bucket, and only then a signature check. No address gets more bytes than came from it
before it is proven: by a cookie, by a datagram sealed with keys that only the REPLY sent there gives, or by
the answer to a challenge.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from bridge.errors import (
    BoxError,
    ConfigurationError,
    DecodeError,
    InvalidStateError,
    KeyFormatError,
    SignatureError,
)
from bridge.jose import Jwk, peek_claims_untrusted
from bridge.udp.acknowledger import Acknowledger
from bridge.udp.admission import Admission
from bridge.udp.bucket import TokenBucket
from bridge.udp.columns import Columns
from bridge.udp.config import UdpConfig
from bridge.udp.cookie import SECRET_BYTES
from bridge.udp.events import CloseReason, PeerUnreachable, SessionEstablished, UdpEvent
from bridge.udp.evidence import ProofVerifier, TickSigner
from bridge.udp.evidence.tree import MAX_LEAVES, SALT_BYTES, LeafHasher
from bridge.udp.handshake import (
    Agreement,
    HandshakeState,
    HandshakeTimes,
    Initiator,
    Responder,
    sender_untrusted,
)
from bridge.udp.latest import Matrix, PendingState, check_state
from bridge.udp.lone import FEW, LONE_BYTES, Lone, has_to_tell, may_go, seal_lone
from bridge.udp.peers import Address, Peer, PeerTable
from bridge.udp.proving import SigningPace, Unproven
from bridge.udp.session import Session, check_batch, plain_number
from bridge.udp.stamps import stamp_of
from bridge.udp.statistics import DropReason, EndpointStatistics
from bridge.udp.timers import Timers
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    CONNECTION_ID,
    DATA,
    MAX_DATAGRAM_BYTES,
    MAX_STATE_BYTES,
    MIN_DATA_BYTES,
    Data,
    Init,
    Parameters,
    Reply,
    Retry,
    encode_retry,
    parse_datagram_untrusted,
)
from bridge.udp.workspace import RUN_ROWS, Sheet, Workspace

_REFUSED: Final = (BoxError, SignatureError, DecodeError, KeyFormatError)
_DATA_HEAD_BYTES: Final = 1 + CONNECTION_ID.size
_FEW: Final = 4
"""Datagrams that are cheaper one by one than as a run."""


_logger = logging.getLogger("bridge.udp")


def _ignore() -> None:
    return None


def _ignore_session(_session: Session) -> None:
    return None


class _Queued(NamedTuple):
    """States given to many sessions at once, row i being that of session i."""

    sessions: list[Session]
    lone: Lone


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
            on_heard: called when a session took something, or ended.
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
        self._admission = Admission(config, cookie_secret=random_bytes(SECRET_BYTES))

        self._by_connection: dict[int, Session] = {}
        self._established: dict[str, Session] = {}
        self._unconfirmed: dict[Session, Initiator | Responder] = {}
        self._initiators: dict[str, Initiator] = {}
        self._initiator_by_connection: dict[int, Initiator] = {}
        self._initiator_by_digest: dict[bytes, Initiator] = {}
        self._responders: dict[
            bytes, Responder
        ] = {}  # by the INIT's box, so that a repetition costs no check
        self._wanted: set[str] = set()  # to be initiated should the peer's own handshake come to nothing
        self._newest_init: dict[str, int] = {}

        self._workspace = Workspace()
        self._columns = Columns()
        self._crowd: tuple[list[Session], npt.NDArray[np.intp]] | None = None
        self._queued: _Queued | None = None
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
        self._newest_init.pop(name, None)
        self._wanted.discard(name)
        self._discard_handshakes(name)
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
        if self.session(name) is not None or name in self._initiators:
            return
        if any(responder.peer.name == name for responder in self._responders.values()):
            # A second handshake beside the peer's own could leave each side with another session.
            self._wanted.add(name)
            return
        initiator = Initiator(
            identity=self._identity,
            peer=peer,
            session_id=self._random_bytes(16),
            parameters=self._parameters(),
            times=self._times(now),
            retry_interval=self._config.handshake_retry,
        )
        self._initiators[name] = initiator
        self._initiator_by_connection[initiator.parameters.connection_id] = initiator
        self._initiator_by_digest[initiator.init_digest] = initiator
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
        return name in self._initiators or name in self._wanted

    def close(self) -> None:
        """Close all sessions; :meth:`datagrams_to_send` then gives the last datagrams."""
        self._is_closed = True
        for name in {*self._initiators, *(responder.peer.name for responder in self._responders.values())}:
            self._discard_handshakes(name)
        for session in list(self._established.values()):
            session.close(CloseReason.SHUTDOWN)

    def disown(self) -> None:
        """Let all sessions go without a word, in a child of the process that they belong to."""
        self._is_closed = True
        for session in {*self._by_connection.values(), *self._established.values()}:
            session.disown()
        self._initiators.clear()
        self._responders.clear()
        self._queued = None
        self._dirty.clear()
        self._outbox.clear()

    def statistics(self) -> EndpointStatistics:
        """Counters so far."""
        return EndpointStatistics(
            peers=len(self._peers),
            sessions=len(self._established),
            handshakes_pending=self._pending,
            handshakes_checked=self._admission.checked,
            retries=self._admission.retries,
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
        if MIN_DATA_BYTES <= len(data) <= MAX_DATAGRAM_BYTES and data[0] == DATA:
            # The data path: what the general parser would find, without the object it would make.
            session = self._by_connection.get(CONNECTION_ID.unpack_from(data, 1)[0])
            if session is None:
                self._drops[DropReason.UNKNOWN_CONNECTION] += 1
            elif (reason := session.receive_datagram(data, address, now=now)) is None:
                self._heard(session)
            else:
                self._drops[reason] += 1
            return
        try:
            datagram = parse_datagram_untrusted(data)
        except DecodeError:
            reason = DropReason.MALFORMED
        else:
            if isinstance(datagram, Data):
                reason = self._on_data(datagram.connection_id, data, address, now=now)
            elif self._is_closed:
                reason = DropReason.CLOSED
            elif isinstance(datagram, Init):
                reason = self._on_init(datagram, address, now=now)
            elif isinstance(datagram, Reply):
                reason = self._on_reply(datagram, now=now)
            else:
                reason = self._on_retry(datagram, now=now)
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
                        self._drops.update(session.receive_run(run, rows, address, now=now))
                    self._received += whole
                    self._heard(session)
                    start = whole * segment
        for at in range(start, size, segment):
            self.receive_datagram(data[at : at + segment], address, now=now)

    def _heard(self, session: Session) -> None:
        if session in self._unconfirmed:
            if session.is_confirmed and not session.is_closed:
                self._establish(session)
            self._touch(session)
        elif session.acknowledger.is_due or not session.outbound.is_idle:
            self._touch(session)
        else:
            # What came wants an answer later, or none; but for that, timers move back.
            self._arm_for(session, session.acknowledger.due_at)
        if self._wait is None and session.has_events:
            self._ready[session] = None
        self._on_heard(session)

    def _on_data(
        self, connection_id: int, data: bytes | memoryview, address: Address, *, now: float
    ) -> DropReason | None:
        session = self._by_connection.get(connection_id)
        if session is None:
            return DropReason.UNKNOWN_CONNECTION
        reason = session.receive_datagram(data, address, now=now)
        if reason is None:
            self._heard(session)
        return reason

    def _on_init(self, init: Init, address: Address, *, now: float) -> DropReason | None:
        box, cookie = init
        unix_ms = self._unix_ms()
        is_proven = self._admission.is_proven(cookie, box, address, unix_ms=unix_ms)
        repeated = self._responders.get(box)
        if repeated is not None:
            session = self._by_connection[repeated.parameters.connection_id]
            if is_proven or address == session.address:
                # Only where the REPLY was read can its keys be known, so it goes to one address at a time.
                session.move(address)
                self._outbox.append(Transmit.of_one(repeated.reply, address))
                return None
        pending = self._pending
        if not is_proven and (repeated is not None or self._admission.is_loaded(pending=pending, now=now)):
            retry = encode_retry(box, self._admission.bake(box, address, unix_ms=unix_ms))
            self._outbox.append(Transmit.of_one(retry, address))
            return None
        try:
            peer = self._peers.by_thumbprint(sender_untrusted(box))
            if peer is None:
                return DropReason.STRANGER
            claims = peek_claims_untrusted(box.decode("ascii", "replace"))
        except _REFUSED:
            return DropReason.BAD_BOX
        if self._admission.is_replayed(claims):
            return DropReason.REPLAYED
        if claims.issued_at_ms <= self._newest_init.get(peer.name, -1):
            return DropReason.STALE_HANDSHAKE
        if (
            peer.name in self._initiators
            and self._identity.thumbprint_bytes() < peer.public_key.thumbprint_bytes()
        ):
            return DropReason.YIELDED
        if not self._admission.may_check(
            proven=address if is_proven else None,
            pending=pending,
            pending_of_peer=sum(other.peer.name == peer.name for other in self._responders.values()),
            unix_ms=unix_ms,
            now=now,
        ):
            return DropReason.HANDSHAKE_RATE
        try:
            responder = Responder(
                identity=self._identity,
                peer=peer,
                box=box,
                claims=claims,
                parameters=self._parameters(),
                times=self._times(now),
            )
        except _REFUSED:
            return DropReason.BAD_BOX
        self._admission.remember(claims)
        self._responders[box] = responder
        self._begin_session(responder, responder.agreement, address, now=now)
        self._outbox.append(Transmit.of_one(responder.reply, address))
        return None

    def _on_retry(self, retry: Retry, *, now: float) -> DropReason | None:
        initiator = self._initiator_by_digest.get(retry.init_digest)
        if initiator is None:
            return DropReason.UNKNOWN_CONNECTION
        return None if initiator.receive_retry(retry, now=now) else DropReason.REPLAYED

    def _on_reply(self, reply: Reply, *, now: float) -> DropReason | None:
        initiator = self._initiator_by_connection.get(reply.connection_id)
        if initiator is None:
            return DropReason.UNKNOWN_CONNECTION
        if initiator.state is not HandshakeState.INIT_SENT:
            return DropReason.REPLAYED
        if not self._admission.may_check_reply(now=now):
            return DropReason.HANDSHAKE_RATE
        try:
            agreement = initiator.receive_reply(reply, now_ms=self._unix_ms())
        except _REFUSED:
            return DropReason.BAD_BOX
        # Where the INIT went, wherever the REPLY says it is from: only there the INIT can have been read.
        address = initiator.peer.address
        self._begin_session(initiator, agreement, address, now=now).request_confirmation()
        return None

    @property
    def _pending(self) -> int:
        return len(self._responders) + len(self._initiators)

    def _parameters(self) -> Parameters:
        while True:
            connection_id = int.from_bytes(self._random_bytes(4), "big")
            if (
                connection_id not in self._by_connection
                and connection_id not in self._initiator_by_connection
            ):
                return Parameters(connection_id, self._config.reliable_window_bytes, self._config.signed)

    def _times(self, now: float) -> HandshakeTimes:
        return HandshakeTimes(
            now=now,
            now_ms=self._unix_ms(),
            timeout=self._config.handshake_timeout,
            lifetime=self._config.handshake_lifetime,
        )

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
        handshake = self._unconfirmed.pop(session)
        handshake.confirm()
        if isinstance(handshake, Responder):
            self._newest_init[session.peer] = handshake.issued_at_ms
            del self._responders[handshake.init_box]
        else:
            self._forget_initiator(handshake)
        self._wanted.discard(session.peer)
        self._discard_handshakes(session.peer)
        old = self._established.get(session.peer)
        if old is not None:
            old.abandon(CloseReason.DISPLACED)
            self._remove(old)
        self._established[session.peer] = session
        self._events.append(SessionEstablished(peer=session.peer, session=session))

    def _let_go(self, session: Session) -> None:
        self._by_connection.pop(session.connection_id, None)
        self._timers.forget(session)
        self._dirty.pop(session, None)
        self._ready.pop(session, None)
        self._held.pop(session, None)
        self._crowd = None  # so that it does not keep the session

    def _remove(self, session: Session) -> None:
        self._let_go(session)
        handshake = self._unconfirmed.pop(session, None)
        if handshake is not None:
            # Nobody has heard of this session yet, so nobody hears of its end; the handshake's is told.
            self._fail(handshake)
            return
        if self._established.get(session.peer) is session:
            del self._established[session.peer]
        if self._wait is None:
            while (event := session.next_event()) is not None:
                self._events.append(event)
        self._on_heard(session)

    def _fail(self, handshake: Initiator | Responder) -> None:
        handshake.fail()
        name = handshake.peer.name
        if isinstance(handshake, Responder):
            self._responders.pop(handshake.init_box, None)
        else:
            self._forget_initiator(handshake)
            self._events.append(PeerUnreachable(peer=name))

    def _forget_initiator(self, initiator: Initiator) -> None:
        self._initiators.pop(initiator.peer.name, None)
        self._initiator_by_connection.pop(initiator.parameters.connection_id, None)
        self._initiator_by_digest.pop(initiator.init_digest, None)

    def _discard_handshakes(self, name: str) -> None:
        """Drop all unfinished handshakes with a peer without a word: a session exists, or must not."""
        for session in [session for session in self._unconfirmed if session.peer == name]:
            del self._unconfirmed[session]
            self._let_go(session)
        for box in [box for box, responder in self._responders.items() if responder.peer.name == name]:
            self._responders.pop(box).fail()
        initiator = self._initiators.get(name)
        if initiator is not None:
            initiator.fail()
            self._forget_initiator(initiator)

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
        check_batch(payloads)
        stream, count = plain_number(stream), len(sessions)
        if len(payloads) != count:
            raise ConfigurationError(f"{len(payloads)} states for {count} sessions: one row for each")
        if not count:
            return np.empty(0, dtype=np.int64)
        self.part_states()
        columns, (chosen, rows) = self._columns, self._crowd_of(sessions)
        check_state(
            stream,
            1,
            payloads.shape[1],
            max_streams=self._config.max_state_streams,
            max_state_bytes=int(np.asarray(columns.max_state_bytes)[rows].min()),
        )
        newest = np.asarray(columns.number)
        newest[rows] += 1
        np.asarray(columns.is_queued)[rows] = 1
        numbers = newest[rows].astype(np.int64)
        self._queued = _Queued(chosen, Lone(rows, stream, numbers, payloads))
        return numbers

    def _crowd_of(self, sessions: Sequence[Session]) -> tuple[list[Session], npt.NDArray[np.intp]]:
        """Sessions and their rows, remembered: a server has the same players in most of its ticks."""
        if self._crowd is not None and type(sessions) is list and self._crowd[0] == sessions:
            return self._crowd
        chosen = list(sessions)
        own = [session.row for session in chosen]
        if any(row.columns is not self._columns for row in own):
            raise ConfigurationError("a session of another engine is among them")
        if len(set(own)) < len(own):
            # Two datagrams under one sequence would give away both.
            raise ConfigurationError("a session is named twice: a stream of a session has one newest state")
        self._crowd = chosen, np.array([row.index for row in own], dtype=np.intp)
        return self._crowd

    def part_states(self) -> None:
        """Hand what :meth:`send_states` was given to its sessions, where it waits and is superseded."""
        queued, self._queued = self._queued, None
        if queued is not None:
            self._part(queued, range(len(queued.sessions)))

    def _part(self, queued: _Queued, which: Iterable[int]) -> None:
        sessions, (_, stream, numbers, payloads, _) = queued
        assert isinstance(stream, int)
        is_queued = self._columns.is_queued
        for n in which:
            session = sessions[n]
            at = session.row.index
            if is_queued[at] and not session.is_closed:
                session.outbound.latest.put_numbered(stream, payloads[n].tobytes(), int(numbers[n]))
                self._touch(session)
            is_queued[at] = 0

    def _seal_queued(self, queued: _Queued, *, now: float) -> list[Transmit]:
        """Seal what may go of what :meth:`send_states` was given; the rest waits in its sessions."""
        columns, lone = self._columns, queued.lone
        if len(lone.rows) < FEW:
            self._part(queued, range(len(lone.rows)))
            return []
        is_queued = np.asarray(columns.is_queued)
        may = may_go(lone, columns, max_flight=self._config.max_flight_datagrams, now=now)
        may &= (np.asarray(columns.is_idle)[lone.rows] & is_queued[lone.rows]).astype(np.bool_)
        tells = may & has_to_tell(lone, columns, now=now)
        groups = self._acknowledging(queued, np.flatnonzero(tells).tolist()) if tells.any() else []
        alone = np.flatnonzero(may & ~tells)
        groups.append((lone if len(alone) == len(lone.rows) else lone.only(alone), []))
        groups.sort(key=lambda group: len(group[0].rows), reverse=True)
        transmits: list[Transmit] = []
        for group, acknowledgers in groups:
            count, size = len(group.rows), group.size
            plaintexts = self._workspace.buffers_if_worth(size, count) if count >= FEW else None
            if plaintexts is None:
                continue
            sheet = Sheet(size, count) if transmits else self._workspace.sheet(size, count)
            is_queued[group.rows] = 0
            for acknowledger in acknowledgers:
                acknowledger.told()
            transmits += seal_lone(group, columns, plaintexts, sheet, now=now)
        left = np.flatnonzero(is_queued[lone.rows])
        if len(left):
            self._part(queued, left.tolist())
        return transmits

    def _acknowledging(self, queued: _Queued, which: list[int]) -> list[tuple[Lone, list[Acknowledger]]]:
        """States with what their sessions have to tell before them, where both fit, by the length of that."""
        room = MAX_STATE_BYTES - queued.lone.payloads.shape[1]
        by_length: defaultdict[int, list[tuple[int, bytes, Acknowledger]]] = defaultdict(list)
        for n in which:
            acknowledger = queued.sessions[n].acknowledger
            frames = acknowledger.peek()
            if len(frames) <= room:
                by_length[len(frames)].append((n, frames, acknowledger))
        return [
            (queued.lone.only(np.array(chosen, dtype=np.intp), frames), list(acknowledgers))
            for chosen, frames, acknowledgers in (zip(*same, strict=True) for same in by_length.values())
        ]

    def _seal_alone(
        self, dirty: Iterable[Session], *, now: float
    ) -> tuple[list[Transmit], Iterable[Session]]:
        """Seal the states of sessions that have nothing else to send; also, whom else to visit."""
        waiting: defaultdict[int, list[tuple[Session, PendingState, bytes]]] = defaultdict(list)
        rest: list[Session] = []
        for session in dirty:
            state = session.outbound.lone_state()
            if state is None or not isinstance(state.payload, bytes):
                rest.append(session)
            else:
                waiting[len(state.payload)].append((session, state, state.payload))
        transmits: list[Transmit] = []
        for length, same in waiting.items():
            size = LONE_BYTES + length
            plaintexts = self._workspace.buffers_if_worth(size, len(same)) if len(same) >= FEW else None
            if plaintexts is None:
                rest += [session for session, _, _ in same]
                continue
            lone = Lone(
                np.array([session.row.index for session, _, _ in same], dtype=np.intp),
                np.array([state.stream for _, state, _ in same], dtype=np.int64),
                np.array([state.number for _, state, _ in same], dtype=np.int64),
                np.frombuffer(b"".join([payload for _, _, payload in same]), np.uint8).reshape(
                    len(same), length
                ),
            )
            may = may_go(lone, self._columns, max_flight=self._config.max_flight_datagrams, now=now)
            may &= ~has_to_tell(lone, self._columns, now=now)
            for (session, _, _), may_this in zip(same, may.tolist(), strict=True):
                if may_this:
                    session.outbound.lone_went()
                    self._went_alone(session)
                else:
                    rest.append(session)
            if not may.all():
                lone = lone.only(np.flatnonzero(may))
            if len(lone.rows):
                sheet = Sheet(size, len(lone.rows))
                transmits += seal_lone(lone, self._columns, plaintexts, sheet, now=now)
        return transmits, rest

    def _went_alone(self, session: Session) -> None:
        """A state of it did: what it waits for moves back as time goes by, but for one thing."""
        self._columns.is_idle[session.row.index] = 1
        self._arm_for(session, session.acknowledger.due_at)

    def datagrams_to_send(self, *, now: float) -> list[Transmit]:
        """Everything due, datagrams of one session next to each other; each is handed out once.

        What is a view is good until the next call.
        """
        if not (self._dirty or self._outbox or self._initiators or self._queued):
            return []
        outbox, self._outbox = self._outbox, []
        for initiator in self._initiators.values():
            datagram = initiator.datagram_to_send(now=now)
            if datagram is not None:
                outbox.append(Transmit.of_one(datagram, initiator.peer.address))
        may_sign = now >= self._pace.due_at
        unproven: list[tuple[Session, Unproven]] = []
        stamp = stamp_of(now)
        queued, self._queued = self._queued, None
        alone = [] if queued is None else self._seal_queued(queued, now=now)
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            visits: Iterable[Session] = dirty
            if len(dirty) >= FEW:
                sealed, visits = self._seal_alone(dirty, now=now)
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
        first = self._timers.first()
        if not (self._held or self._initiators or self._responders):
            return first
        earliest = min(self._other_timers())
        return earliest if first is None else min(first, earliest)

    def _other_timers(self) -> Iterator[float]:
        if self._held:
            yield self._pace.due_at
        for initiator in self._initiators.values():
            yield initiator.get_timer()
        for responder in self._responders.values():
            yield responder.deadline

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
        handshakes: list[Initiator | Responder] = [*self._initiators.values(), *self._responders.values()]
        for handshake in handshakes:
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
        if name in self._wanted and not self._is_closed:
            self._wanted.discard(name)
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

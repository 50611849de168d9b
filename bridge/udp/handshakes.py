"""Handshakes of one endpoint that are not confirmed yet, and whose word may begin one. Sans-IO.

What a stranger's datagram can cost is bounded at every step: a look at its first bytes, under load a cookie
that shows it can read where it says it is, then a look-up of the thumbprint it names among the peers that
were added, then a token bucket, and only then a signature check. No address gets more bytes than came from it
before it is proven: by a cookie, by a datagram sealed with keys that only the REPLY sent there gives, or by
the answer to a challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Final

from bridge.errors import BoxError, DecodeError, KeyFormatError, SignatureError
from bridge.jose import Jwk, peek_claims_untrusted
from bridge.udp.admission import Admission
from bridge.udp.config import UdpConfig
from bridge.udp.cookie import SECRET_BYTES
from bridge.udp.handshake import (
    Agreement,
    HandshakeState,
    HandshakeTimes,
    Initiator,
    Responder,
    sender_untrusted,
)
from bridge.udp.peers import Address, Peer, PeerTable
from bridge.udp.statistics import DropReason
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    Init,
    Parameters,
    Reply,
    Retry,
    encode_retry,
)

_REFUSED: Final = (BoxError, SignatureError, DecodeError, KeyFormatError)


class Handshakes:
    """Handshakes under way, by peer, by connection id and by what was sent.

    Attributes:
        admission: what stands before the check of a signature.
        initiators: those that this side began, by the peer's name.
        responders: those that peers began, by the INIT's box, so that a repetition costs no check.
    """

    __slots__ = (
        "_by_connection",
        "_by_digest",
        "_config",
        "_connections",
        "_identity",
        "_newest_init",
        "_peers",
        "_random_bytes",
        "_unix_ms",
        "_wanted",
        "admission",
        "initiators",
        "responders",
    )

    def __init__(
        self,
        config: UdpConfig,
        *,
        identity: Jwk,
        peers: PeerTable,
        connections: Container[int],
        random_bytes: Callable[[int], bytes],
        unix_ms: Callable[[], int],
    ) -> None:
        """Begin with none.

        Args:
            identity: private P-256 key.
            peers: with whom there may be any.
            connections: ids of sessions, which no handshake gets.
            random_bytes: gives as many unpredictable bytes as asked for.
            unix_ms: the wall clock, for the issue times of boxes.
        """
        self._config = config
        self._identity = identity
        self._peers = peers
        self._connections = connections
        self._random_bytes = random_bytes
        self._unix_ms = unix_ms
        self.admission = Admission(config, cookie_secret=random_bytes(SECRET_BYTES))
        self.initiators: dict[str, Initiator] = {}
        self._by_connection: dict[int, Initiator] = {}
        self._by_digest: dict[bytes, Initiator] = {}
        self.responders: dict[bytes, Responder] = {}
        self._wanted: set[str] = set()  # to be initiated should the peer's own handshake come to nothing
        self._newest_init: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.responders) + len(self.initiators)

    def __iter__(self) -> Iterator[Initiator | Responder]:
        yield from list(self.initiators.values())
        yield from list(self.responders.values())

    def is_wanted_with(self, name: str) -> bool:
        """Whether one of our own is under way with a peer, or waits for the peer's to come to nothing."""
        return name in self.initiators or name in self._wanted

    def initiate(self, peer: Peer, *, now: float) -> None:
        """Begin a handshake with a peer, unless there is one."""
        if peer.name in self.initiators:
            return
        if any(responder.peer.name == peer.name for responder in self.responders.values()):
            # A second handshake beside the peer's own could leave each side with another session.
            self._wanted.add(peer.name)
            return
        initiator = Initiator(
            identity=self._identity,
            peer=peer,
            session_id=self._random_bytes(16),
            parameters=self._parameters(),
            times=self._times(now),
            retry_interval=self._config.handshake_retry,
        )
        self.initiators[peer.name] = initiator
        self._by_connection[initiator.parameters.connection_id] = initiator
        self._by_digest[initiator.init_digest] = initiator

    def take_wanted(self, name: str) -> bool:
        """A handshake of the peer came to nothing: whether our own waited for that."""
        if name not in self._wanted:
            return False
        self._wanted.discard(name)
        return True

    def receive_init(self, init: Init, address: Address, *, now: float) -> Responder | Transmit | DropReason:
        """Take an INIT from anybody.

        Returns:
            The handshake whose REPLY is to go to its address, new or once more; a RETRY to be sent; or why
            neither.
        """
        box, cookie = init
        unix_ms = self._unix_ms()
        is_proven = self.admission.is_proven(cookie, box, address, unix_ms=unix_ms)
        repeated = self.responders.get(box)
        if repeated is not None and (is_proven or address == repeated.address):
            # Only where the REPLY was read can its keys be known, so it goes to one address at a time.
            repeated.address = address
            return repeated
        pending = len(self)
        if not is_proven and (repeated is not None or self.admission.is_loaded(pending=pending, now=now)):
            retry = encode_retry(box, self.admission.bake(box, address, unix_ms=unix_ms))
            return Transmit.of_one(retry, address)
        try:
            peer = self._peers.by_thumbprint(sender_untrusted(box))
            if peer is None:
                return DropReason.STRANGER
            claims = peek_claims_untrusted(box.decode("ascii", "replace"))
        except _REFUSED:
            return DropReason.BAD_BOX
        if self.admission.is_replayed(claims):
            return DropReason.REPLAYED
        if claims.issued_at_ms <= self._newest_init.get(peer.name, -1):
            return DropReason.STALE_HANDSHAKE
        if (
            peer.name in self.initiators
            and self._identity.thumbprint_bytes() < peer.public_key.thumbprint_bytes()
        ):
            return DropReason.YIELDED
        if not self.admission.may_check(
            sender=claims.sender,
            proven=address if is_proven else None,
            pending=pending,
            pending_of_peer=sum(other.peer.name == peer.name for other in self.responders.values()),
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
                address=address,
                parameters=self._parameters(),
                times=self._times(now),
            )
        except _REFUSED:
            return DropReason.BAD_BOX
        self.admission.remember(claims)
        self.responders[box] = responder
        return responder

    def receive_retry(self, retry: Retry, *, now: float) -> DropReason | None:
        """Take a RETRY from anybody; the INIT with its cookie goes with the next datagrams."""
        initiator = self._by_digest.get(retry.init_digest)
        if initiator is None:
            return DropReason.UNKNOWN_CONNECTION
        return None if initiator.receive_retry(retry, now=now) else DropReason.REPLAYED

    def receive_reply(self, reply: Reply, *, now: float) -> tuple[Initiator, Agreement] | DropReason:
        """Take a REPLY from anybody: what it agreed on, or why nothing."""
        initiator = self._by_connection.get(reply.connection_id)
        if initiator is None:
            return DropReason.UNKNOWN_CONNECTION
        if initiator.state is not HandshakeState.INIT_SENT:
            return DropReason.REPLAYED
        if not self.admission.may_check_reply(now=now):
            return DropReason.HANDSHAKE_RATE
        try:
            return initiator, initiator.receive_reply(reply, now_ms=self._unix_ms())
        except _REFUSED:
            return DropReason.BAD_BOX

    def datagrams_to_send(self, *, now: float) -> list[Transmit]:
        """The INITs that are due."""
        transmits = []
        for initiator in self.initiators.values():
            datagram = initiator.datagram_to_send(now=now)
            if datagram is not None:
                transmits.append(Transmit.of_one(datagram, initiator.peer.address))
        return transmits

    def get_timer(self) -> float | None:
        """When something is to be sent or has failed; ``None`` where there are none."""
        timers = [initiator.get_timer() for initiator in self.initiators.values()]
        timers += [responder.deadline for responder in self.responders.values()]
        return min(timers, default=None)

    def confirm(self, handshake: Initiator | Responder) -> None:
        """Its session is the peer's from now on; whatever else was under way with the peer is not."""
        handshake.confirm()
        name = handshake.peer.name
        if isinstance(handshake, Responder):
            self._newest_init[name] = handshake.issued_at_ms
            del self.responders[handshake.init_box]
        else:
            self._forget(handshake)
        self._wanted.discard(name)
        self.discard(name)

    def fail(self, handshake: Initiator | Responder) -> None:
        """It came to nothing."""
        handshake.fail()
        if isinstance(handshake, Responder):
            self.responders.pop(handshake.init_box, None)
        else:
            self._forget(handshake)

    def discard(self, name: str) -> None:
        """Drop all with a peer without a word: a session exists, or must not."""
        for handshake in self:
            if handshake.peer.name == name:
                self.fail(handshake)

    def forget_peer(self, name: str) -> None:
        """Drop all with a peer, and what is known of it."""
        self._newest_init.pop(name, None)
        self._wanted.discard(name)
        self.discard(name)

    def disown(self) -> None:
        """Let all go without a word, in a child of the process that they belong to."""
        self.initiators.clear()
        self.responders.clear()

    def _forget(self, initiator: Initiator) -> None:
        self.initiators.pop(initiator.peer.name, None)
        self._by_connection.pop(initiator.parameters.connection_id, None)
        self._by_digest.pop(initiator.init_digest, None)

    def _parameters(self) -> Parameters:
        while True:
            connection_id = int.from_bytes(self._random_bytes(4), "big")
            if connection_id not in self._connections and connection_id not in self._by_connection:
                return Parameters(connection_id, self._config.reliable_window_bytes, self._config.signed)

    def _times(self, now: float) -> HandshakeTimes:
        return HandshakeTimes(
            now=now,
            now_ms=self._unix_ms(),
            timeout=self._config.handshake_timeout,
            lifetime=self._config.handshake_lifetime,
        )

"""What the data plane decides: whose records to seal, which ones to accept, what to write down.

No socket, no clock, no process: time comes in as nanoseconds of ``CLOCK_MONOTONIC``, datagram sessions as
``Link`` objects. ``process.py`` is the adapter.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from bridge.authority import (
    Acceptance,
    Act,
    Bind,
    Entry,
    Fence,
    Granted,
    HandOver,
    Release,
    Verdict,
    decode_message_untrusted,
    decode_release_untrusted,
    encode_message,
    release_context,
)
from bridge.errors import DecodeError, InvalidStateError
from bridge.jose import Jwk, open_signed_box, seal_signed_box
from bridge.replication import (
    MAX_RECORDS,
    Records,
    World,
    WorldState,
    decode_records_untrusted,
    decode_state_untrusted,
    dequantise,
    encode_records,
    encode_state,
    quantise,
    state_hash,
)
from bridge.sim.dataplane.messages import Event, FirstAccepted, PeerMessageReceived

MAX_HANDLES: Final = 65_536
"""handles of a sender; they are used round and round, long after the last record of the former use"""


MAX_WAITING: Final = 1_024
"""messages kept for a server that cannot be reached"""


class Link(Protocol):
    """A datagram session with one server."""

    def send_state(self, payload: bytes, stream: int = 0) -> object:
        """Send the newest state of a stream; what is unsent of an older one is dropped."""

    def send_reliable(self, message: bytes) -> None:
        """Send a message that arrives, in order, as long as the session stands."""


@dataclass(slots=True)
class _Sealing:
    """Records that this server sends for one grant."""

    entity: str
    epoch: int
    slot: int
    handle: int
    until_ns: int | None = None
    """set while it lingers on purpose after its release"""
    first_ns: int | None = None
    last_ns: int = 0
    last_state: WorldState | None = None
    """set when it is stopped: what its release carries, however often it is signed"""


@dataclass(slots=True)
class _Peer:
    server: str
    key: Jwk
    thumbprint: str
    session: bytes | None
    link: Link | None = None
    bound: dict[int, tuple[str, int]] = field(default_factory=dict)
    waiting: deque[bytes] = field(default_factory=deque)
    """messages for the next session; every one of them is safe to repeat"""
    sent: set[bytes] = field(default_factory=set)
    received: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Accepted:
    sender: str
    first_ns: int
    last_ns: int
    tick: int | None = None
    """of the newest state applied; ``None`` before the first"""


class DataPlane:
    """Sealing, fencing and records of one simulation server.

    Args:
        server: its name.
        session: its session, 16 bytes.
        key: its private key.
        world: the slots that the simulation writes.
        emit: takes events for the control plane.
    """

    def __init__(
        self, *, server: str, session: bytes, key: Jwk, world: World, emit: Callable[[Event], None]
    ) -> None:
        self._server = server
        self._session = session
        self._key = key
        self._world = world
        self._emit = emit
        self._peers: dict[str, _Peer] = {}
        self._fence = Fence()
        self._holding: dict[str, _Sealing] = {}
        self._stopped: dict[str, _Sealing] = {}
        self._lingering: list[_Sealing] = []
        self._next_handle = 0
        self._accepted: dict[tuple[str, int], _Accepted] = {}
        self._followed: dict[str, int] = {}
        self._early: dict[str, tuple[str, int]] = {}
        self._entries: list[Entry] = []
        self.verdicts: Counter[str] = Counter()
        self.malformed = 0

    def add_peer(self, *, server: str, key: Jwk, session: bytes | None) -> None:
        """Know a server by the key that the homeserver has for it; a new key replaces the old one."""
        thumbprint = key.thumbprint()
        known = self._peers.get(server)
        if known is not None and known.thumbprint == thumbprint:
            known.session = session
            return
        self._peers[server] = _Peer(server, key, thumbprint, session)

    def link_up(self, server: str, link: Link) -> None:
        """A datagram session stands; the peer has no handle of this side yet."""
        peer = self._peer(server)
        peer.link = link
        peer.bound.clear()
        for sealing in self._sealing():
            self._bind(peer, sealing)
        while peer.waiting:
            link.send_reliable(peer.waiting.popleft())

    def link_down(self, server: str, undelivered: Sequence[bytes]) -> None:
        """The datagram session ended; what it did not deliver goes with the next one."""
        peer = self._peer(server)
        peer.link = None
        # A handle is bound anew by link_up, and one of an ended act must not come back.
        again = [m for m in undelivered if not isinstance(decode_message_untrusted(m), Bind)]
        peer.waiting.extendleft(reversed(again))

    def raise_fence(self, entity: str, epoch: int, server: str, *, now_ns: int) -> None:
        """Hear from the homeserver who holds an entity; ``server`` is empty while it is dormant.

        A record of that holder that came before this word is accepted now: it was early, not wrong.
        """
        self._fence.raise_to(entity, epoch, self._thumbprint(server))
        early = self._early.get(entity)
        if early is None or early[1] > self._fence.epoch(entity):
            return
        del self._early[entity]
        if early == (server, epoch):
            self._accept(server, entity, epoch, now_ns)

    def hold(self, entity: str, epoch: int, slot: int, *, now_ns: int) -> None:
        """Act for an entity: bind a handle with every peer and send its first state at once."""
        self._fence.raise_to(entity, epoch, self._key.thumbprint())
        self._entries.append(
            Granted(server=self._server, session=self._session, entity=entity, epoch=epoch, at_ns=now_ns)
        )
        sealing = _Sealing(entity, epoch, slot, self._next_handle)
        self._next_handle = (self._next_handle + 1) % MAX_HANDLES
        self._holding[entity] = sealing
        self._stopped.pop(entity, None)
        self._followed.pop(entity, None)
        for peer in self._peers.values():
            self._bind(peer, sealing)
        self._send([sealing], now_ns)

    def follow(self, entity: str, slot: int) -> None:
        """Write what is accepted of another server's entity into a slot, until this server takes it over."""
        if entity not in self._holding:
            self._followed[entity] = slot

    def stop(self, entity: str, to: str, *, linger_ns: int, now_ns: int, now_ms: int) -> str:
        """Stop acting for an entity, then sign its release for another server.

        A push that the homeserver refused because a pull came first is stopped already; its release is
        then signed again, for the one who pulled.

        Raises:
            InvalidStateError: this server does not act for it, or does not know ``to``.
        """
        peer = self._peer(to)
        sealing = self._holding.pop(entity, None)
        if sealing is not None:
            self._close(sealing)
            sealing.last_state = self._world.read(sealing.slot)
            self._stopped[entity] = sealing
        elif (sealing := self._stopped.get(entity)) is None:
            raise InvalidStateError(f"{entity} is not held here")
        if linger_ns > 0 and sealing.until_ns is None:
            sealing.until_ns = now_ns + linger_ns
            self._lingering.append(sealing)
        state = sealing.last_state
        assert state is not None
        self._hand_over("gave", entity, sealing.epoch, state_hash(state))
        release = Release(entity=entity, epoch=sealing.epoch, state=encode_state(state))
        return seal_signed_box(
            encode_message(release),
            sender=self._key,
            recipient=peer.key,
            session=self._session,
            sequence=sealing.epoch,
            issued_at_ms=now_ms,
            lifetime_ms=0,
            purpose="release",
            direction="n",
            context=release_context(entity, sealing.epoch),
        )

    def open_release(self, *, entity: str, giver: str, previous: int, box: str, now_ms: int) -> bytes:
        """Verify and open a release with the key that the homeserver has for the giver (R0-20, R0-21).

        Returns:
            The last state, 26 bytes.

        Raises:
            SignatureError: not signed by the giver, or for something else.
            BoxError: not sealed for this server.
            DecodeError: no release inside, or of another entity or epoch.
        """
        opened = open_signed_box(
            box,
            recipient=self._key,
            sender=self._peer(giver).key,
            purpose="release",
            direction="n",
            context=release_context(entity, previous),
            now_ms=now_ms,
        )
        release = decode_release_untrusted(opened.payload)
        if (release.entity, release.epoch) != (entity, previous):
            raise DecodeError(f"a release of {release.entity} at {release.epoch} in a box for {entity}")
        state = decode_state_untrusted(release.state)
        # From here on the slot is the simulation's, which goes on from exactly this state.
        self._followed.pop(entity, None)
        self._hand_over("took", entity, previous, state_hash(state))
        return release.state

    def send_message(self, to: str, message: bytes) -> None:
        """Send a message of ``bridge.authority`` on the reliable stream.

        While no session with that server stands, the message waits for one.

        Raises:
            InvalidStateError: the server is not known, or too many messages wait for it.
        """
        peer = self._peer(to)
        if len(peer.waiting) >= MAX_WAITING:
            raise InvalidStateError(f"{MAX_WAITING} messages wait for {to}, which cannot be reached")
        peer.sent.add(_digest(message))
        if peer.link is None:
            peer.waiting.append(message)
        else:
            peer.link.send_reliable(message)

    def tick(self, *, now_ns: int) -> None:
        """Seal the state of everything that is acted for."""
        self._lingering = [s for s in self._lingering if s.until_ns is not None and s.until_ns > now_ns]
        self._send(list(self._sealing()), now_ns)

    def receive_message(self, server: str, payload: bytes, *, now_ns: int) -> None:
        """Take a reliable message of an authenticated peer; what does not decode is counted and dropped."""
        try:
            message = decode_message_untrusted(payload)
        except DecodeError:
            self.malformed += 1
            return
        if isinstance(message, Bind):
            self._peer(server).bound[message.handle] = (message.entity, message.epoch)
            return
        self._peer(server).received.add(_digest(payload))
        self._emit(PeerMessageReceived(server=server, message=encode_message(message), at_ns=now_ns))

    def receive_state(self, server: str, payload: bytes, *, now_ns: int) -> None:
        """Judge the records of a state datagram (R0-6, R0-14); see ``docs/protocol.md`` §6."""
        peer = self._peer(server)
        try:
            records = decode_records_untrusted(payload)
        except DecodeError:
            self.malformed += 1
            return
        ids = zip(records["handle"].tolist(), records["epoch"].tolist(), strict=True)
        for index, (handle, low) in enumerate(ids):
            bound = peer.bound.get(handle)
            if bound is None or bound[1] & 0xFFFF != low:
                self.verdicts["unknown"] += 1
                continue
            entity, epoch = bound
            verdict = self._fence.judge(entity, epoch, peer.thumbprint)
            self.verdicts[verdict.name.lower()] += 1
            if verdict is Verdict.ACCEPTED:
                self._apply(entity, self._accept(server, entity, epoch, now_ns), records[index])
            elif verdict is Verdict.EARLY:
                self._early[entity] = (server, epoch)

    def sent(self) -> dict[str, int]:
        """Distinct messages sent, by server; a bind is none, since it is told anew in every session."""
        return {name: len(peer.sent) for name, peer in self._peers.items()}

    def received(self) -> dict[str, int]:
        """Distinct messages received, by server."""
        return {name: len(peer.received) for name, peer in self._peers.items()}

    def waiting(self) -> int:
        """Messages that wait for a session."""
        return sum(len(peer.waiting) for peer in self._peers.values())

    def entries(self) -> list[Entry]:
        """Everything recorded so far, running acts included."""
        running = [act for s in self._holding.values() if (act := self._act(s)) is not None]
        accepted = [
            Acceptance(
                receiver=self._server,
                sender=seen.sender,
                entity=entity,
                epoch=epoch,
                first_ns=seen.first_ns,
                last_ns=seen.last_ns,
            )
            for (entity, epoch), seen in self._accepted.items()
        ]
        return [*self._entries, *running, *accepted]

    def _accept(self, server: str, entity: str, epoch: int, now_ns: int) -> _Accepted:
        seen = self._accepted.get((entity, epoch))
        if seen is None:
            seen = self._accepted[entity, epoch] = _Accepted(server, now_ns, now_ns)
            self._emit(FirstAccepted(server=server, entity=entity, epoch=epoch, at_ns=now_ns))
        seen.last_ns = now_ns
        return seen

    def _apply(self, entity: str, seen: _Accepted, record: Records) -> None:
        slot = self._followed.get(entity)
        tick = int(record["tick"])
        # Two streams may bring the same entity, in either order; ticks wrap at 32 bits.
        if slot is None or (seen.tick is not None and (tick - seen.tick) & 0xFFFFFFFF >= 1 << 31):
            return
        seen.tick = tick
        state = dequantise(record)
        self._world.write(slot, tick=state.tick, position=state.position, velocity=state.velocity)

    def _send(self, sealings: list[_Sealing], now_ns: int) -> None:
        if not sealings:
            return
        for sealing in sealings:
            # A record sealed while lingering is a planted fault, no act; receivers count it as late.
            if sealing.until_ns is None:
                sealing.first_ns = sealing.first_ns or now_ns
                sealing.last_ns = now_ns
        links = [peer.link for peer in self._peers.values() if peer.link is not None]
        for stream, payload in enumerate(self._payloads(sealings)):
            for link in links:
                link.send_state(payload, stream)

    def _payloads(self, sealings: list[_Sealing]) -> Iterator[bytes]:
        ticks, positions, velocities = self._world.gather(np.array([s.slot for s in sealings]))
        handles = [s.handle for s in sealings]
        records: Records = quantise(handles, [s.epoch for s in sealings], ticks, positions, velocities)
        for start in range(0, len(records), MAX_RECORDS):
            yield encode_records(records[start : start + MAX_RECORDS])

    def _sealing(self) -> Iterator[_Sealing]:
        yield from self._holding.values()
        yield from self._lingering

    def _bind(self, peer: _Peer, sealing: _Sealing) -> None:
        if peer.link is None:
            return
        peer.link.send_reliable(
            encode_message(Bind(handle=sealing.handle, entity=sealing.entity, epoch=sealing.epoch))
        )

    def _close(self, sealing: _Sealing) -> None:
        act = self._act(sealing)
        if act is not None:
            self._entries.append(act)

    def _act(self, sealing: _Sealing) -> Act | None:
        if sealing.first_ns is None:
            return None
        return Act(
            server=self._server,
            session=self._session,
            entity=sealing.entity,
            epoch=sealing.epoch,
            first_ns=sealing.first_ns,
            last_ns=sealing.last_ns,
        )

    def _hand_over(self, side: str, entity: str, epoch: int, digest: bytes) -> None:
        self._entries.append(
            HandOver(server=self._server, side=side, entity=entity, epoch=epoch, hash=digest)
        )

    def _peer(self, server: str) -> _Peer:
        try:
            return self._peers[server]
        except KeyError:
            raise InvalidStateError(f"the homeserver has not told the key of {server} yet") from None

    def _thumbprint(self, server: str) -> str:
        if server == self._server:
            return self._key.thumbprint()
        peer = self._peers.get(server)
        return "" if peer is None else peer.thumbprint


def _digest(message: bytes) -> bytes:
    return hashlib.blake2b(message, digest_size=8).digest()

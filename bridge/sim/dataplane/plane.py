"""What the data plane decides: whose records to seal, which ones to accept, what to write down.

No socket, no clock, no process: time comes in as nanoseconds of ``CLOCK_MONOTONIC``, datagram sessions as
``Link`` objects. ``process.py`` is the adapter.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from bridge.authority import (
    Acceptance,
    Act,
    Began,
    Bind,
    Entry,
    Fence,
    Granted,
    HandOver,
    Release,
    decode_message_untrusted,
    decode_release_untrusted,
    encode_message,
    release_context,
)
from bridge.errors import DecodeError, InvalidStateError
from bridge.jose import Jwk, open_signed_box, seal_signed_box
from bridge.replication import (
    Bindings,
    EntityFlag,
    Payloads,
    Records,
    World,
    WorldState,
    decode_state_untrusted,
    encode_records,
    encode_state,
    full_records,
    state_hash,
    ticks_of,
)
from bridge.sim.dataplane.distinct import Distinct
from bridge.sim.dataplane.messages import Credited, Event, PeerMessageReceived, WentSilent
from bridge.sim.dataplane.receiving import Receiving
from bridge.sim.dataplane.sealing import Rows, Sealing, Sealings

MAX_HANDLES: Final = 65_536
"""handles of a sender; they are used round and round, long after the last record of the former use"""
STREAMS: Final = 4_096
"""of states, a datagram each"""
FIRST_STREAM: Final = 3_584
"""from which on first states go, so that they put none of the last tick's aside: below, 19 records each where
they are signed, there is room for all handles of a sender"""
_MAX_FIRST: Final = 8_192
"""first states at one time; the rest goes with the next tick"""
MAX_WAITING: Final = 1_024
"""messages kept for a server that cannot be reached"""
MAX_ENTRIES: Final = 1_024
"""records kept in memory, some two hundred transfers, unless the whole history is wanted"""


class Link(Protocol):
    """A datagram session with one server."""

    @property
    def is_signed(self) -> bool:
        """Whether states are signed, so that their payloads carry a digest of the bindings, both ways."""

    @property
    def max_state_bytes(self) -> int:
        """Room of a state's payload."""

    def send_state(self, payload: Payloads, stream: int = 0) -> object:
        """Send the newest state of each stream ``stream + i``, row i; unsent older ones are dropped."""

    @property
    def reliable_end(self) -> int:
        """Where the last message sent reliably ends, in bytes."""

    @property
    def reliable_taken(self) -> int:
        """Up to where the peer has taken messages, as its credit tells."""

    def drop_states(self) -> None:
        """Forget the states that were not sealed yet."""

    def send_reliable(self, message: bytes) -> None:
        """Send a message that arrives, in order, as long as the session stands."""


@dataclass(slots=True)
class _Peer:
    server: str
    key: Jwk
    thumbprint: str
    session: bytes | None
    link: Link | None = None
    waiting: deque[bytes] = field(default_factory=deque)
    """messages for the next session; every one of them is safe to repeat"""
    sent: Distinct = field(default_factory=Distinct)
    received: Distinct = field(default_factory=Distinct)
    watched: set[bytes] = field(default_factory=set)
    """messages whose credit is to be told"""
    uncredited: deque[tuple[int, bytes]] = field(default_factory=deque)
    """those of them that were sent, and where they end"""

    def send(self, link: Link, message: bytes) -> None:
        link.send_reliable(message)
        if message in self.watched:
            self.uncredited.append((link.reliable_end, message))


class DataPlane:
    """Sealing, fencing and records of one simulation server.

    Args:
        server: its name.
        run: what names this process in records of what it accepted, 16 bytes.
        key: its private key.
        world: the slots that the simulation writes.
        may_seal: whether the lease lasts, now.
        emit: takes events for the control plane.
        record: takes what happens, as it does, for a record that survives this process.
        keep_history: whether all records are kept in memory, instead of the newest ``MAX_ENTRIES``.
    """

    def __init__(
        self,
        *,
        server: str,
        run: bytes,
        key: Jwk,
        world: World,
        may_seal: Callable[[], bool],
        emit: Callable[[Event], None],
        record: Callable[[Entry], None] | None = None,
        keep_history: bool = False,
    ) -> None:
        self._server = server
        self._session = b""
        self._may_seal = may_seal
        self._is_silent = False
        self._key = key
        self._world = world
        self._emit = emit
        self._record = record
        self._peers: dict[str, _Peer] = {}
        self._fence = Fence()
        self._holding = Sealings()
        self._stopped: dict[str, Sealing] = {}
        self._lingering: list[Sealing] = []
        self._next_handle = 0
        self._entries: deque[Entry] = deque(maxlen=None if keep_history else MAX_ENTRIES)
        self._noted = 0
        self._bindings = Bindings()
        self._receiving = Receiving(
            server=server,
            session=run,
            world=world,
            fence=self._fence,
            on_first=emit,
            on_over=self._note,
        )
        self._malformed = 0

    @property
    def verdicts(self) -> Counter[str]:
        """State records of others so far, by verdict."""
        return self._receiving.verdicts

    @property
    def malformed(self) -> int:
        """Payloads of authenticated peers that did not decode."""
        return self._malformed + self._receiving.malformed

    @property
    def dropped(self) -> int:
        """Records that memory does not hold any more."""
        return self._noted - len(self._entries)

    @property
    def session(self) -> bytes:
        """The present session; none before the first."""
        return self._session

    def begin_session(self, session: bytes) -> None:
        """Act in the name of this session (16 bytes); whatever the one before it held is let go."""
        self.end_session()
        self._session = session

    def end_session(self) -> None:
        """Act for nothing more, and sign no more releases of what was held."""
        for sealing in self._holding:
            self._close(sealing)
        self._holding.clear()
        self._stopped.clear()
        self._lingering.clear()
        self._drop_states()

    def before_sealing(self, *, now_ns: int) -> None:
        """Look at the deadline once more, after all receiving: what it forbids is not sealed.

        Without this, what a slow path held back since the last tick would be sealed with an echo that was
        received after the lease, and accepted (``docs/authority-model.md``, ECHO_AFTER_CHECK).
        """
        if self._may_seal():
            self._is_silent = False
        else:
            self._fall_silent(now_ns)

    def streamed(self, entities: Sequence[str], *, max_age_ns: int, now_ns: int) -> tuple[str, ...]:
        """Those of the entities whose newest state is here, as far as was seen, and not older than that.

        They are followed, or this server was the last that sealed their state.
        """
        since_ns = now_ns - max_age_ns
        followed = set(self._receiving.streamed(entities, since_ns=since_ns))
        return tuple(e for e in entities if e in followed or self._sealed_last(e, since_ns))

    def _sealed_last(self, entity: str, since_ns: int) -> bool:
        stopped = self._stopped.get(entity)
        return (
            stopped is not None
            and stopped.has_slot
            and stopped.last_ns >= since_ns
            and not self._receiving.has_accepted_after(entity, stopped.epoch)
        )

    def add_peer(self, *, server: str, key: Jwk, session: bytes | None) -> None:
        """Know a server by the key that the homeserver has for it; a new key replaces the old one."""
        thumbprint = key.thumbprint()
        known = self._peers.get(server)
        if known is not None and known.thumbprint == thumbprint:
            known.session = session
            self._receiving.session_told(server, session or b"")
            return
        self._peers[server] = _Peer(server, key, thumbprint, session)

    def remove_peer(self, server: str) -> None:
        """Know a server no more: what its key signs or sealed counts for nothing."""
        if self._peers.pop(server, None) is not None:
            self._receiving.forget_handles(server)

    def link_up(self, server: str, link: Link) -> None:
        """A datagram session stands; the peer has no handle of this side yet."""
        peer = self._peer(server)
        peer.link = link
        self._receiving.add_sender(
            server, thumbprint=peer.thumbprint, session=peer.session or b"", signed=link.is_signed
        )
        for sealing in (*self._holding, *self._lingering):
            link.send_reliable(_bind(sealing))
        while peer.waiting:
            peer.send(link, peer.waiting.popleft())

    def link_down(self, server: str, undelivered: Sequence[bytes]) -> None:
        """The datagram session ended; what it did not deliver goes with the next one."""
        peer = self._peer(server)
        peer.link = None
        # A handle is bound anew by link_up, and one of an ended act must not come back.
        again = [m for m in undelivered if not isinstance(decode_message_untrusted(m), Bind)]
        peer.waiting.extendleft(reversed(again))
        # What the peer has, though its credit got lost, counts as taken.
        peer.uncredited = deque((0, message) for _, message in peer.uncredited if message not in again)

    def raise_fence(self, entity: str, epoch: int, server: str, *, now_ns: int) -> None:
        """Hear from the homeserver who holds an entity; ``server`` is empty while it is dormant.

        A record of that holder that came before this word is accepted now: it was early, not wrong.
        """
        self._fence.raise_to(entity, epoch, self._thumbprint(server))
        self._receiving.fence_raised(entity, server, epoch, now_ns=now_ns)

    def hold(self, entity: str, epoch: int, slot: int, *, now_ns: int) -> None:
        """Act for an entity: bind a handle with every peer. Its first state goes with ``send_begun``."""
        self._fence.raise_to(entity, epoch, self._key.thumbprint())
        self._receiving.fence_raised(entity, self._server, epoch, now_ns=now_ns)
        self._note(
            Granted(server=self._server, session=self._session, entity=entity, epoch=epoch, at_ns=now_ns)
        )
        before = self._holding.pop(entity)
        if before is not None:
            # Told again, because the control plane could not know whether it had stopped.
            self._close(before)
        sealing = Sealing(entity, epoch, slot, self._next_handle)
        self._bindings.bind(sealing.handle, entity, epoch, self._session)
        self._next_handle = (self._next_handle + 1) % MAX_HANDLES
        self._holding.add(sealing)
        self._stopped.pop(entity, None)
        self._receiving.unfollow(entity)
        bind = _bind(sealing)
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.send_reliable(bind)

    def follow(self, entity: str, slot: int) -> None:
        """Write what is accepted of another server's entity into a slot, until this server takes it over."""
        if entity not in self._holding:
            self._receiving.follow(entity, slot)

    def unfollow(self, entity: str, *, keeps_slot: bool = True) -> None:
        """Keep no more what is accepted of another server's entity.

        Args:
            keeps_slot: whether what its slot has stays there.
        """
        self._receiving.unfollow(entity)
        stopped = self._stopped.get(entity)
        if stopped is not None and not keeps_slot:
            stopped.has_slot = False

    def forget(self, entity: str) -> None:
        """The homeserver has the entity no more: nobody acts or speaks for it, and nothing of it is kept."""
        sealing = self._holding.pop(entity)
        if sealing is not None:
            self._close(sealing)
            self._drop_states()
        self._stopped.pop(entity, None)
        self._lingering = [lingering for lingering in self._lingering if lingering.entity != entity]
        self._receiving.forget(entity)
        self._fence.forget(entity)

    def stop(self, entity: str, to: str | None, *, linger_ns: int, now_ns: int, now_ms: int) -> str | None:
        """Stop acting for an entity, then sign its release for another server, if one is named.

        A push that the homeserver refused because a pull came first is stopped already; its release is
        then signed again, for the one who pulled.

        Raises:
            InvalidStateError: this server does not act for it, or does not know ``to``.
            BoxError: nothing can be sealed for the key of ``to``. It acts on after any of these.
        """
        peer = None if to is None else self._peer(to)
        sealing = self._holding.get(entity) or self._stopped.get(entity)
        if sealing is None:
            raise InvalidStateError(f"{entity} is not held here")
        state = sealing.last_state or self._world.read(sealing.slot)
        # First, since it may refuse the key, and then all goes on. No state is sealed until this returns.
        box = None if peer is None else self._release(sealing, state, peer.key, now_ms)
        if self._holding.pop(entity) is not None:
            self._close(sealing)
            sealing.last_state = state
            self._stopped[entity] = sealing
            # What a slow path has held back has records of it; what else that had comes with the next tick.
            self._drop_states()
        if linger_ns > 0 and sealing.until_ns is None:
            sealing.until_ns = now_ns + linger_ns
            self._lingering.append(sealing)
        self._hand_over("gave", entity, sealing.epoch, state_hash(state))
        return box

    def _release(self, sealing: Sealing, state: WorldState, recipient: Jwk, now_ms: int) -> str:
        release = Release(entity=sealing.entity, epoch=sealing.epoch, state=encode_state(state))
        return seal_signed_box(
            encode_message(release),
            sender=self._key,
            recipient=recipient,
            session=self._session,
            sequence=sealing.epoch,
            issued_at_ms=now_ms,
            lifetime_ms=0,
            purpose="release",
            direction="n",
            context=release_context(sealing.entity, sealing.epoch),
        )

    def open_release(self, *, entity: str, giver: str, previous: int, box: str, now_ms: int) -> bytes:
        """Verify and open a release with the key that the homeserver has for the giver (R0-20, R0-21).

        Returns:
            The state to go on from, encoded: the last one of the giver, or what came since of a later grant,
            whose session has ended.

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
        newer = self._receiving.newer_than(entity, previous)
        # From here on the slot is the simulation's, which goes on from exactly this state.
        self._receiving.unfollow(entity)
        self._hand_over("took", entity, previous, state_hash(state))
        return release.state if newer is None else encode_state(self._world.read(newer))

    def send_message(self, to: str, message: bytes, *, credited: bool = False) -> None:
        """Send a message of ``bridge.authority`` on the reliable stream.

        While no session with that server stands, the message waits for one.

        Args:
            to: a server.
            message: encoded.
            credited: whether to tell, with a tick, that the server has taken it.

        Raises:
            InvalidStateError: the server is not known, or too many messages wait for it.
        """
        peer = self._peer(to)
        if len(peer.waiting) >= MAX_WAITING:
            raise InvalidStateError(f"{MAX_WAITING} messages wait for {to}, which cannot be reached")
        peer.sent.add(message)
        if credited:
            peer.watched.add(message)
        if peer.link is None:
            peer.waiting.append(message)
        else:
            peer.send(peer.link, message)

    def tick(self, *, now_ns: int) -> None:
        """Seal the state of everything that is acted for."""
        self._tell_credit(now_ns)
        self._lingering = [s for s in self._lingering if s.until_ns is not None and s.until_ns > now_ns]
        self._send(self._holding.everything(), self._holding.begun(), 0, self._lingering, now_ns=now_ns)

    def send_begun(self, *, now_ns: int) -> None:
        """Seal the first state of whatever has come to be held, not at the next tick (R0-34)."""
        begun = self._holding.begun(_MAX_FIRST)
        if begun:
            self._send(np.array([s.row for s in begun]), begun, FIRST_STREAM, (), now_ns=now_ns)

    def receive_message(self, server: str, payload: bytes, *, now_ns: int) -> None:
        """Take a reliable message of an authenticated peer; what does not decode is counted and dropped."""
        try:
            message = decode_message_untrusted(payload)
        except DecodeError:
            self._malformed += 1
            return
        if isinstance(message, Bind):
            self._receiving.bind(server, message.handle, message.entity, message.epoch)
            return
        self._peer(server).received.add(payload)
        self._emit(PeerMessageReceived(server=server, message=encode_message(message), at_ns=now_ns))

    def receive_states(self, server: str, payloads: Payloads, *, echo_age: float | None, now_ns: int) -> None:
        """Judge the records of state payloads (R0-6, R0-14); see ``docs/protocol.md`` §6.

        Args:
            payloads: of one size, shape (n, size), in the order they came.
            echo_age: seconds, as the datagram session tells it; of the oldest of them.
        """
        self._receiving.receive(server, payloads, echo_age=echo_age, now_ns=now_ns)

    def sent(self) -> dict[str, int]:
        """Distinct messages sent, by server; a bind is none, since it is told anew in every session."""
        return {name: peer.sent.count for name, peer in self._peers.items()}

    def received(self) -> dict[str, int]:
        """Distinct messages received, by server."""
        return {name: peer.received.count for name, peer in self._peers.items()}

    def waiting(self) -> int:
        """Messages that wait for a session."""
        return sum(len(peer.waiting) for peer in self._peers.values())

    def kept(self) -> int:
        """Entries of all tables but the records: a few for each entity, and for what is under way."""
        by_entity = (self._fence, self._holding, self._stopped, self._lingering)
        of_peers = sum(
            len(peer.waiting) + len(peer.watched) + len(peer.uncredited) for peer in self._peers.values()
        )
        return sum(len(table) for table in by_entity) + of_peers + self._receiving.kept()

    def entries(self) -> list[Entry]:
        """What was recorded, the newest of it or all, running acts included."""
        running = [act for s in self._holding if (act := self._act(s)) is not None]
        return [*self._entries, *running, *self._receiving.acceptances()]

    def _tell_credit(self, now_ns: int) -> None:
        for peer in self._peers.values():
            taken = 0 if peer.link is None else peer.link.reliable_taken
            while peer.uncredited and peer.uncredited[0][0] <= taken:
                _, message = peer.uncredited.popleft()
                peer.watched.discard(message)
                self._emit(Credited(server=peer.server, message=message, at_ns=now_ns))

    def accepted_since(self, since_ns: int) -> Iterable[Acceptance]:
        """What was accepted at that time or later."""
        return self._receiving.acceptances(since_ns)

    def _note(self, entry: Entry) -> None:
        self._noted += 1
        self._entries.append(entry)
        if self._record is not None:
            self._record(entry)

    def _tell_began(self, sealing: Sealing, now_ns: int) -> None:
        if self._record is not None:
            self._record(
                Began(
                    server=self._server,
                    session=self._session,
                    entity=sealing.entity,
                    epoch=sealing.epoch,
                    first_ns=now_ns,
                )
            )

    def _fall_silent(self, now_ns: int) -> None:
        self._drop_states()
        if not self._is_silent and self._holding:
            self._is_silent = True
            self._emit(WentSilent(entities=len(self._holding), at_ns=now_ns))

    def _drop_states(self) -> None:
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.drop_states()

    def _send(
        self, rows: Rows, begun: list[Sealing], stream: int, lingering: Sequence[Sealing], *, now_ns: int
    ) -> None:
        """Seal states of rows of what is held, and of what lingers, on streams from there on.

        Args:
            begun: those of the rows of which nothing was sealed yet.
        """
        if not self._holding and not lingering:
            return
        if not self._may_seal():
            self._fall_silent(now_ns)
            return
        # A record sealed while lingering is a planted fault, no act; receivers count it as late.
        self._holding.seal(rows, begun, now_ns=now_ns)
        for sealing in begun:
            self._tell_began(sealing, now_ns)
        links: dict[tuple[bool, int], list[Link]] = {}
        for peer in self._peers.values():
            if peer.link is not None:
                key = (peer.link.is_signed, peer.link.max_state_bytes)
                links.setdefault(key, []).append(peer.link)
        if not links:
            return
        batches = list(self._records(rows, lingering))
        for (signed, room), same in links.items():
            digests = self._bindings.digests if signed else None
            at = stream
            for tick, records in batches:
                for payloads in encode_records(records, tick=tick, room=room, digests=digests):
                    for link in same:
                        link.send_state(payloads, at)
                    at += len(payloads)

    def _records(self, rows: Rows, lingering: Sequence[Sealing]) -> Iterator[tuple[int, Records]]:
        """Rounded once for all peers; nearly always of one tick."""
        slots, handles, epochs = self._holding.columns(rows)
        if lingering:
            slots = np.append(slots, [s.slot for s in lingering])
            handles = np.append(handles, np.array([s.handle for s in lingering], dtype=np.uint16))
            epochs = np.append(epochs, np.array([s.epoch for s in lingering], dtype=np.uint64))
        states = self._world.gather(slots)
        states.flags[len(slots) - len(lingering) :] |= np.uint8(EntityFlag.GHOST)
        for tick, group in ticks_of(states):
            if len(group) == len(slots):
                # Nearly always, and a copy of each column saved.
                yield tick, full_records(handles, epochs, states, tick=tick)
            else:
                yield tick, full_records(handles[group], epochs[group], states.select(group), tick=tick)

    def _close(self, sealing: Sealing) -> None:
        act = self._act(sealing)
        if act is not None:
            self._note(act)

    def _act(self, sealing: Sealing) -> Act | None:
        if sealing.first_ns is None:
            return None
        return Act(
            server=self._server,
            session=self._session,
            entity=sealing.entity,
            epoch=sealing.epoch,
            first_ns=sealing.first_ns,
            last_ns=self._holding.last_ns(sealing),
        )

    def _hand_over(self, side: str, entity: str, epoch: int, digest: bytes) -> None:
        self._note(HandOver(server=self._server, side=side, entity=entity, epoch=epoch, hash=digest))

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


def _bind(sealing: Sealing) -> bytes:
    return encode_message(Bind(handle=sealing.handle, entity=sealing.entity, epoch=sealing.epoch))

"""What the data plane decides: whose records to seal, which ones to accept, what to write down.

No socket, no clock, no process: time comes in as nanoseconds of ``CLOCK_MONOTONIC``, datagram sessions as
``Link`` objects. ``process.py`` is the adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from bridge.authority import Acceptance, Bind, Entry, Fence, decode_message_untrusted, encode_message
from bridge.errors import DecodeError, InvalidStateError
from bridge.jose import Jwk
from bridge.replication import (
    Bindings,
    EntityFlag,
    Payloads,
    Records,
    World,
    encode_records,
    encode_state,
    full_records,
    state_hash,
    ticks_of,
)
from bridge.sim.dataplane.messages import Event, PeerMessageReceived, WentSilent
from bridge.sim.dataplane.noting import Notes
from bridge.sim.dataplane.peers import Link, Peers
from bridge.sim.dataplane.receiving import Receiving
from bridge.sim.dataplane.releases import opened_release, sealed_release
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
        self._may_seal = may_seal
        self._is_silent = False
        self._key = key
        self._world = world
        self._emit = emit
        self._peers = Peers()
        self._fence = Fence()
        self._holding = Sealings()
        self._stopped: dict[str, Sealing] = {}
        self._lingering: list[Sealing] = []
        self._next_handle = 0
        self._notes = Notes(server, record=record, keep_history=keep_history)
        self._bindings = Bindings()
        self._receiving = Receiving(
            server=server,
            session=run,
            world=world,
            fence=self._fence,
            on_first=emit,
            on_over=self._notes.note,
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
        return self._notes.dropped

    @property
    def session(self) -> bytes:
        """The present session; none before the first."""
        return self._notes.session

    def begin_session(self, session: bytes) -> None:
        """Act in the name of this session (16 bytes); whatever the one before it held is let go."""
        self.end_session()
        self._notes.session = session

    def end_session(self) -> None:
        """Act for nothing more, and sign no more releases of what was held."""
        for sealing in self._holding.clear():
            self._notes.ended(sealing)
        self._stopped.clear()
        self._lingering.clear()
        self._peers.drop_states()

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
        if self._peers.add(server=server, key=key, session=session):
            self._receiving.session_told(server, session or b"")

    def remove_peer(self, server: str) -> None:
        """Know a server no more: what its key signs or sealed counts for nothing."""
        if self._peers.remove(server):
            self._receiving.forget_handles(server)

    def link_up(self, server: str, link: Link) -> None:
        """A datagram session stands; the peer has no handle of this side yet."""
        peer = self._peers[server]
        self._receiving.add_sender(
            server, thumbprint=peer.thumbprint, session=peer.session or b"", signed=link.is_signed
        )
        peer.up(link, map(_bind, (*self._holding, *self._lingering)))

    def link_down(self, server: str, undelivered: Sequence[bytes]) -> None:
        """The datagram session ended; what it did not deliver goes with the next one."""
        self._peers[server].down(undelivered)

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
        self._notes.granted(entity, epoch, at_ns=now_ns)
        before = self._holding.pop(entity)
        if before is not None:
            # Told again, because the control plane could not know whether it had stopped.
            self._notes.ended(before)
        sealing = Sealing(entity, epoch, slot, self._next_handle)
        self._bindings.bind(sealing.handle, entity, epoch, self.session)
        self._next_handle = (self._next_handle + 1) % MAX_HANDLES
        self._holding.add(sealing)
        self._stopped.pop(entity, None)
        self._receiving.unfollow(entity)
        bind = _bind(sealing)
        for link in self._peers.links():
            link.send_reliable(bind)

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
            self._notes.ended(sealing)
            self._peers.drop_states()
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
        peer = None if to is None else self._peers[to]
        sealing = self._holding.get(entity) or self._stopped.get(entity)
        if sealing is None:
            raise InvalidStateError(f"{entity} is not held here")
        state = sealing.last_state or self._world.read(sealing.slot)
        # First, since it may refuse the key, and then all goes on. No state is sealed until this returns.
        box = None
        if peer is not None:
            box = sealed_release(
                entity,
                sealing.epoch,
                state,
                sender=self._key,
                recipient=peer.key,
                session=self.session,
                now_ms=now_ms,
            )
        if self._holding.pop(entity) is not None:
            self._notes.ended(sealing)
            sealing.last_state = state
            self._stopped[entity] = sealing
            # What a slow path has held back has records of it; what else that had comes with the next tick.
            self._peers.drop_states()
        if linger_ns > 0 and sealing.until_ns is None:
            sealing.until_ns = now_ns + linger_ns
            self._lingering.append(sealing)
        self._notes.hand_over("gave", entity, sealing.epoch, state_hash(state))
        return box

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
        state = opened_release(
            box,
            recipient=self._key,
            giver=self._peers[giver].key,
            entity=entity,
            epoch=previous,
            now_ms=now_ms,
        )
        newer = self._receiving.newer_than(entity, previous)
        # From here on the slot is the simulation's, which goes on from exactly this state.
        self._receiving.unfollow(entity)
        self._notes.hand_over("took", entity, previous, state_hash(state))
        return encode_state(state if newer is None else self._world.read(newer))

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
        self._peers[to].send(message, credited=credited)

    def tick(self, *, now_ns: int) -> None:
        """Seal the state of everything that is acted for."""
        self._peers.tell_credit(self._emit, now_ns)
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
        self._peers[server].received.add(payload)
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
        return {peer.server: peer.sent for peer in self._peers}

    def received(self) -> dict[str, int]:
        """Distinct messages received, by server."""
        return {peer.server: peer.received.count for peer in self._peers}

    def waiting(self) -> int:
        """Messages that wait for a session."""
        return sum(peer.waiting for peer in self._peers)

    def kept(self) -> int:
        """Entries of all tables but the records: a few for each entity, and for what is under way."""
        by_entity = (self._fence, self._holding, self._stopped, self._lingering)
        of_peers = sum(peer.kept() for peer in self._peers)
        return sum(len(table) for table in by_entity) + of_peers + self._receiving.kept()

    def entries(self) -> list[Entry]:
        """What was recorded, the newest of it or all, running acts included."""
        acts = (self._notes.act(s, self._holding.last_ns(s)) for s in self._holding)
        running = [act for act in acts if act is not None]
        return [*self._notes.entries(), *running, *self._receiving.acceptances()]

    def accepted_since(self, since_ns: int) -> Iterable[Acceptance]:
        """What was accepted at that time or later."""
        return self._receiving.acceptances(since_ns)

    def _fall_silent(self, now_ns: int) -> None:
        self._peers.drop_states()
        if not self._is_silent and self._holding:
            self._is_silent = True
            self._emit(WentSilent(entities=len(self._holding), at_ns=now_ns))

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
        self._notes.began(begun, now_ns=now_ns)
        links: dict[tuple[bool, int], list[Link]] = {}
        for link in self._peers.links():
            links.setdefault((link.is_signed, link.max_state_bytes), []).append(link)
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

    def _thumbprint(self, server: str) -> str:
        if server == self._server:
            return self._key.thumbprint()
        return self._peers.thumbprint(server)


def _bind(sealing: Sealing) -> bytes:
    return encode_message(Bind(handle=sealing.handle, entity=sealing.entity, epoch=sealing.epoch))

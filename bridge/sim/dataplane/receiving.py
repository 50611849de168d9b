"""What a server makes of the state records of others: who may speak, what is news, where it is kept.

Everything asked of every record is in arrays by handle, so that a datagram, or a thousand, costs a few array
operations; entities by name are touched only when a handle is bound or the homeserver says something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from bridge.authority import Acceptance, Fence, Verdict
from bridge.replication import Bindings, Decoded, Payloads, World, decode_payloads_untrusted, states_of
from bridge.sim.dataplane.messages import FirstAccepted

MAX_ECHO_AGE_SECONDS: Final = 0.5
"""State whose echo of this side's newest time stamp is older was sealed by a sender that may have been frozen
since it last heard who holds what (``docs/protocol.md`` §6)."""

_FIRST: Final = 64
"""handles, or acceptances, that the arrays have room for at first; they double"""
_NONE: Final = -1
_HALF: Final = np.uint64(1 << 31)
_TICKS: Final = np.uint64(0xFFFFFFFF)

_T = TypeVar("_T", bound=np.generic)

_CODES: Final = {verdict: code for code, verdict in enumerate(Verdict)}
_NAMES: Final = [verdict.name.lower() for verdict in Verdict]
_ACCEPTED, _EARLY, _UNKNOWN = (_CODES[v] for v in (Verdict.ACCEPTED, Verdict.EARLY, Verdict.UNKNOWN))


@dataclass(slots=True)
class _Sender:
    """A peer's handles: what they are bound to, and what that makes of a record."""

    server: str
    thumbprint: str
    session: bytes
    signed: bool
    bound: dict[int, tuple[str, int]] = field(default_factory=dict)
    bindings: Bindings = field(default_factory=Bindings)
    low: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(_FIRST, _NONE, dtype=np.int32))
    """low 16 bits of the epoch, by handle; -1 where it is not bound"""
    verdict: npt.NDArray[np.uint8] = field(default_factory=lambda: np.full(_FIRST, _UNKNOWN, dtype=np.uint8))
    acceptance: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(_FIRST, _NONE, dtype=np.int32))
    """row in the table of acceptances, by handle; -1 before the first record was accepted"""

    def make_room(self, handle: int) -> None:
        while handle >= len(self.low):
            self.low = _doubled(self.low, _NONE)
            self.verdict = _doubled(self.verdict, _UNKNOWN)
            self.acceptance = _doubled(self.acceptance, _NONE)


@dataclass(frozen=True, slots=True)
class _Accepted:
    """What a row of acceptances is about."""

    sender: str
    entity: str
    epoch: int


class Receiving:
    """Judges records, and keeps what is accepted of followed entities in the world.

    Args:
        server: name of this server.
        session: its session.
        world: where followed entities are written.
        fence: the homeserver's word, shared with the side that sends.
        on_first: told the first state of an entity under an epoch.
        on_over: told what was accepted of an entity under an epoch, once there is a newer one.
    """

    def __init__(
        self,
        *,
        server: str,
        session: bytes,
        world: World,
        fence: Fence,
        on_first: Callable[[FirstAccepted], None],
        on_over: Callable[[Acceptance], None],
    ) -> None:
        self._server = server
        self._session = session
        self._world = world
        self._fence = fence
        self._on_first = on_first
        self._on_over = on_over
        self._senders: dict[str, _Sender] = {}
        self._handles: dict[str, set[tuple[str, int]]] = {}
        self._followed: dict[str, int] = {}
        self._early: dict[str, tuple[str, int]] = {}
        self._rows: dict[str, int] = {}
        """row of each entity of which something was accepted: what was so under its newest epoch"""
        self._accepted: list[_Accepted | None] = []
        """by row; ``None`` where it is free"""
        self._free: list[int] = []
        self._first_ns = np.zeros(_FIRST, dtype=np.int64)
        self._last_ns = np.zeros(_FIRST, dtype=np.int64)
        self._tick = np.full(_FIRST, _NONE, dtype=np.int64)
        """of the newest state applied; -1 before the first"""
        self._slot = np.full(_FIRST, _NONE, dtype=np.int32)
        self.verdicts: Counter[str] = Counter()
        self.malformed = 0

    def add_sender(self, server: str, *, thumbprint: str, session: bytes, signed: bool) -> None:
        """A datagram session with a server stands; none of its handles is bound yet.

        Args:
            signed: its payloads carry a digest of the bindings, and count only if it is right.
        """
        self.forget_handles(server)
        self._senders[server] = _Sender(server, thumbprint, session, signed)

    def session_told(self, server: str, session: bytes) -> None:
        """The homeserver told under which session a server holds what it holds."""
        sender = self._senders.get(server)
        if sender is None or sender.session == session:
            return
        sender.session = session
        for handle, (entity, epoch) in sender.bound.items():
            sender.bindings.bind(handle, entity, epoch, session)

    def forget_handles(self, server: str) -> None:
        """Nothing of that server counts until ``add_sender``."""
        sender = self._senders.pop(server, None)
        if sender is not None:
            for handle in list(sender.bound):
                self._unbind(sender, handle)

    def bind(self, server: str, handle: int, entity: str, epoch: int) -> None:
        """From now on this handle of the server is about this entity and epoch."""
        sender = self._senders.get(server)
        if sender is None:
            return
        self._unbind(sender, handle)
        self._unbind_older(sender, entity, epoch)
        sender.make_room(handle)
        sender.bound[handle] = (entity, epoch)
        sender.bindings.bind(handle, entity, epoch, sender.session)
        sender.low[handle] = epoch & 0xFFFF
        sender.acceptance[handle] = self._row(entity, epoch)
        self._handles.setdefault(entity, set()).add((server, handle))
        self._judge(sender, handle)

    def _unbind(self, sender: _Sender, handle: int) -> None:
        before = sender.bound.pop(handle, None)
        if before is None:
            return
        others = self._handles[before[0]]
        others.discard((sender.server, handle))
        if not others:
            del self._handles[before[0]]
        sender.low[handle] = _NONE
        if self._early.get(before[0]) == (sender.server, before[1]):
            del self._early[before[0]]

    def _unbind_older(self, sender: _Sender, entity: str, epoch: int) -> None:
        """Who has a newer grant says nothing more about the older one."""
        for server, handle in list(self._handles.get(entity, ())):
            if server == sender.server and sender.bound[handle][1] < epoch:
                self._unbind(sender, handle)

    def _judge(self, sender: _Sender, handle: int) -> None:
        entity, epoch = sender.bound[handle]
        sender.verdict[handle] = _CODES[self._fence.judge(entity, epoch, sender.thumbprint)]

    def fence_raised(self, entity: str, server: str, epoch: int, *, now_ns: int) -> None:
        """The homeserver's word on who holds an entity was taken into the fence.

        A record of that holder that came before this word is accepted now: it was early, not wrong.
        """
        for name, handle in self._handles.get(entity, ()):
            self._judge(self._senders[name], handle)
        early = self._early.get(entity)
        if early is None or early[1] > self._fence.epoch(entity):
            return
        del self._early[entity]
        if early == (server, epoch):
            # Not in one line: accepting may put larger arrays in place of those that were looked up before.
            row = self._accept(server, entity, epoch, now_ns)
            self._last_ns[row] = now_ns

    def follow(self, entity: str, slot: int) -> None:
        """Write what is accepted of an entity into a slot."""
        self._followed[entity] = slot
        if entity in self._rows:
            self._slot[self._rows[entity]] = slot

    def unfollow(self, entity: str) -> None:
        """Write no more of it: the slot is the simulation's."""
        self._followed.pop(entity, None)
        if entity in self._rows:
            self._slot[self._rows[entity]] = _NONE

    def forget(self, entity: str) -> None:
        """The homeserver has the entity no more; what was accepted of it is told as over.

        To be called before the fence forgets it. A handle above the fence is of a new one of its name.
        """
        self._followed.pop(entity, None)
        self._early.pop(entity, None)
        row = self._rows.pop(entity, None)
        if row is not None:
            self._end(row)
            self._free.append(row)
        epoch = self._fence.epoch(entity)
        for server, handle in list(self._handles.get(entity, ())):
            if self._senders[server].bound[handle][1] <= epoch:
                self._unbind(self._senders[server], handle)

    def kept(self) -> int:
        """Entries of all tables: a few for each entity."""
        bound = sum(len(sender.bound) for sender in self._senders.values())
        told = len(self._handles) + len(self._followed) + len(self._early)
        return bound + told + len(self._accepted)

    def has_accepted_after(self, entity: str, epoch: int) -> bool:
        """Whether state of a later grant than ``epoch`` was accepted."""
        row = self._rows.get(entity, _NONE)
        accepted = None if row == _NONE else self._accepted[row]
        return accepted is not None and accepted.epoch > epoch

    def newer_than(self, entity: str, epoch: int) -> int | None:
        """The slot that has state of a later grant than ``epoch``; ``None`` where none has."""
        if not self.has_accepted_after(entity, epoch) or self._tick[self._rows[entity]] == _NONE:
            return None
        return self._followed.get(entity)

    def streamed(self, entities: Iterable[str], *, since_ns: int) -> tuple[str, ...]:
        """Those of the entities whose newest grant's state was accepted since then, and is in the world."""
        return tuple(entity for entity in entities if self._is_streamed(entity, since_ns))

    def _is_streamed(self, entity: str, since_ns: int) -> bool:
        row = self._rows.get(entity)
        if entity not in self._followed or row is None:
            return False
        # Accepted before it was followed is kept nowhere.
        return bool(self._tick[row] != _NONE and self._last_ns[row] >= since_ns)

    def receive(self, server: str, payloads: Payloads, *, echo_age: float | None, now_ns: int) -> None:
        """Judge the records of payloads of one size, shape (n, size), in the order they came.

        Args:
            echo_age: seconds, see ``StateReceived.echo_age``; of the oldest of them.
        """
        decoded, malformed = decode_payloads_untrusted(payloads)
        self.malformed += malformed
        sender = self._senders.get(server)
        stale = echo_age is None or echo_age > MAX_ECHO_AGE_SECONDS
        for part in decoded:
            if stale:
                self.verdicts["stale"] += part.records.size
            elif sender is None:
                self.verdicts["unknown"] += part.records.size
            else:
                self._receive(sender, self._agreed(sender, part), now_ns)

    def _agreed(self, sender: _Sender, part: Decoded) -> Decoded:
        if not sender.signed:
            return part
        if part.digests is None:
            self.verdicts["unknown"] += part.records.size
            return part.select(np.zeros(len(part.rows), dtype=bool))
        same = sender.bindings.match(part.records, part.digests)
        if not same.all():
            self.verdicts["unknown"] += part.records[~same].size
            return part.select(same)
        return part

    def _receive(self, sender: _Sender, part: Decoded, now_ns: int) -> None:
        records = part.records.reshape(-1)
        handles = records["handle"].astype(np.intp)
        inside = np.minimum(handles, len(sender.low) - 1)
        known = (handles == inside) & (sender.low[inside] == records["epoch"])
        codes = np.where(known, sender.verdict[inside], _UNKNOWN)
        for code, count in enumerate(np.bincount(codes, minlength=len(_NAMES)).tolist()):
            if count:
                self.verdicts[_NAMES[code]] += count
        if (codes == _EARLY).any():
            for handle in np.unique(handles[codes == _EARLY]).tolist():
                entity, epoch = sender.bound[handle]
                self._early[entity] = (sender.server, epoch)
        accepted = codes == _ACCEPTED
        ticks = np.repeat(part.ticks, part.records.shape[1])
        # Nearly always all of them, and a copy of each column saved.
        if accepted.all():
            self._take(sender, records, handles, ticks, now_ns)
        elif accepted.any():
            self._take(sender, records[accepted], handles[accepted], ticks[accepted], now_ns)

    def _take(
        self,
        sender: _Sender,
        records: npt.NDArray[np.void],
        handles: npt.NDArray[np.intp],
        ticks: npt.NDArray[np.uint64],
        now_ns: int,
    ) -> None:
        rows = sender.acceptance[handles]
        if (rows == _NONE).any():
            for handle in np.unique(handles[rows == _NONE]).tolist():
                sender.acceptance[handle] = self._accept(sender.server, *sender.bound[handle], now_ns)
            rows = sender.acceptance[handles]
        self._last_ns[rows] = now_ns
        followed = self._slot[rows] != _NONE
        if not followed.all():
            records, ticks, rows = records[followed], ticks[followed], rows[followed]
        if not len(rows):
            return
        states = states_of(records, ticks)
        # Two streams may bring the same entity, in either order; ticks wrap at 32 bits.
        before = self._tick[rows]
        newer = (before == _NONE) | (((states.ticks - before.astype(np.uint64)) & _TICKS) < _HALF)
        if not newer.all():
            states, rows = states.select(newer), rows[newer]
        if not len(rows):
            return
        # Of an entity that comes more than once the newest must be written last.
        ahead = (states.ticks - states.ticks[0] + _HALF) & _TICKS
        if (ahead[1:] < ahead[:-1]).any():
            order = np.argsort(ahead, kind="stable")
            states, rows = states.select(order), rows[order]
        self._tick[rows] = states.ticks
        self._world.store(self._slot[rows].astype(np.intp), states)

    def _accept(self, server: str, entity: str, epoch: int, now_ns: int) -> int:
        row = self._row(entity, epoch)
        if row == _NONE:
            row = self._begin(_Accepted(server, entity, epoch))
            self._first_ns[row] = self._last_ns[row] = now_ns
            self._tick[row] = _NONE
            self._slot[row] = self._followed.get(entity, _NONE)
            self._on_first(FirstAccepted(server=server, entity=entity, epoch=epoch, at_ns=now_ns))
        return row

    def _row(self, entity: str, epoch: int) -> int:
        """Where what was accepted under that epoch is noted; -1 where that is nowhere."""
        row = self._rows.get(entity, _NONE)
        accepted = None if row == _NONE else self._accepted[row]
        return _NONE if accepted is None or accepted.epoch != epoch else row

    def _begin(self, accepted: _Accepted) -> int:
        """The row for a newer epoch of an entity: the one that it has, one that is free, or a new one."""
        row = self._rows.get(accepted.entity)
        if row is not None:
            # Its former handles are of an epoch that is below the fence, and accepted no more.
            self._end(row)
        elif self._free:
            row = self._free.pop()
        else:
            row = len(self._accepted)
            self._accepted.append(None)
            if row >= len(self._tick):
                self._first_ns, self._last_ns = _doubled(self._first_ns, 0), _doubled(self._last_ns, 0)
                self._tick, self._slot = _doubled(self._tick, _NONE), _doubled(self._slot, _NONE)
        self._accepted[row] = accepted
        self._rows[accepted.entity] = row
        return row

    def _end(self, row: int) -> None:
        accepted = self._accepted[row]
        if accepted is not None:
            self._on_over(self._acceptance(row, accepted))
        self._accepted[row] = None

    def acceptances(self, since_ns: int = 0) -> Iterable[Acceptance]:
        """What was accepted at that time or later under each entity's newest epoch, first to last record.

        Args:
            since_ns: of the last record; 0: everything.
        """
        for row in np.flatnonzero(self._last_ns[: len(self._accepted)] >= since_ns).tolist():
            accepted = self._accepted[row]
            if accepted is not None:
                yield self._acceptance(row, accepted)

    def _acceptance(self, row: int, accepted: _Accepted) -> Acceptance:
        return Acceptance(
            receiver=self._server,
            session=self._session,
            sender=accepted.sender,
            entity=accepted.entity,
            epoch=accepted.epoch,
            first_ns=int(self._first_ns[row]),
            last_ns=int(self._last_ns[row]),
        )


def _doubled(values: npt.NDArray[_T], fill: int) -> npt.NDArray[_T]:
    return np.concatenate((values, np.full_like(values, fill)))

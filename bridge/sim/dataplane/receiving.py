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


class Receiving:
    """Judges records, and keeps what is accepted of followed entities in the world.

    Args:
        server: name of this server.
        session: its session.
        world: where followed entities are written.
        fence: the homeserver's word, shared with the side that sends.
        on_first: told the first state of an entity under an epoch.
    """

    def __init__(
        self,
        *,
        server: str,
        session: bytes,
        world: World,
        fence: Fence,
        on_first: Callable[[FirstAccepted], None],
    ) -> None:
        self._server = server
        self._session = session
        self._world = world
        self._fence = fence
        self._on_first = on_first
        self._senders: dict[str, _Sender] = {}
        self._handles: dict[str, set[tuple[str, int]]] = {}
        self._followed: dict[str, int] = {}
        self._early: dict[str, tuple[str, int]] = {}
        self._rows: dict[tuple[str, int], int] = {}
        self._rows_of: dict[str, list[int]] = {}
        self._accepted_from: list[str] = []
        self._epochs: list[int] = []
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
        sender.make_room(handle)
        sender.bound[handle] = (entity, epoch)
        sender.bindings.bind(handle, entity, epoch, sender.session)
        sender.low[handle] = epoch & 0xFFFF
        sender.acceptance[handle] = self._rows.get((entity, epoch), _NONE)
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
        self._slot[self._rows_of.get(entity, [])] = slot

    def unfollow(self, entity: str) -> None:
        """Write no more of it: the slot is the simulation's."""
        self._followed.pop(entity, None)
        self._slot[self._rows_of.get(entity, [])] = _NONE

    def has_accepted_after(self, entity: str, epoch: int) -> bool:
        """Whether state of a later grant than ``epoch`` was accepted."""
        rows = self._rows_of.get(entity)
        return rows is not None and self._epochs[rows[-1]] > epoch

    def newer_than(self, entity: str, epoch: int) -> int | None:
        """The slot that has state of a later grant than ``epoch``; ``None`` where none has."""
        if not self.has_accepted_after(entity, epoch) or self._tick[self._rows_of[entity][-1]] == _NONE:
            return None
        return self._followed.get(entity)

    def streamed(self, entities: Iterable[str], *, since_ns: int) -> tuple[str, ...]:
        """Those of the entities whose newest grant's state was accepted since then, and is in the world."""
        return tuple(entity for entity in entities if self._is_streamed(entity, since_ns))

    def _is_streamed(self, entity: str, since_ns: int) -> bool:
        rows = self._rows_of.get(entity)
        if entity not in self._followed or not rows:
            return False
        # Accepted before it was followed is kept nowhere.
        return bool(self._tick[rows[-1]] != _NONE and self._last_ns[rows[-1]] >= since_ns)

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
        row = self._rows.get((entity, epoch))
        if row is None:
            row = self._rows[entity, epoch] = len(self._accepted_from)
            self._accepted_from.append(server)
            self._epochs.append(epoch)
            self._rows_of.setdefault(entity, []).append(row)
            if row >= len(self._tick):
                self._first_ns, self._last_ns = _doubled(self._first_ns, 0), _doubled(self._last_ns, 0)
                self._tick, self._slot = _doubled(self._tick, _NONE), _doubled(self._slot, _NONE)
            self._first_ns[row] = now_ns
            self._slot[row] = self._followed.get(entity, _NONE)
            self._on_first(FirstAccepted(server=server, entity=entity, epoch=epoch, at_ns=now_ns))
        return row

    def acceptances(self, since_ns: int = 0) -> Iterable[Acceptance]:
        """What was accepted at that time or later, from its first to its last record.

        Args:
            since_ns: of the last record; 0: everything.
        """
        names = list(self._rows)
        for row in np.flatnonzero(self._last_ns[: len(names)] >= since_ns).tolist():
            entity, epoch = names[row]
            yield Acceptance(
                receiver=self._server,
                session=self._session,
                sender=self._accepted_from[row],
                entity=entity,
                epoch=epoch,
                first_ns=int(self._first_ns[row]),
                last_ns=int(self._last_ns[row]),
            )


def _doubled(values: npt.NDArray[_T], fill: int) -> npt.NDArray[_T]:
    return np.concatenate((values, np.full_like(values, fill)))

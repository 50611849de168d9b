"""Ghosts at the borders of a mesh: tells neighbours what is near them, and follows what is near here.

Everybody streams to everybody; what is told here is which of it is worth keeping. So an entity is known
before it comes, and its giver sees it after it went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.authority import MAX_BORDER, Border, Phase
from bridge.sim.following import Following
from bridge.sim.standing import Standing
from bridge.sim.zones import nearest

_AGAIN_SECONDS: Final = 1.0
"""after which a list that has not changed is told again"""
_GRACE_SECONDS: Final = 2.0
"""An entity that its holder lists no more is followed for so long: its next one may not have told of it.
Longer than it takes until a list is told again, since a list may come before the feed knows its sender as
the holder."""


@dataclass(frozen=True, slots=True)
class _Near:
    """An entity near this server's zone, as its holder told.

    Attributes:
        server: the holder.
        metres: from the zone.
        until: when it is followed no more, in seconds; ``None`` while the holder lists it.
    """

    server: str
    metres: float
    until: float | None


@dataclass(slots=True)
class _Told:
    """What a server was told last: in which session, which entities, when."""

    session: bytes | None
    names: frozenset[str]
    at: float


class Ghosts:
    """What one session tells others to follow, and follows itself.

    Args:
        standing: what the session holds, and whom it knows.
        following: what the server follows.
        budget: ghosts at most, the nearest first; ``None``: no limit.
        reached: whether a message would arrive at a server now.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        following: Following,
        budget: int | None,
        reached: Callable[[str], bool],
    ) -> None:
        self._standing = standing
        self._following = following
        self._budget = budget
        self._reached = reached
        self._told: dict[str, _Told] = {}
        self._coming: dict[str, list[tuple[str, float]]] = {}
        self._near: dict[str, _Near] = {}

    def tell(self, server: str, near: Sequence[tuple[str, float]], *, now: float) -> None:
        """Tell a neighbour what of this server's entities it is to follow, where that is news to it.

        Args:
            server: the neighbour.
            near: names and metres from its zone, the nearest first.
            now: seconds.
        """
        if not self._reached(server):
            self._told.pop(server, None)
            return
        session, names = self._standing.servers.session_of(server), frozenset(name for name, _ in near)
        told = self._told.get(server, _Told(session, frozenset(), now))
        if (told.session, told.names) == (session, names) and (not names or now - told.at < _AGAIN_SECONDS):
            return
        self._told[server] = _Told(session, names, now)
        for begin in range(0, max(1, len(near)), MAX_BORDER):
            part = tuple(near[begin : begin + MAX_BORDER])
            self._standing.tell(server, Border(near=part, more=begin + MAX_BORDER < len(near)))

    def take(self, server: str, border: Border, *, now: float) -> None:
        """Hear what of a neighbour's entities is near."""
        whole = self._coming.setdefault(server, [])
        whole += border.near
        # More than is followed is not kept: it comes from another process.
        del whole[self._standing.slots.capacity :]
        if border.more:
            return
        del self._coming[server]
        for entity, near in self._near.items():
            if near.server == server and near.until is None:
                self._near[entity] = _Near(server, near.metres, now + _GRACE_SECONDS)
        for entity, metres in whole:
            self._near[entity] = _Near(server, metres, None)
        self.settle(now=now)

    def keep(self, entity: str, to: str, *, now: float) -> None:
        """Go on seeing an entity that was just given away, until its taker tells of it."""
        self._near[entity] = _Near(to, 0.0, now + _GRACE_SECONDS)
        self._following.gave(entity)
        self.settle(now=now)

    def settle(self, *, now: float) -> None:
        """Follow what is near now, and nothing else."""
        held = self._standing.held()
        for entity, near in list(self._near.items()):
            if near.until is None:
                if self._is_elsewhere(entity, near.server):
                    self._near[entity] = _Near(near.server, near.metres, now + _GRACE_SECONDS)
            elif near.until <= now:
                del self._near[entity]
        near_now = (
            (entity, near.metres) for entity, near in self._near.items() if self._may_be_ghost(entity)
        )
        self._following.show(nearest(near_now, self._budget), held=held)

    def _is_elsewhere(self, entity: str, server: str) -> bool:
        """Whether somebody else holds it than who told of it last, who may be dead."""
        record = self._standing.entities.get(entity)
        return record is not None and record.server != server

    def _may_be_ghost(self, entity: str) -> bool:
        """Whether to follow it: one that is on its way here only goes on to be followed.

        To begin then could write over the state of the release that it comes with.
        """
        holding = self._standing.holdings[entity]
        record = self._standing.entities.get(entity)
        # Who gave it away knows so before the feed has told the record.
        ours = record is not None and record.server == self._standing.name and record.epoch >= holding.epoch
        if holding.phase is Phase.FOLLOWING and not ours:
            return True
        return holding.phase is not Phase.HOLDING and entity in self._following.ghosts

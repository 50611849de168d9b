"""What a server of a mesh follows of others: ghosts, and what it would go on with if their server died.

The two have budgets of their own: what is near never waits for room that something far away has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from bridge.sim.dataplane.messages import Command, Follow, Unfollow
from bridge.sim.slots import Slots


class Following:
    """Outlives sessions, as what the data plane follows does.

    Args:
        slots: where what is followed lies.
        follow: others than ghosts that are followed at most, the first ones that come.
        tell: takes commands for the data plane.

    Attributes:
        ghosts: followed now, since they are in the strip around the server's zone.
    """

    def __init__(self, *, slots: Slots, follow: int, tell: Callable[[Command], None]) -> None:
        self.ghosts: set[str] = set()
        self._others: set[str] = set()
        self._slots = slots
        self._most_others = follow
        self._tell = tell
        slots.is_wanted = lambda entity: entity in self.ghosts or entity in self._others
        slots.on_drop = self._lose

    def first(self, entity: str) -> None:
        """Somebody's first state of an entity was accepted: follow it while there is room."""
        if entity not in self._others and len(self._others) < self._most_others:
            if entity not in self.ghosts and not self._begin(entity):
                return
            self._others.add(entity)

    def gave(self, entity: str) -> None:
        """An entity was given away: whatever followed it before ended when it came here."""
        self._others.discard(entity)
        self.ghosts.discard(entity)

    def show(self, ghosts: AbstractSet[str], *, held: Iterable[str]) -> None:
        """Follow these ghosts and no others.

        Args:
            ghosts: none of which this server holds.
            held: what it holds, which the data plane has unfollowed.
        """
        # What came here was unfollowed with its release; it is followed anew where it goes on.
        self._others.difference_update(held)
        self.ghosts.difference_update(held)
        for entity in self.ghosts - ghosts - self._others:
            self._tell(Unfollow(entity=entity))
        self.ghosts &= ghosts
        for entity in ghosts - self.ghosts:
            if entity in self._others or self._begin(entity):
                self.ghosts.add(entity)

    def _lose(self, entity: str) -> None:
        """Its slot is another one's: it is followed no more."""
        self.ghosts.discard(entity)
        self._others.discard(entity)

    def _begin(self, entity: str) -> bool:
        if not self._slots.may_follow(entity):
            return False
        self._tell(Follow(entity=entity, slot=self._slots[entity]))
        return True

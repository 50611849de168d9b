"""Which slot of the shared world an entity has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bridge.errors import ConfigurationError


class Slots:
    """Slots by entity; they outlive sessions, since what was seen of an entity stays worth knowing.

    Args:
        server: name of the server, for errors.
        capacity: slots there are.
        follow: up to how many slots are given to what is only followed; never more than half of all.

    Attributes:
        capacity: slots there are.
        most_followed: up to how many are given to what is only followed.
        is_wanted: whether an entity that is only followed is to go on to be so; none is, unless this is set.
        on_drop: told of an entity that has lost its slot.
    """

    def __init__(self, *, server: str, capacity: int, follow: int) -> None:
        self._server = server
        self.capacity = capacity
        self.most_followed = min(follow, capacity // 2)
        self._by_entity: dict[str, int] = {}
        self._used = 0
        self._refusals = 0
        self._free: list[int] = []
        self._dropped: list[int] = []
        self.is_wanted: Callable[[str], bool] = lambda _: False
        self.on_drop: Callable[[str], None] = lambda _: None

    def __contains__(self, entity: str) -> bool:
        return entity in self._by_entity

    def __iter__(self) -> Iterator[str]:
        """Entities with a slot; who got it first comes first."""
        return iter(self._by_entity)

    def __len__(self) -> int:
        return len(self._by_entity)

    @property
    def is_full(self) -> bool:
        """Whether the next entity would have to take another one's slot."""
        return not self._free and self._used >= self.capacity

    def __getitem__(self, entity: str) -> int:
        """The slot of an entity, which gets one if it has none.

        Raises:
            ConfigurationError: all are taken.
        """
        slot = self._by_entity.get(entity)
        if slot is None:
            if self.is_full:
                raise ConfigurationError(
                    f"more than {self.capacity} entities: raise the capacity of {self._server}"
                )
            if self._free:
                slot = self._free.pop()
            else:
                slot = self._used
                self._used += 1
            self._by_entity[entity] = slot
        return slot

    @property
    def is_tight(self) -> bool:
        """Whether nothing more is followed, for want of room."""
        return self.is_full or len(self._by_entity) >= self.most_followed

    def may_follow(self, entity: str) -> bool:
        """Whether an entity that another server holds may have a slot here."""
        if entity in self._by_entity:
            return True
        self._refusals += self.is_tight
        return not self.is_tight

    def take_refusals(self) -> int:
        """How often something could not be followed, for want of room, since this was asked last."""
        refusals, self._refusals = self._refusals, 0
        return refusals

    @property
    def dropped(self) -> tuple[int, ...]:
        """Slots that no entity has, and that none gets before ``free``."""
        return tuple(self._dropped)

    def drop(self, entity: str) -> int | None:
        """Take an entity's slot; ``None`` where it has none."""
        slot = self._by_entity.pop(entity, None)
        if slot is not None:
            self._dropped.append(slot)
            self.on_drop(entity)
        return slot

    def free(self, slot: int) -> None:
        """Let a dropped slot be another entity's: nothing is written there any more."""
        self._dropped.remove(slot)
        self._free.append(slot)

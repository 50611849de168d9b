"""Which slot of the shared world an entity has, for as long as the server runs. Pure."""

from __future__ import annotations

from bridge.errors import ConfigurationError


class Slots:
    """Slots by entity; they outlive sessions, since what was seen of an entity stays worth knowing.

    Args:
        server: name of the server, for errors.
        capacity: slots there are.
        follow: up to how many slots are given to what is only followed; never more than half of all.

    Attributes:
        capacity: slots there are.
    """

    def __init__(self, *, server: str, capacity: int, follow: int) -> None:
        self._server = server
        self.capacity = capacity
        self._most_followed = min(follow, capacity // 2)
        self._by_entity: dict[str, int] = {}

    def __contains__(self, entity: str) -> bool:
        return entity in self._by_entity

    def __getitem__(self, entity: str) -> int:
        """The slot of an entity, which gets one if it has none.

        Raises:
            ConfigurationError: all are taken.
        """
        slot = self._by_entity.get(entity)
        if slot is None:
            slot = len(self._by_entity)
            if slot >= self.capacity:
                raise ConfigurationError(
                    f"more than {self.capacity} entities: raise the capacity of {self._server}"
                )
            self._by_entity[entity] = slot
        return slot

    def may_follow(self, entity: str) -> bool:
        """Whether an entity that another server holds may have a slot here."""
        return entity in self._by_entity or len(self._by_entity) < self._most_followed

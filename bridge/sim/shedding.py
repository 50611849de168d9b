"""When a simulation server has too much to do, and what it gives to whom (R0-44). Pure.

A server sheds once it holds more than it may, or once its steps take longer than they may. It goes on
until it is well below both, and takes nothing from others before, nor more than to stay so: two servers never
push the same entity to and fro.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.errors import ConfigurationError

CALM: Final = 0.8
"""of either limit: where shedding ends, and up to where a server takes what others shed"""
_SHARE: Final = 0.1
"""of what is held, to be rid of in a round where steps are too long: what an entity costs is not known"""


@dataclass(frozen=True, slots=True)
class Offered:
    """What another server has room for.

    Attributes:
        load: entities that it holds.
        entities: those of the entities asked about that it has streamed in and would take.
    """

    load: int
    entities: frozenset[str]


class Shedding:
    """Load of one server.

    Args:
        period_seconds: of a simulation step.
        max_entities: what it may hold, 1 or more.
        max_busy: share of the period that steps may take, above 0.
        per_round: entities that it sheds at most in a round.

    Attributes:
        busy: share of the period that steps take, averaged over about a second of them.
    """

    def __init__(
        self, *, period_seconds: float, max_entities: int, max_busy: float = 1.0, per_round: int = 16
    ) -> None:
        if max_entities < 1 or not period_seconds > 0 or not max_busy > 0 or per_round < 1:
            raise ConfigurationError("shedding takes a period and a share above zero, and one entity or more")
        self.busy = 0.0
        self._period = period_seconds
        self._max = max_entities
        self._max_busy = max_busy
        self._calm_busy = CALM * max_busy
        self._calm = max(1, math.floor(CALM * max_entities))
        self._per_round = per_round
        self._is_shedding = False

    def stepped(self, seconds: float) -> None:
        """Note how long a step of the simulation took."""
        self.busy += min(1.0, self._period) * (seconds / self._period - self.busy)

    def excess(self, held: int) -> int:
        """Entities to be rid of in this round; 0 where all is well.

        Args:
            held: entities that the server holds.
        """
        if held > self._max or self.busy > self._max_busy:
            self._is_shedding = True
        elif held <= self._calm and self.busy <= self._calm_busy:
            self._is_shedding = False
        if not self._is_shedding:
            return 0
        too_many = held - self._calm
        too_long = math.ceil(_SHARE * held) if self.busy > self._calm_busy else 0
        return max(0, min(self._per_round, held, max(too_many, too_long)))

    def room(self, held: int) -> int:
        """Entities that the server would take from another one that has too much to do."""
        if self._is_shedding or self.busy > self._calm_busy:
            return 0
        return max(0, self._calm - held)


def assigned(entities: Iterable[str], others: Mapping[str, Offered]) -> list[tuple[str, str]]:
    """Who takes which entity: of those that would, the one that holds least.

    Args:
        entities: what may be given, in this order.
        others: what other servers offered, by name.
    """
    loads = {server: offered.load for server, offered in others.items()}
    found = []
    for entity in entities:
        able = [server for server, offered in others.items() if entity in offered.entities]
        taker = min(able, key=lambda server: (loads[server], server), default=None)
        if taker is not None:
            found.append((entity, taker))
            loads[taker] += 1
    return found

"""Who may speak for an entity now, as one receiver knows it.

A receiver hears of grants from its homeserver only. State below the highest epoch it knows is refused as
late; state from another key than that epoch's holder is refused as foreign; state above it is early: the
homeserver's word is still on its way, and acting on a stranger's claim to a higher epoch would hand every
entity to the boldest liar.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Verdict(Enum):
    """What a receiver does with a state record."""

    ACCEPTED = auto()
    LATE = auto()
    EARLY = auto()
    FOREIGN = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class _Holder:
    epoch: int
    thumbprint: str


class Fence:
    """The highest epoch of each entity and its holder's key."""

    def __init__(self) -> None:
        self._holders: dict[str, _Holder] = {}

    def __len__(self) -> int:
        """Entities of which a grant is known."""
        return len(self._holders)

    def raise_to(self, entity: str, epoch: int, thumbprint: str) -> bool:
        """Learn of a grant; an older one than the known changes nothing.

        Args:
            entity: name.
            epoch: of the grant.
            thumbprint: of the holder's key; empty while the entity is dormant, when nobody may speak.

        Returns:
            Whether it was news.
        """
        known = self._holders.get(entity)
        if known is not None and (known.epoch, known.thumbprint) == (epoch, thumbprint):
            return False
        if known is not None and epoch < known.epoch:
            return False
        self._holders[entity] = _Holder(epoch, thumbprint)
        return True

    def forget(self, entity: str) -> None:
        """The homeserver has the entity no more: nobody speaks for it."""
        self._holders.pop(entity, None)

    def judge(self, entity: str, epoch: int, thumbprint: str) -> Verdict:
        """Judge a record that ``thumbprint``'s owner sealed for ``entity`` at ``epoch``."""
        known = self._holders.get(entity)
        if known is None:
            return Verdict.UNKNOWN
        if epoch < known.epoch:
            return Verdict.LATE
        if epoch > known.epoch:
            return Verdict.EARLY
        return Verdict.ACCEPTED if thumbprint == known.thumbprint else Verdict.FOREIGN

    def epoch(self, entity: str) -> int:
        """Highest known epoch; 0 where none is known."""
        known = self._holders.get(entity)
        return 0 if known is None else known.epoch

"""One server's side of authority: what it may do with each entity now.

The table is the safety rule of a holder: state is sealed only in ``HOLDING``; the only ways into it
are a grant whose release was verified or is due no more, a creation, or a definite refusal of one's own
request to give.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from bridge.errors import InvalidStateError


class Phase(Enum):
    """Where a server stands with an entity."""

    FOLLOWING = auto()
    """somebody else holds it, or nobody"""
    AWAITING = auto()
    """granted to this server; the former holder's release is still due, so it must not act"""
    HOLDING = auto()
    """this server acts for it"""
    RELEASING = auto()
    """it has stopped acting and signed its release; the homeserver's word is due"""


_NEXT: Final = {
    Phase.FOLLOWING: {Phase.AWAITING, Phase.HOLDING},
    Phase.AWAITING: {Phase.HOLDING, Phase.FOLLOWING},
    Phase.HOLDING: {Phase.RELEASING, Phase.FOLLOWING},
    Phase.RELEASING: {Phase.FOLLOWING, Phase.HOLDING},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A server's standing with one entity.

    Attributes:
        epoch: of this server's own grant in every phase but ``FOLLOWING``, where it is the highest known.
        awaited: in ``AWAITING``, the epoch whose release is due.
    """

    entity: str
    phase: Phase = Phase.FOLLOWING
    epoch: int = 0
    awaited: int | None = None


class Holdings:
    """The standings of one server, by entity."""

    def __init__(self) -> None:
        self._by_entity: dict[str, Holding] = {}
        # Asked for at each renewal and round of handing over: kept, since to look at all of 32,000 took 4 ms.
        self._held: dict[str, Holding] = {}

    def __getitem__(self, entity: str) -> Holding:
        return self._by_entity.get(entity, Holding(entity=entity))

    def __len__(self) -> int:
        """Entities of which something is known."""
        return len(self._by_entity)

    def held(self) -> list[Holding]:
        """The entities that this server acts for; whichever it has acted for longest come first."""
        return list(self._held.values())

    @property
    def names_held(self) -> Collection[str]:
        """Of the entities that this server acts for, in the same order; changes with them."""
        return self._held.keys()

    def grant(self, entity: str, epoch: int) -> Holding:
        """Authority with nothing left to wait for: a creation, or a grant whose release was verified.

        Raises:
            InvalidStateError: not above what this server knows already.
        """
        return self._raise(entity, Phase.HOLDING, epoch)

    def wait(self, entity: str, epoch: int, awaited: int) -> Holding:
        """Authority at ``epoch`` once the release of ``awaited`` has come."""
        return self._raise(entity, Phase.AWAITING, epoch, awaited)

    def wait_anew(self, entity: str, epoch: int, awaited: int) -> Holding:
        """The session whose release was due ended; an older one's is due instead.

        Raises:
            InvalidStateError: this server does not wait under ``epoch``.
        """
        return self._store(replace(self._waiting(entity, epoch), awaited=awaited))

    def wait_no_more(self, entity: str, epoch: int) -> Holding:
        """The session whose release was due ended, and no older one's is due.

        Raises:
            InvalidStateError: this server does not wait under ``epoch``.
        """
        return self._enter(replace(self._waiting(entity, epoch), awaited=None), Phase.HOLDING)

    def receive_release(self, entity: str, epoch: int, released: int) -> Holding:
        """The release that was waited for has come and was verified.

        Args:
            epoch: of this server's grant, as the message names it.
            released: the epoch that the former holder gave up.

        Raises:
            InvalidStateError: nothing waits for this release.
        """
        now = self[entity]
        if now.phase is not Phase.AWAITING or (now.epoch, now.awaited) != (epoch, released):
            raise InvalidStateError(
                f"{entity}: no release of {released} for {epoch} is due ({now.phase.name})"
            )
        return self._enter(replace(now, awaited=None), Phase.HOLDING)

    def stop(self, entity: str) -> Holding:
        """Begin to give the entity away: it must not be acted for from here on.

        Raises:
            InvalidStateError: this server does not act for it.
        """
        return self._enter(self[entity], Phase.RELEASING)

    def resume(self, entity: str) -> Holding:
        """The homeserver refused for good what ``stop`` began, and still names this server as the holder."""
        if self[entity].phase is not Phase.RELEASING:
            raise InvalidStateError(f"{entity}: nothing to resume ({self[entity].phase.name})")
        return self._enter(self[entity], Phase.HOLDING)

    def forget(self, entity: str) -> None:
        """The entity is no more; one of its name that is made later is another one."""
        self._by_entity.pop(entity, None)
        self._held.pop(entity, None)

    def follow(self, entity: str, epoch: int) -> Holding:
        """The homeserver says that another grant, or none, is current. What is older changes nothing."""
        now = self[entity]
        if epoch < now.epoch:
            return now
        if now.phase is Phase.FOLLOWING:
            return self._store(replace(now, epoch=epoch))
        return self._enter(replace(now, epoch=epoch, awaited=None), Phase.FOLLOWING)

    def _waiting(self, entity: str, epoch: int) -> Holding:
        now = self[entity]
        if now.phase is not Phase.AWAITING or now.epoch != epoch:
            raise InvalidStateError(f"{entity}: nothing is awaited for {epoch} ({now.phase.name})")
        return now

    def _raise(self, entity: str, phase: Phase, epoch: int, awaited: int | None = None) -> Holding:
        now = self[entity]
        if epoch < now.epoch or (epoch == now.epoch and now.phase is not Phase.FOLLOWING):
            raise InvalidStateError(f"{entity}: a grant of {epoch} after {now.epoch} ({now.phase.name})")
        return self._enter(replace(now, epoch=epoch, awaited=awaited), phase)

    def _enter(self, holding: Holding, phase: Phase) -> Holding:
        if phase not in _NEXT[holding.phase]:
            raise InvalidStateError(f"{holding.entity}: {holding.phase.name} cannot become {phase.name}")
        return self._store(replace(holding, phase=phase))

    def _store(self, holding: Holding) -> Holding:
        self._by_entity[holding.entity] = holding
        if holding.phase is Phase.HOLDING:
            self._held[holding.entity] = holding
        else:
            self._held.pop(holding.entity, None)
        return holding

"""The check that no two servers ever acted for one entity at once, and that nothing was lost or changed.

Grants alone could not show a violation: the homeserver may grant correctly while a frozen server still
speaks. So what is checked is what servers, receivers and clients recorded (``bridge.authority.entries``), for
all promises of ``bridge.authority.promises``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bridge.authority.asked import leaves_of, operations_of, travelled, vanishing
from bridge.authority.entries import Acceptance, Act, Alive, Began, Entry, Final
from bridge.authority.promises import (
    Violation,
    changed_states,
    doubled_entities,
    early,
    linearizable,
    lost_entities,
    lost_grants,
    overlaps,
    revived,
    shared_epochs,
    stale,
)
from bridge.authority.record_model import Known


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a check.

    Attributes:
        acts: how many acts were checked.
        double_holders: two servers acted for one entity in one instant, one epoch had two holders, or one
            that was over was acted under again.
        stale_acceptances: a receiver accepted an epoch after a higher one, or from the wrong server.
        lost_grants: an acknowledged grant or change is missing from the final record.
        changed_states: a hand-over whose state hash differs between giver and taker.
        operations: how many requests about entities were checked, ``unanswered`` of them without a known end.
        not_linearizable: answers about an entity that fit no order of what was asked.
        lost_entities: made, acknowledged, and nobody's in the end.
        doubled_entities: two instances have it in the end.
        undecided: entities whose search was given up; nothing is shown for them, and that is no proof.
        travelled: entities that were put into escrow for another instance; what that decides is no answer of
            this history, so the order of their answers is not searched.
        deleted: entities that somebody asked to delete without being answered: whether what comes under
            their names afterwards is another one is not known, so the order of their answers is searched
            until then.
    """

    acts: int
    operations: int = 0
    unanswered: int = 0
    double_holders: list[Violation] = field(default_factory=list)
    stale_acceptances: list[Violation] = field(default_factory=list)
    lost_grants: list[Violation] = field(default_factory=list)
    changed_states: list[Violation] = field(default_factory=list)
    not_linearizable: list[Violation] = field(default_factory=list)
    lost_entities: list[Violation] = field(default_factory=list)
    doubled_entities: list[Violation] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    travelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        """All of them, the shortest counter-example first."""
        found = (
            self.double_holders
            + self.stale_acceptances
            + self.lost_grants
            + self.changed_states
            + self.lost_entities
            + self.doubled_entities
            + self.not_linearizable
        )
        return sorted(found, key=lambda violation: len(violation.entries))


def check(entries: Sequence[Entry], *, final_epochs: dict[str, int] | None = None) -> Verdict:
    """Check the records of all servers together.

    Args:
        entries: from every server, in any order.
        final_epochs: the homeserver's epoch of each entity after the run, where it can still be asked; an
            acknowledged grant above it was lost.

    Returns:
        The verdict; empty lists prove the promises for what was recorded.
    """
    finals = [entry for entry in entries if isinstance(entry, Final)]
    entries = [*_acts(entries), *_acceptances(entries), *_others(entries)]
    asked = operations_of(entries)
    not_linearizable, undecided = linearizable(asked, leaves_of(entries, asked), finals)
    return Verdict(
        acts=sum(isinstance(entry, Act) for entry in entries),
        operations=len(asked),
        unanswered=sum(operation.known is Known.UNKNOWN for _, operation in asked),
        double_holders=overlaps(entries)
        + revived(entries)
        + shared_epochs(entries, asked)
        + early(entries, asked),
        stale_acceptances=stale(entries),
        lost_grants=lost_grants(entries, final_epochs or {}, asked, finals),
        changed_states=changed_states(entries),
        not_linearizable=not_linearizable,
        lost_entities=lost_entities(asked, finals),
        doubled_entities=doubled_entities(finals),
        undecided=undecided,
        travelled=travelled(asked),
        deleted=sorted(vanishing(asked)),
    )


def _acts(entries: Sequence[Entry]) -> Iterator[Act]:
    """All acts, those of killed servers as long as they can have been."""
    last = {entry.session: entry.at_ns for entry in entries if isinstance(entry, Alive)}
    whole = set()
    for entry in entries:
        if isinstance(entry, Act):
            whole.add((entry.session, entry.entity, entry.epoch))
            yield entry
    for entry in entries:
        if isinstance(entry, Began) and (entry.session, entry.entity, entry.epoch) not in whole:
            yield Act(
                server=entry.server,
                session=entry.session,
                entity=entry.entity,
                epoch=entry.epoch,
                first_ns=entry.first_ns,
                last_ns=max(entry.first_ns, last.get(entry.session, 0)),
            )


def _acceptances(entries: Sequence[Entry]) -> Iterable[Acceptance]:
    told: dict[tuple[str, bytes, str, str, int], Acceptance] = {}
    for entry in entries:
        if isinstance(entry, Acceptance):
            key = (entry.receiver, entry.session, entry.sender, entry.entity, entry.epoch)
            if key not in told or told[key].last_ns < entry.last_ns:
                told[key] = entry
    return told.values()


def _others(entries: Sequence[Entry]) -> Iterator[Entry]:
    yield from (entry for entry in entries if not isinstance(entry, Act | Began | Alive | Acceptance))

"""The promises that a history is checked for, each with the records that break it.

All take the entries of a whole run as ``bridge.authority.history`` made them ready: acts of killed servers
ended, each acceptance as it was told last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final as Constant

from bridge.authority.asked import Asked, alive_until, travelled, vanishing
from bridge.authority.entries import Acceptance, Act, Called, Entry, Final, Granted, HandOver
from bridge.authority.linearizability import check_entity, known_at
from bridge.authority.record_model import Known, Operation, RecordView

READ: Constant = "read"
"""``function`` of a linearizable read of one entity's record"""

_GRANTING: Constant = frozenset({"create_entity", "push", "pull", "claim"})


@dataclass(frozen=True, slots=True)
class Violation:
    """A counter-example.

    Attributes:
        rule: which promise is broken.
        entries: the records that break it.
    """

    rule: str
    text: str
    entries: tuple[Entry, ...]


def overlaps(entries: Sequence[Entry]) -> list[Violation]:
    """Acts of two servers for one entity in one instant."""
    found = []
    acts: dict[str, list[Act]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Act):
            acts[entry.entity].append(entry)
    for entity, of_entity in acts.items():
        of_entity.sort(key=lambda act: (act.first_ns, act.last_ns))
        # Sorted by start, an act overlaps some earlier one exactly if it starts before the latest end so far.
        latest: Act | None = None
        for act in of_entity:
            if latest is not None and act.session != latest.session and act.first_ns <= latest.last_ns:
                text = (
                    f"{entity}: {act.server} acted at epoch {act.epoch} while {latest.server} still did at "
                    f"{latest.epoch}, for {(min(act.last_ns, latest.last_ns) - act.first_ns) / 1e6:.3f} ms"
                )
                found.append(Violation("no two holders at an instant", text, (latest, act)))
            if latest is None or act.last_ns > latest.last_ns:
                latest = act
    return found


def revived(entries: Sequence[Entry]) -> list[Violation]:
    """Acts that begin under an epoch when a newer one's have begun: it was over."""
    found = []
    newest: dict[str, Act] = {}
    for act in sorted((e for e in entries if isinstance(e, Act)), key=lambda act: (act.first_ns, act.epoch)):
        newer = newest.setdefault(act.entity, act)
        if act.epoch < newer.epoch:
            late_ms = (act.first_ns - newer.first_ns) / 1e6
            text = (
                f"{act.entity}: {act.server} began to act at epoch {act.epoch}, "
                f"{late_ms:.3f} ms after {newer.server} had begun at {newer.epoch}"
            )
            found.append(Violation("an epoch that is over stays over", text, (newer, act)))
        else:
            newest[act.entity] = act
    return found


def shared_epochs(entries: Sequence[Entry], asked: Asked) -> list[Violation]:
    """Epochs that two sessions acted under, were granted, or were told to be theirs."""
    found = []
    shown: dict[tuple[str, int], tuple[bytes, Called]] = {}
    for called, operation in asked:
        record = operation.record
        if record is None or record.session is None:
            continue
        holder, first_called = shown.setdefault((operation.entity, record.epoch), (record.session, called))
        if holder != record.session:
            text = f"{operation.entity}: two sessions were told that epoch {record.epoch} is theirs"
            found.append(Violation("an epoch has one holder", text, (first_called, called)))
    holders: dict[tuple[str, int], Act | Granted] = {}
    for entry in entries:
        if not isinstance(entry, Act | Granted):
            continue
        first = holders.setdefault((entry.entity, entry.epoch), entry)
        if first.session != entry.session:
            text = f"{entry.entity}: epoch {entry.epoch} belongs to {first.server} and to {entry.server}"
            found.append(Violation("an epoch has one holder", text, (first, entry)))
            continue
        if first is entry and (told := shown.get((entry.entity, entry.epoch))) is not None:
            holder, answered = told
            if holder != entry.session:
                text = f"{entry.entity}: {entry.server} acts at epoch {entry.epoch}, which is another's"
                found.append(Violation("an epoch has one holder", text, (answered, entry)))
    return found


def early(entries: Sequence[Entry], asked: Asked) -> list[Violation]:
    """Acts before anybody had asked for the grant."""
    asked_for: dict[tuple[str, int], Called] = {}
    for question, operation in asked:
        if operation.record is not None and operation.function in _GRANTING:
            asked_for[operation.entity, operation.record.epoch] = question
    return [
        Violation(
            "a grant is acted on after it was asked for",
            f"{entry.entity}: {entry.server} acted at epoch {entry.epoch} before that was asked for",
            (called, entry),
        )
        for entry in entries
        if isinstance(entry, Act)
        and (called := asked_for.get((entry.entity, entry.epoch))) is not None
        and entry.first_ns < called.at_ns
    ]


def stale(entries: Sequence[Entry]) -> list[Violation]:
    """What was accepted of an epoch after a higher one, or from another than its holder."""
    found = []
    accepted: dict[tuple[str, bytes, str], list[Acceptance]] = defaultdict(list)
    owners: dict[tuple[str, int], str] = {}
    for entry in entries:
        if isinstance(entry, Acceptance):
            accepted[entry.receiver, entry.session, entry.entity].append(entry)
        elif isinstance(entry, Granted):
            owners[entry.entity, entry.epoch] = entry.server
    for (receiver, _, entity), of_entity in accepted.items():
        of_entity.sort(key=lambda acceptance: acceptance.epoch)
        for lower, higher in pairwise(of_entity):
            if lower.last_ns > higher.first_ns:
                text = f"{receiver} accepted {entity} at epoch {lower.epoch} after {higher.epoch}"
                found.append(Violation("a late ex-owner is refused", text, (higher, lower)))
        for acceptance in of_entity:
            owner = owners.get((entity, acceptance.epoch))
            if owner is not None and owner != acceptance.sender:
                text = (
                    f"{receiver} accepted {entity} at epoch {acceptance.epoch} from {acceptance.sender}, "
                    f"not from {owner}"
                )
                found.append(Violation("only the holder is heard", text, (acceptance,)))
    return found


def changed_states(entries: Sequence[Entry]) -> list[Violation]:
    """Hand-overs of which the taker had another state than the giver released."""
    found = []
    # Who was refused goes on under its epoch, and gives another state later: the taker has one of them.
    gave: dict[tuple[str, int], list[HandOver]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, HandOver) and entry.side == "gave":
            gave[entry.entity, entry.epoch].append(entry)
    for entry in entries:
        if not isinstance(entry, HandOver) or entry.side != "took":
            continue
        given = gave.get((entry.entity, entry.epoch))
        if given is not None and entry.hash not in {giver.hash for giver in given}:
            text = f"{entry.entity}: {entry.server} took over another state than {given[-1].server} released"
            found.append(Violation("state moves unchanged", text, (given[-1], entry)))
    return found


def lost_grants(
    entries: Sequence[Entry], final_epochs: dict[str, int], asked: Asked, finals: Sequence[Final]
) -> list[Violation]:
    """Acknowledged grants and changes that the end does not show.

    Args:
        final_epochs: the homeserver's epoch of each entity in the end, where it was asked for those alone.
    """
    last = {entity: record for final in finals for entity, record in final.entities.items()}
    # What was granted after the last look may well be above it.
    until_ns = min((final.at_ns for final in finals), default=None)
    if until_ns is not None:
        entries = [entry for entry in entries if not isinstance(entry, Granted) or entry.at_ns <= until_ns]
        asked = [(called, operation) for called, operation in asked if called.at_ns <= until_ns]
    ends = {entity: record.epoch for entity, record in last.items()} | final_epochs
    lost = [
        Violation(
            "an acknowledged grant stays",
            f"{entry.entity}: {entry.server} got epoch {entry.epoch}, the homeserver ends at {final}",
            (entry,),
        )
        for entry in entries
        if isinstance(entry, Granted) and (final := ends.get(entry.entity, entry.epoch)) < entry.epoch
    ]
    for called, operation in asked:
        final_record, record = last.get(operation.entity), operation.record
        if final_record is None or record is None or len(finals) > 1:
            continue
        # Of one name by epoch first: after a deletion versions begin anew.
        if (final_record.epoch, final_record.version) < (record.epoch, record.version):
            text = (
                f"{operation.entity}: {operation.client} was answered version {record.version} at epoch "
                f"{record.epoch}, the homeserver ends at {final_record.version}, {final_record.epoch}"
            )
            lost.append(Violation("an acknowledged grant stays", text, (called,)))
    return lost


def lost_entities(asked: Asked, finals: Sequence[Final]) -> list[Violation]:
    """Entities that were made, acknowledged, and are nobody's in the end."""
    there = {entity for final in finals for entity in final.entities} | vanishing(asked).keys()
    deleted: dict[str, int] = {}
    for _, operation in asked:
        if operation.function == "delete_entity" and operation.record is not None:
            deleted[operation.entity] = max(deleted.get(operation.entity, 0), operation.record.epoch)
    return [
        Violation("no entity is lost", f"{operation.entity}: made, and nobody's in the end", (called,))
        for called, operation in asked
        if finals
        and operation.function == "create_entity"
        and operation.known is Known.OK
        and operation.entity not in there
        and (operation.record is None or deleted.get(operation.entity, -1) < operation.record.epoch)
    ]


def doubled_entities(finals: Sequence[Final]) -> list[Violation]:
    """Entities that two instances have in the end."""
    found = []
    first: dict[str, Final] = {}
    for final in finals:
        for entity in final.entities:
            other = first.setdefault(entity, final)
            if other is not final:
                text = f"{entity}: {other.instance} and {final.instance} both have it"
                found.append(Violation("no entity is doubled", text, (other, final)))
    return found


def linearizable(asked: Asked, leaves: Asked, finals: Sequence[Final]) -> tuple[list[Violation], list[str]]:
    """Answers about an entity that fit no order of what was asked; and entities whose search was given up."""
    found, undecided = [], []
    calls = {(operation.client, operation.called_ns): called for called, operation in (*asked, *leaves)}
    of_entity: dict[str, list[Operation]] = defaultdict(list)
    for _, operation in (*asked, *leaves):
        of_entity[operation.entity].append(operation)
    if len(finals) == 1:
        (final,) = finals
        gone = {operation.entity for _, operation in asked if operation.function == "delete_entity"}
        for entity in final.entities.keys() | gone:
            of_entity[entity].append(_read(final, entity, final.entities.get(entity)))
    sessions = None if not finals else frozenset(s for final in finals for s in final.sessions)
    gone_abroad, deleted_ns = travelled(asked), vanishing(asked)
    alive = alive_until(asked)
    for entity, operations in of_entity.items():
        if entity in gone_abroad:
            continue
        if entity in deleted_ns:
            operations = known_at(operations, deleted_ns[entity] - 1)
        example = check_entity(operations, open_sessions=sessions, alive_ns=alive)
        if example is None:
            continue
        if example.undecided:
            undecided.append(entity)
            continue
        text = "\n  ".join((example.text, *map(str, example.operations)))
        names = ((operation.client, operation.called_ns) for operation in example.operations)
        shown = tuple(calls[name] for name in names if name in calls)
        found.append(Violation("ownership is linearizable", text, shown))
    return found, undecided


def _read(final: Final, entity: str, record: RecordView | None) -> Operation:
    return Operation(
        client=final.instance,
        function=READ,
        entity=entity,
        called_ns=final.at_ns,
        answered_ns=final.at_ns,
        known=Known.OK,
        record=None if record is None or record.deleted else record,
    )

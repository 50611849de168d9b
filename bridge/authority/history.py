"""What servers did, as records, and the check that no two of them ever did it at once.

Grants alone could not show a violation: the homeserver may grant correctly while a frozen server still
speaks. So a server records its *acts*: for each entity and epoch, when it sealed state for the first and
the last time; and a receiver records what it *accepted*. Clients record their *operations*: what they asked
for, and what they were answered. Times are ``CLOCK_MONOTONIC`` of one kernel, in nanoseconds, so records of
processes and containers of one machine compare; of several machines they do not.

A record that is written as things happen (``Began``, ``Called`` before the request is sent, ``Alive`` before
each tick) holds also what a killed process did: at most, an act lasted until its server's last tick, and a
request without an answer may have been applied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final as Constant

import msgspec

from bridge.authority.linearizability import check_entity, known_at
from bridge.authority.record_model import Known, Operation, RecordView, shown_open
from bridge.errors import DecodeError


class Act(msgspec.Struct, frozen=True, kw_only=True, tag="act"):
    """A server acted for an entity under one grant.

    Attributes:
        first_ns: when it sealed the first state record.
        last_ns: when it sealed the last one.
    """

    server: str
    session: bytes
    entity: str
    epoch: int
    first_ns: int
    last_ns: int


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began"):
    """A server begins to act; its ``Act`` follows when it stops, unless it is killed."""

    server: str
    session: bytes
    entity: str
    epoch: int
    first_ns: int


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """A server's last tick: what it had begun and not stopped, it did until then."""

    server: str
    session: bytes
    at_ns: int


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """A receiver accepted state of an entity under one epoch.

    Told again with a later ``last_ns`` it takes the place of the earlier record.

    Attributes:
        session: of the receiver; one that was started again knows nothing of what it had accepted.
    """

    receiver: str
    session: bytes = b""
    sender: str
    entity: str
    epoch: int
    first_ns: int
    last_ns: int


class Granted(msgspec.Struct, frozen=True, kw_only=True, tag="granted"):
    """A server got a grant: an acknowledged write of the homeserver."""

    server: str
    session: bytes
    entity: str
    epoch: int
    at_ns: int


class HandOver(msgspec.Struct, frozen=True, kw_only=True, tag="handover"):
    """A server took over the last state that another one released (R0-27).

    Attributes:
        hash: state hash, 32 bytes; the giver's and the taker's records of one epoch must agree.
        side: ``gave`` or ``took``.
    """

    server: str
    side: str
    entity: str
    epoch: int
    hash: bytes


class Called(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="called"):
    """A client is about to ask the homeserver; members as of ``Operation``.

    Attributes:
        client: one run of one client.
        number: of the request, among those of the client.
        entity: empty where the request is about none.
    """

    client: str
    number: int
    function: str
    at_ns: int
    entity: str = ""
    session: bytes | None = None
    epoch: int | None = None
    owner: str | None = None
    to: str | None = None
    by: str | None = None
    player: str | None = None
    value: str | None = None
    authority: bool = False
    master: str | None = None


class Replied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="replied"):
    """How the request of that number ended; members as of ``Operation``.

    Attributes:
        passed: entities of which a player who left was told that they passed on.
    """

    client: str
    number: int
    at_ns: int
    known: Known
    detail: str = ""
    record: RecordView | None = None
    told_epoch: int | None = None
    passed: list[str] = []


class Final(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """All that an instance has in the end, by a linearizable read.

    Attributes:
        entities: records of those that are the instance's own, not another's.
        sessions: those that are open.
    """

    instance: str
    at_ns: int
    entities: dict[str, RecordView]
    sessions: list[bytes]


Entry = Act | Began | Alive | Acceptance | Granted | HandOver | Called | Replied | Final

READ: Constant = "read"
"""``function`` of a linearizable read of one entity's record"""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """One line of a history file, without its line feed."""
    return _encoder.encode(entry)


def decode_entries(lines: Iterable[bytes]) -> list[Entry]:
    """Entries of a history file.

    Raises:
        DecodeError: a line that is no entry; names its number.
    """
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"line {number} is no history entry: {error}") from error
    return entries


def of_instance(entries: Iterable[Entry], instance: str) -> list[Entry]:
    """Records of one instance's servers, to be checked together with those of others.

    Servers get ``@`` and the instance behind their names, as other instances name them; epochs rise for an
    entity wherever it goes, so acts and what was accepted compare. What clients asked of one instance says
    nothing about another's records: that is left out, and checked by itself.
    """
    qualified: list[Entry] = []
    for entry in entries:
        names = {
            name: f"{value}@{instance}"
            for name in ("server", "sender", "receiver")
            if isinstance(value := getattr(entry, name, None), str) and "@" not in value
        }
        if not isinstance(entry, Called | Replied | Final):
            qualified.append(msgspec.structs.replace(entry, **names))
    return qualified


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
    asked = _operations(entries)
    not_linearizable, undecided = _linearizable(asked, _leaves(entries, asked), finals)
    return Verdict(
        acts=sum(isinstance(entry, Act) for entry in entries),
        operations=len(asked),
        unanswered=sum(operation.known is Known.UNKNOWN for _, operation in asked),
        double_holders=_overlaps(entries)
        + _revived(entries)
        + _shared_epochs(entries, asked)
        + _early(entries, asked),
        stale_acceptances=_stale(entries),
        lost_grants=_lost(entries, final_epochs or {}, asked, finals),
        changed_states=_changed(entries),
        not_linearizable=not_linearizable,
        lost_entities=_lost_entities(asked, finals),
        doubled_entities=_doubled_entities(finals),
        undecided=undecided,
        travelled=_travelled(asked),
        deleted=sorted(_vanishing(asked)),
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


_Asked = list[tuple[Called, Operation]]


def _requests(entries: Sequence[Entry]) -> list[tuple[Called, Replied | None]]:
    """Requests, each with its answer.

    A request that was repeated at another process is recorded by both, and is one: done between its first
    call and its first answer.
    """
    ends: dict[tuple[str, int], Replied] = {}
    calls: dict[tuple[str, int], Called] = {}
    for entry in sorted((e for e in entries if isinstance(e, Called | Replied)), key=lambda e: e.at_ns):
        match entry:
            case Replied():
                ends.setdefault((entry.client, entry.number), entry)
            case Called():
                calls.setdefault((entry.client, entry.number), entry)
    return [(entry, ends.get(name)) for name, entry in calls.items()]


def _operations(entries: Sequence[Entry]) -> _Asked:
    """Requests about entities, each with how it ended."""
    asked = []
    for entry, end in _requests(entries):
        if not entry.entity:
            continue
        members = {
            name: getattr(entry, name)
            for name in ("session", "epoch", "owner", "to", "by", "player", "value", "authority", "master")
        }
        operation = Operation(
            client=entry.client,
            function=entry.function,
            entity=entry.entity,
            called_ns=entry.at_ns,
            answered_ns=0 if end is None else end.at_ns,
            known=Known.UNKNOWN if end is None else end.known,
            detail="" if end is None else end.detail,
            record=None if end is None else end.record,
            told_epoch=None if end is None else end.told_epoch,
            **members,
        )
        asked.append((entry, operation))
    return asked


def _leaves(entries: Sequence[Entry], asked: _Asked) -> _Asked:
    """What players who left passed on.

    The answer shows no records: of each it may have been any change until then. Without an answer it may have
    been one of any entity.
    """
    there = {operation.entity for _, operation in asked}
    found = []
    for entry, end in _requests(entries):
        if entry.function != "leave":
            continue
        for entity in sorted(there if end is None else there.intersection(end.passed)):
            operation = Operation(
                client=entry.client,
                function=entry.function,
                entity=entity,
                called_ns=entry.at_ns,
                until_ns=None if end is None else end.at_ns,
                player=entry.player,
            )
            found.append((entry, operation))
    return found


def _alive(asked: _Asked) -> dict[bytes, int]:
    """Until when sessions had not ended: something was granted to them, or shown to be theirs, after that."""
    alive: dict[bytes, int] = {}
    for called, operation in asked:
        for session in shown_open(operation):
            alive[session] = max(alive.get(session, 0), called.at_ns)
    return alive


def _linearizable(
    asked: _Asked, leaves: _Asked, finals: Sequence[Final]
) -> tuple[list[Violation], list[str]]:
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
    travelled = _travelled(asked)
    vanishing = _vanishing(asked)
    alive = _alive(asked)
    for entity, operations in of_entity.items():
        if entity in travelled:
            continue
        if entity in vanishing:
            operations = known_at(operations, vanishing[entity] - 1)
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


def _travelled(asked: _Asked) -> list[str]:
    return sorted(
        {op.entity for _, op in asked if op.function == "push_abroad" and op.known is not Known.REFUSED}
    )


def _vanishing(asked: _Asked) -> dict[str, int]:
    """When somebody first asked to delete an entity and was not answered."""
    first: dict[str, int] = {}
    for called, operation in asked:
        if operation.function == "delete_entity" and operation.known is Known.UNKNOWN:
            first[operation.entity] = min(first.get(operation.entity, called.at_ns), called.at_ns)
    return first


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


def _overlaps(entries: Sequence[Entry]) -> list[Violation]:
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


def _revived(entries: Sequence[Entry]) -> list[Violation]:
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


def _shared_epochs(entries: Sequence[Entry], asked: _Asked) -> list[Violation]:
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


def _early(entries: Sequence[Entry], asked: _Asked) -> list[Violation]:
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


_GRANTING: Constant = frozenset({"create_entity", "push", "pull", "claim"})


def _stale(entries: Sequence[Entry]) -> list[Violation]:
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


def _lost(
    entries: Sequence[Entry], final_epochs: dict[str, int], asked: _Asked, finals: Sequence[Final]
) -> list[Violation]:
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


def _lost_entities(asked: _Asked, finals: Sequence[Final]) -> list[Violation]:
    there = {entity for final in finals for entity in final.entities} | _vanishing(asked).keys()
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


def _doubled_entities(finals: Sequence[Final]) -> list[Violation]:
    found = []
    first: dict[str, Final] = {}
    for final in finals:
        for entity in final.entities:
            other = first.setdefault(entity, final)
            if other is not final:
                text = f"{entity}: {other.instance} and {final.instance} both have it"
                found.append(Violation("no entity is doubled", text, (other, final)))
    return found


def _changed(entries: Sequence[Entry]) -> list[Violation]:
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

"""Whether answers to requests about one entity fit a plain model of its record, one request after another.

A history of operations is linearizable if each answered operation can be given one instant between its call
and its answer so that, in the order of these instants, the model gives every answer that was given. What was
refused changed nothing, but must have been refused rightly. What nobody was answered may have happened at any
instant after its call, or never.

Entities are independent, so each is searched alone. The search is sound and complete, and cheap, because a
granted answer shows the record's version, which rises by one with every change: two answers are hardly ever
candidates for one place. It branches only where versions are missing: there an unanswered operation was
applied, or a session ended (``docs/protocol.md`` §7). A session that ends may pass its entities to another
one, at any time after they were granted.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

OPERATOR: Final = "operator"
"""``by`` of a request that comes in the name of no player"""
MAX_STATES: Final = 200_000
"""states looked at for one entity before the search is given up as undecided"""
_UNSEEN: Final = b""
"""a session that no operation of the history names"""
_SUFFIXES: Final = 24
"""answers, from the newest back, that a counter-example is tried to be begun at"""


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an entity as an answer showed it; members as in ``docs/protocol.md`` §2."""

    owner: str
    master: str
    rule: str
    session: bytes | None
    epoch: int
    version: int
    default_owner: str | None = None


class Known(StrEnum):
    """What the caller knows of an operation's end."""

    OK = "ok"
    """granted: it happened, as the answer shows"""
    REFUSED = "refused"
    """it changed nothing"""
    UNKNOWN = "unknown"
    """it may have happened at any time after the call, may happen yet, or never does"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request about one entity, and how it ended.

    Attributes:
        client: who asked.
        function: of ``kb_api``; ``read`` is a read that is known to have been linearizable.
        called_ns: before it was sent.
        answered_ns: after its answer came; of no meaning where the end is unknown.
        detail: the reason of a refusal, the ``outcome`` of a granted request where it has one.
        record: as a granted answer showed it; ``None`` of a read: there was no entity.
        told_epoch: the entity's epoch by a refusal as ``conflict``.
        session, epoch, owner, to, by, player, authority, master: the request's members of these names;
            ``to`` is a server or a player.
        value: the new rule, master or default owner; the rule of a new entity.
    """

    client: str
    function: str
    entity: str
    called_ns: int
    answered_ns: int = 0
    known: Known = Known.UNKNOWN
    detail: str = ""
    record: RecordView | None = None
    told_epoch: int | None = None
    session: bytes | None = None
    epoch: int | None = None
    owner: str | None = None
    to: str | None = None
    by: str | None = None
    player: str | None = None
    value: str | None = None
    authority: bool = False
    master: str | None = None

    def __str__(self) -> str:
        ended = f"{self.known} {self.detail}".strip()
        if self.record is not None:
            ended += f" version {self.record.version} epoch {self.record.epoch}"
        until = "…" if self.known is Known.UNKNOWN else f"{(self.answered_ns - self.called_ns) / 1e6:.1f} ms"
        return f"{self.client} {self.function} at {self.called_ns / 1e9:.6f} s for {until}: {ended}"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Operations that fit the model in no order.

    Attributes:
        operations: the last ones that are needed for it, by call.
        undecided: the search was given up instead; nothing was shown.
    """

    entity: str
    text: str
    operations: tuple[Operation, ...]
    undecided: bool = False


class UndecidedError(Exception):
    """The search looked at more than ``MAX_STATES`` states."""


class _Record(NamedTuple):
    """The model's state. ``epoch`` is exact, or (``exact`` false) anything above it."""

    owner: str
    master: str
    rule: str
    default_owner: str | None
    session: bytes | None
    epoch: int
    exact: bool

    def has_epoch(self, epoch: int | None) -> bool:
        return epoch is not None and (self.epoch == epoch if self.exact else epoch > self.epoch)

    def may_differ(self, epoch: int | None) -> bool:
        return not self.exact or self.epoch != epoch

    def granted(self, session: bytes | None) -> _Record:
        return self._replace(session=session, exact=False)


def check_entity(
    operations: Sequence[Operation], *, open_sessions: frozenset[bytes] | None = None
) -> Counterexample | None:
    """Search an order of all operations on one entity that the model allows.

    Args:
        operations: of one entity, in any order.
        open_sessions: those known never to have ended; ``None``: any may have.

    Returns:
        ``None`` if there is one, else the shortest beginning of the history that has none.
    """
    if not operations:
        return None
    entity = operations[0].entity
    operations, start = _begun(operations)
    try:
        if _Search(operations, open_sessions, start).succeeds():
            return None
        return _shortest(list(operations), open_sessions, start)
    except UndecidedError:
        return Counterexample(entity, f"{entity}: undecided after {MAX_STATES} states", (), undecided=True)


def permission(player: str | None, record: _Record) -> str:
    """What the rule says to a player who wants the entity: ``allow``, ``deny`` or ``ask`` (R0-8)."""
    return "allow" if player in (record.owner, record.master) else record.rule


_Start = tuple[int, _Record | None]


def _begun(operations: Sequence[Operation]) -> tuple[Sequence[Operation], _Start]:
    """What is to be searched, and from where.

    An entity that nobody of the history made was there before, or came from another instance: the record that
    is shown first is believed, and what may have been refused before it is left out.
    """
    shown = [op for op in operations if op.known is Known.OK and op.record is not None]
    if not shown or any(
        op.function == "create_entity" and op.known is not Known.REFUSED for op in operations
    ):
        return operations, (0, None)
    first = min(shown, key=lambda op: (_version(op), op.answered_ns))
    later = [
        op
        for op in operations
        if op is not first and (op.known is not Known.REFUSED or op.called_ns > first.answered_ns)
    ]
    return later, (_version(first), _record(first))


class _Node(NamedTuple):
    """A place in the search: everything before ``head`` of the answered operations is placed."""

    head: int
    ahead: frozenset[int]
    version: int
    record: _Record | None
    used: frozenset[int]
    ended: frozenset[bytes]
    due: frozenset[bytes]
    """sessions that held it, whose release may be due still"""


class _Search:
    def __init__(
        self,
        operations: Sequence[Operation],
        open_sessions: frozenset[bytes] | None,
        start: _Start,
    ) -> None:
        self._answered = sorted(
            (op for op in operations if op.known is not Known.UNKNOWN), key=lambda op: op.called_ns
        )
        self._unknown = sorted(
            (op for op in operations if op.known is Known.UNKNOWN and op.function != "read"),
            key=lambda op: op.called_ns,
        )
        self._unknown_calls = [op.called_ns for op in self._unknown]
        self._open = open_sessions
        self._shown = sorted(
            (op for op in self._answered if op.known is Known.OK and op.record is not None), key=_version
        )
        self._versions = [_version(op) for op in self._shown]
        seen = {op.session for op in operations} | {
            op.record.session for op in operations if op.record is not None
        }
        self._sessions = sorted(session for session in seen if session)
        self._start = _Node(0, frozenset(), *start, frozenset(), frozenset(), frozenset())
        self._states = 0
        self.deepest = self._start

    def succeeds(self) -> bool:
        stack = [iter((self._start,))]
        seen: set[_Node] = set()
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                continue
            self._states += 1
            if self._states > MAX_STATES + 4 * len(self._answered):
                raise UndecidedError
            if node.head > self.deepest.head or (
                node.head == self.deepest.head and node.version > self.deepest.version
            ):
                self.deepest = node
            if node.head == len(self._answered):
                return True
            if node not in seen:
                seen.add(node)
                stack.append(self._successors(node))
        return False

    def candidates(self, node: _Node) -> tuple[list[int], int]:
        """Answered operations that may come next, and the latest instant of what comes next."""
        found: list[int] = []
        latest = None
        for number in range(node.head, len(self._answered)):
            operation = self._answered[number]
            if latest is not None and operation.called_ns > latest:
                break
            if number not in node.ahead:
                found.append(number)
                if latest is None or operation.answered_ns < latest:
                    latest = operation.answered_ns
        assert latest is not None
        return [number for number in found if self._answered[number].called_ns <= latest], latest

    def _successors(self, node: _Node) -> Iterator[_Node]:
        candidates, latest = self.candidates(node)
        # What changes nothing is placed as soon as it fits: that only takes constraints away.
        for number in candidates:
            if _fits_unchanged(self._answered[number], node.version, node.record):
                record = _refined(self._answered[number], node.record)
                yield self._placed(node, number, node.version, record)
                return
        if any(self._is_past(number, node.version) for number in candidates):
            return
        following = [
            number
            for number in candidates
            if (shown := self._answered[number].record) is not None
            and self._answered[number].known is Known.OK
            and shown.version == node.version + 1
        ]
        for number in following:
            operation = self._answered[number]
            for after in _changes(operation, node.record, node.ended, operation.record, self._sessions):
                yield self._placed(node, number, node.version + 1, after)
        if not any(_always_changes(self._answered[number]) for number in following):
            yield from self._unseen_changes(node, candidates, latest)

    def _unseen_changes(self, node: _Node, candidates: list[int], latest: int) -> Iterator[_Node]:
        """What nobody was answered: operations of unknown end, and sessions that end."""
        unknown = [
            number
            for number in range(bisect.bisect_right(self._unknown_calls, latest))
            if number not in node.used
        ]
        for number in unknown:
            operation = self._unknown[number]
            for after in _changes(operation, node.record, node.ended, None, self._sessions):
                yield self._moved(node, after, used=node.used | {number})
        record = node.record
        if record is None:
            return
        for session in node.due - node.ended:
            # A release that was due to the entity's holder is so no more.
            if self._may_end(session):
                yield node._replace(version=node.version + 1, ended=node.ended | {session})
        holder = record.session
        if holder is None or (holder != _UNSEEN and not self._may_end(holder)):
            return
        ended = node.ended if holder == _UNSEEN else node.ended | {holder}
        yield self._moved(node, record._replace(session=None), ended=ended)
        for heir in self._heirs(node, candidates, unknown) - ended:
            if heir != holder:
                yield self._moved(node, record.granted(heir), ended=ended)

    def _may_end(self, session: bytes) -> bool:
        return self._open is None or session not in self._open

    def _heirs(self, node: _Node, candidates: list[int], unknown: list[int]) -> set[bytes]:
        """Sessions that it makes a difference to name: the next operations are theirs, or show them."""
        near = [self._answered[number] for number in candidates] + [self._unknown[n] for n in unknown]
        following = bisect.bisect_right(self._versions, node.version)
        if following < len(self._versions):
            near.append(self._shown[following])
        named = {op.session for op in near} | {op.record.session for op in near if op.record is not None}
        return {_UNSEEN, *(session for session in named if session is not None)}

    def _moved(
        self,
        node: _Node,
        after: _Record,
        *,
        used: frozenset[int] | None = None,
        ended: frozenset[bytes] | None = None,
    ) -> _Node:
        """The node after a change that nobody was answered."""
        return node._replace(
            version=node.version + 1,
            record=after,
            used=node.used if used is None else used,
            ended=node.ended if ended is None else ended,
            due=_due(node, after),
        )

    def _is_past(self, number: int, version: int) -> bool:
        """Whether an answer that was not placed shows a version that can come no more."""
        operation = self._answered[number]
        return operation.known is Known.OK and operation.record is not None and _version(operation) <= version

    def _placed(self, node: _Node, number: int, version: int, record: _Record | None) -> _Node:
        head, ahead = node.head, node.ahead | {number}
        while head in ahead:
            ahead -= {head}
            head += 1
        due = node.due if record is None else _due(node, record)
        return node._replace(head=head, ahead=ahead, version=version, record=record, due=due)


def _due(node: _Node, after: _Record) -> frozenset[bytes]:
    before = None if node.record is None else node.record.session
    return node.due if before in (None, _UNSEEN, after.session) else node.due | {before}


def _record(operation: Operation) -> _Record:
    view = operation.record
    assert view is not None
    return _Record(view.owner, view.master, view.rule, view.default_owner, view.session, view.epoch, True)


def _version(operation: Operation) -> int:
    return 0 if operation.record is None else operation.record.version


def _fits_unchanged(operation: Operation, version: int, record: _Record | None) -> bool:
    if operation.known is Known.REFUSED:
        return _rightly_refused(operation, record)
    shown = operation.record
    if shown is None or record is None:
        return operation.function == "read" and shown is None and record is None
    if _always_changes(operation):
        return False
    if shown.version != version or not _shows(shown, record):
        return False
    match operation.function:
        case "transfer":
            return record.owner == operation.to and _is_by_owner(operation, record)
        case "revoke":
            return record.owner == _heir(record) and _is_by_owner(operation, record)
        case "set_rule" | "set_master" | "set_default_owner":
            named = {"set_rule": record.rule, "set_master": record.master}
            current = named.get(operation.function, record.default_owner)
            return current == operation.value and operation.by in (record.master, OPERATOR)
        case _:
            # Reads, and what asks without being granted.
            return True


def _refined(operation: Operation, record: _Record | None) -> _Record | None:
    """The record with the epoch that an answer of its version showed."""
    if record is None or operation.known is not Known.OK or operation.record is None:
        return record
    return record._replace(epoch=operation.record.epoch, exact=True)


def _shows(shown: RecordView, record: _Record) -> bool:
    return (
        (shown.owner, shown.master, shown.rule, shown.default_owner, shown.session)
        == (record.owner, record.master, record.rule, record.default_owner, record.session)
    ) and record.has_epoch(shown.epoch)


_CHANGES_ALWAYS: Final = frozenset({"create_entity", "give", "push", "pull", "claim", "release"})
_BY_HOLDER: Final = frozenset({"give", "push", "release"})


def _always_changes(operation: Operation) -> bool:
    """Whether it makes a version when it is granted; the others do so where they change something."""
    return operation.function in _CHANGES_ALWAYS or operation.detail == "granted"


def _rightly_refused(operation: Operation, record: _Record | None) -> bool:
    if record is None:
        return operation.detail != "entity_exists" and (
            operation.detail == "no_entity" or operation.function == "create_entity"
        )
    match operation.detail:
        case "no_entity":
            return False
        case "conflict":
            if operation.told_epoch is not None and not record.has_epoch(operation.told_epoch):
                return False
            other_owner = operation.function == "request" and record.owner != operation.owner
            by_epoch = operation.function != "request" or operation.authority
            return other_owner or (by_epoch and record.may_differ(operation.epoch))
        case "denied":
            asking = operation.player if operation.function == "request" else operation.owner
            return permission(asking, record) != "allow"
        case "already_held":
            return record.session == operation.session
        case "already_owner":
            return record.owner == operation.player
        case "not_owner":
            return not _is_by_owner(operation, record)
        case "not_master":
            return operation.by not in (record.master, OPERATOR)
        case "not_holder" if operation.function in _BY_HOLDER:
            return record.session != operation.session or record.may_differ(operation.epoch)
        case _:
            # Of what the model has nothing of: sessions, players, asks, keys.
            return True


def _changes(
    operation: Operation,
    record: _Record | None,
    ended: frozenset[bytes],
    view: RecordView | None,
    sessions: Sequence[bytes],
) -> Iterator[_Record]:
    """The records that an operation makes of one, as far as they are what its answer showed."""
    for after in _effects(operation, record, ended, sessions if view is None else (view.session,)):
        if view is None:
            yield after
        elif _shows(view, after):
            yield after._replace(epoch=view.epoch, exact=True)


def _effects(
    operation: Operation,
    record: _Record | None,
    ended: frozenset[bytes],
    targets: Sequence[bytes | None],
) -> Iterator[_Record]:
    session, function = operation.session, operation.function
    if function == "create_entity":
        if record is None and session not in ended:
            owner, master = operation.owner or "", operation.master or ""
            yield _Record(owner, master, operation.value or "", None, session, 0, False)
        return
    if record is None:
        return
    owner = operation.owner or ""
    held = record.session == session and record.has_epoch(operation.epoch)
    live = [target for target in targets if target is not None and target not in ended]
    match function:
        case "give" if held:
            yield record._replace(owner=owner)
        case "release" if held:
            yield record._replace(session=None)
        case "push" if held:
            for target in (*live, _UNSEEN):
                if target != session:
                    yield record.granted(target)._replace(owner=owner)
        case "pull":
            wanted = record.session != session and session not in ended
            if wanted and record.has_epoch(operation.epoch) and permission(owner, record) == "allow":
                yield _exactly(record, operation.epoch).granted(session)._replace(owner=owner)
        case "claim":
            if record.session not in (None, session) and session not in ended:
                yield record.granted(session)._replace(owner=owner)
        case "request":
            yield from _requested(operation, record, ended)
        case "answer" if operation.by in (record.master, OPERATOR):
            given = record._replace(owner=operation.player or "")
            yield given
            for target in (*live, _UNSEEN):
                if target != record.session:
                    yield given.granted(target)
        case "transfer" if _is_by_owner(operation, record) and record.owner != operation.to:
            yield record._replace(owner=operation.to or "")
        case "revoke" if _is_by_owner(operation, record) and record.owner != _heir(record):
            yield record._replace(owner=_heir(record))
        case "leave" if record.owner == operation.player:
            yield record._replace(owner=_heir(record) if _heir(record) != record.owner else record.master)
        case "set_rule" | "set_master" | "set_default_owner":
            if operation.by in (record.master, OPERATOR):
                after = _set(function, operation.value, record)
                if after != record:
                    yield after


def _set(function: str, value: str | None, record: _Record) -> _Record:
    match function:
        case "set_rule":
            return record._replace(rule=value or "")
        case "set_master":
            return record._replace(master=value or "")
        case _:
            return record._replace(default_owner=value)


def _requested(operation: Operation, record: _Record, ended: frozenset[bytes]) -> Iterator[_Record]:
    player, session = operation.player or "", operation.session
    has_it = record.owner == player and (not operation.authority or record.session == session)
    if has_it or record.owner != operation.owner or permission(player, record) != "allow":
        return
    given = record._replace(owner=player)
    if not operation.authority:
        yield given
    elif record.has_epoch(operation.epoch) and session not in ended:
        given = _exactly(given, operation.epoch)
        yield given if record.session == session else given.granted(session)


def _exactly(record: _Record, epoch: int | None) -> _Record:
    return record if epoch is None else record._replace(epoch=epoch, exact=True)


def _is_by_owner(operation: Operation, record: _Record) -> bool:
    return operation.by in (record.owner, record.master, OPERATOR)


def _heir(record: _Record) -> str:
    return record.master if record.default_owner is None else record.default_owner


def _shortest(
    operations: list[Operation], open_sessions: frozenset[bytes] | None, start: _Start
) -> Counterexample:
    """What had been answered when it first went wrong, and of that only the end that is needed."""
    answers = sorted(op.answered_ns for op in operations if op.known is not Known.UNKNOWN)
    low, high = 0, len(answers) - 1
    while low < high:
        middle = (low + high) // 2
        if _Search(_until(operations, answers[middle]), open_sessions, start).succeeds():
            low = middle + 1
        else:
            high = middle
    prefix = _until(operations, answers[low])
    last = next(op for op in prefix if op.answered_ns == answers[low] and op.known is not Known.UNKNOWN)
    shown, needed = _suffix(prefix, open_sessions)
    search = _Search(prefix, open_sessions, start)
    search.succeeds()
    reached = search.deepest
    state = "no entity" if reached.record is None else f"version {reached.version}, {_words(reached.record)}"
    text = f"{last.entity}: no order of the operations explains [{last}]; the furthest one gets to {state}"
    doubled = _same_version(prefix)
    if doubled:
        text = f"{last.entity}: two operations made version {doubled[0].record.version}"  # type: ignore[union-attr]
        return Counterexample(last.entity, text, doubled)
    return Counterexample(last.entity, text, tuple(sorted((*shown, *needed), key=lambda op: op.called_ns)))


def _until(operations: Sequence[Operation], at_ns: int) -> list[Operation]:
    """The history as it was known at an instant."""
    return [
        op if op.answered_ns <= at_ns and op.known is not Known.UNKNOWN else _forgotten(op)
        for op in operations
        if op.called_ns <= at_ns
    ]


def _forgotten(operation: Operation) -> Operation:
    return replace(operation, known=Known.UNKNOWN, detail="", record=None, told_epoch=None)


def _suffix(
    prefix: Sequence[Operation], open_sessions: frozenset[bytes] | None
) -> tuple[list[Operation], list[Operation]]:
    """The newest answer whose record, with what came after it, is enough; and what came after it."""
    granted = [op for op in prefix if op.known is Known.OK and op.record is not None]
    granted.sort(key=lambda op: op.answered_ns, reverse=True)
    for first in granted[:_SUFFIXES]:
        later = [
            op if op.called_ns > first.answered_ns else _forgotten(op)
            for op in prefix
            if op is not first and (op.known is Known.UNKNOWN or op.answered_ns >= first.called_ns)
        ]
        try:
            fails = not _Search(later, open_sessions, (_version(first), _record(first))).succeeds()
        except UndecidedError:
            continue
        if fails:
            return [first], [op for op in later if op.known is not Known.UNKNOWN]
    return [], [op for op in prefix if op.known is not Known.UNKNOWN]


def _same_version(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Two operations that each made the same version of the record."""
    made: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.known is Known.OK and operation.record is not None and _always_changes(operation):
            made[operation.record.version].append(operation)
    return next((tuple(same[:2]) for same in made.values() if len(same) > 1), ())


def _words(record: _Record) -> str:
    holder = "dormant" if record.session is None else f"held by {record.session.hex()[:8] or 'another'}"
    return f"owner {record.owner}, {holder}, epoch {'' if record.exact else 'above '}{record.epoch}"

"""Whether answers to requests about one entity fit a plain model of its record, one request after another.

A history of operations is linearizable if each answered operation can be given one instant between its call
and its answer so that, in the order of these instants, the model gives every answer that was given. What was
refused changed nothing, but must have been refused rightly. What nobody was answered may have happened at any
instant after its call, or never.

Entities are independent, so each is searched alone. The search is sound and complete. A granted answer shows
the record's version, which rises by one with every change, so two answers are hardly ever candidates for one
place; it branches only where versions are missing: there an unanswered operation was applied, or a session
ended (``docs/protocol.md`` §7). A session that ends may pass its entities to another one, at any time after
they were granted. What makes that cheap is ``bridge.authority.gaps``, which tells for each missing version
what can have made it, and ``_Tried``: of two ways to one place that fails, the one that had used up less
answers for both. What is wrong is mostly found before, by a search that uses nothing up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from bridge.authority.gaps import Gaps
from bridge.authority.record_model import (
    UNSEEN,
    Known,
    Operation,
    Record,
    always_changes,
    clears_due,
    effects,
    record_of,
    shows,
    unchanged,
    version_of,
)

MAX_STATES: Final = 200_000
"""states looked at for one entity before the search is given up as undecided"""
_DUE_BEFORE: Final = 16
"""sessions that no operation names whose release may be due to an entity that is met with a past"""
_SUFFIXES: Final = 24
"""answers, from the newest back, that a counter-example is tried to be begun at"""


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


def check_entity(
    operations: Sequence[Operation],
    *,
    open_sessions: frozenset[bytes] | None = None,
    alive_ns: Mapping[bytes, int] | None = None,
) -> Counterexample | None:
    """Search an order of all operations on one entity that the model allows.

    Args:
        operations: on one name, in any order; each that deleted an entity was answered.
        open_sessions: those known never to have ended; ``None``: any may have.
        alive_ns: until when sessions are known not to have ended, by what was answered about other entities.

    Returns:
        ``None`` if there is one, else the shortest beginning of the history that has none.
    """
    if not operations:
        return None
    entity = operations[0].entity
    operations, start = begun(in_one_life(operations))
    # What fits in no order even if requests could be done twice is found at once: most of what is wrong.
    for forgetful in (True, False):
        sessions = _Sessions(open_sessions, alive_ns or {}, forgetful)
        try:
            if not _Search(operations, sessions, start).succeeds():
                return _shortest(list(operations), sessions, start)
        except UndecidedError:
            text = f"{entity}: undecided after {MAX_STATES} states"
            return Counterexample(entity, text, (), undecided=True)
    return None


class _Sessions(NamedTuple):
    """What is known of sessions from elsewhere, and what is made of it.

    ``forgetful``: any request without an answer is there again after it was used, and so is any session that
    ended. There are more orders then, and far fewer places to look at: where there is none, there is none.
    """

    never_ended: frozenset[bytes] | None
    alive_ns: Mapping[bytes, int]
    forgetful: bool


def in_one_life(operations: Sequence[Operation]) -> list[Operation]:
    """The operations on one name, with versions that go on rising where an entity was deleted and made again.

    Each deletion has the highest version of its entity, at an epoch above all of it; the next one of the name
    begins at version 1 above that epoch. That a holder of a deleted entity says that it has stopped changes
    nothing of what anybody can ask.
    """
    ends = sorted(
        (op.record.epoch, op.record.version)
        for op in operations
        if op.function == "delete_entity" and op.known is Known.OK and op.record is not None
    )
    found = []
    for operation in operations:
        view = operation.record
        if view is not None and view.deleted and operation.function != "delete_entity":
            continue
        if view is not None and (before := sum(version for epoch, version in ends if epoch < view.epoch)):
            operation = replace(
                operation, record=msgspec.structs.replace(view, version=view.version + before)
            )
        found.append(operation)
    return found


class Start(NamedTuple):
    """From where to search: the record, and whether releases may be due already."""

    version: int
    record: Record | None
    due: bool


def begun(operations: Sequence[Operation]) -> tuple[Sequence[Operation], Start]:
    """What is to be searched, and from where.

    An entity that nobody of the history made was there before, or came from another instance: the record that
    is shown first is believed, and what may have been refused before it is left out.
    """
    shown = [op for op in operations if op.known is Known.OK and op.record is not None]
    if not shown:
        return operations, Start(0, None, due=False)
    first = min(shown, key=lambda op: (version_of(op), op.answered_ns))
    if any(
        op.function == "create_entity" and op.known is not Known.REFUSED and op.called_ns <= first.answered_ns
        for op in operations
    ):
        return operations, Start(0, None, due=False)
    later = [
        op
        for op in operations
        if op is not first and (op.known is not Known.REFUSED or op.called_ns > first.answered_ns)
    ]
    return later, _after(first)


def _after(first: Operation) -> Start:
    assert first.record is not None
    return Start(first.record.version, record_of(first.record), due=not clears_due(first))


class _Node(NamedTuple):
    """A place in the search: everything before ``head`` of the answered operations is placed.

    ``used`` and ``ended`` hold only what can still make a difference.
    """

    head: int
    ahead: frozenset[int]
    version: int
    record: Record | None
    used: frozenset[int]
    ended: frozenset[bytes]
    due: frozenset[bytes]
    """sessions that held it, whose release may be due still"""


class _Tried:
    """Places that lead nowhere."""

    def __init__(self) -> None:
        self._of: defaultdict[tuple[int, frozenset[int], int, Record | None], list[_Node]] = defaultdict(list)

    def covers(self, node: _Node) -> bool:
        """Whether it is no better than one that was tried; from now on it counts as tried."""
        tried = self._of[node[:4]]
        for other in tried:
            if other.used <= node.used and other.ended <= node.ended and other.due >= node.due:
                return True
        tried.append(node)
        return False


class _Search:
    def __init__(self, operations: Sequence[Operation], sessions: _Sessions, start: Start) -> None:
        self._answered = sorted(
            (op for op in operations if op.known is not Known.UNKNOWN), key=lambda op: op.called_ns
        )
        self._unknown = sorted(
            (op for op in operations if op.known is Known.UNKNOWN and op.function != "read"),
            key=lambda op: op.called_ns,
        )
        self._gaps = Gaps(self._answered, self._unknown, start.version, start.record)
        self._sessions = sessions
        holder = None if start.record is None else start.record.session
        due = frozenset[bytes]()
        if start.due:
            due = self._gaps.sessions.union(map(bytes, range(_DUE_BEFORE))) - {holder}
        if sessions.forgetful:
            due = frozenset((UNSEEN,))
        self._start = _Node(0, frozenset(), start.version, start.record, frozenset(), frozenset(), due)
        self._states = 0
        self.deepest = self._start

    def succeeds(self) -> bool:
        stack = [iter((self._start,))]
        tried = _Tried()
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
            if not tried.covers(node):
                stack.append(self._successors(node))
        return False

    def _candidates(self, node: _Node) -> tuple[list[int], int]:
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
        candidates, latest = self._candidates(node)
        for number in candidates:
            record = unchanged(self._answered[number], node.version, node.record)
            if record is False:
                continue
            yield self._placed(node, number, record)
            if record == node.record:
                # What changes nothing is placed as soon as it fits: that only takes constraints away. It does
                # not where it told an epoch that was not known: that may have been a later one.
                return
        if any(self._is_past(number, node.version) for number in candidates):
            return
        following = [
            number
            for number in candidates
            if self._answered[number].known is Known.OK
            and self._answered[number].record is not None
            and version_of(self._answered[number]) == node.version + 1
        ]
        for number in following:
            yield from self._answered_changes(node, number)
        if not any(always_changes(self._answered[number]) for number in following):
            # What takes the fewest possibilities away from later ones first.
            priced = sorted(self._unseen_changes(node, latest), key=lambda change: change[0])
            yield from (after for _, after in priced)

    def _answered_changes(self, node: _Node, number: int) -> Iterator[_Node]:
        operation = self._answered[number]
        view = operation.record
        assert view is not None
        targets = () if view.session is None else (view.session,)
        for after in effects(operation, node.record, node.ended, targets):
            if shows(view, after):
                due = _due(node, operation, after)
                exact = None if after is None else after.at(view.epoch)
                if (moved := self._moved(node, exact, due)) is not None:
                    yield self._placed(moved, number, moved.record)

    def _unseen_changes(self, node: _Node, latest: int) -> Iterator[tuple[int, _Node]]:
        """What nobody was answered: operations of unknown end, and sessions that end; with their price."""
        version = node.version + 1
        gap = self._gaps.gap(version)
        if gap is None:
            return
        latest = min(latest, gap.latest_ns)
        tried = set()
        for number in gap.unknown:
            operation = self._unknown[number]
            if number in node.used or operation.called_ns > latest:
                continue
            # Of operations that ask the same the one that was asked first serves as well as any.
            if (alike := self._gaps.alike[number]) in tried:
                continue
            tried.add(alike)
            for after in effects(operation, node.record, node.ended, gap.targets):
                due = _due(node, operation, after)
                if (moved := self._moved(node, after, due, used=number)) is not None:
                    yield 2 + 2 * (number in moved.used), moved
        yield from self._endings(node, gap.targets, latest)

    def _endings(self, node: _Node, targets: Sequence[bytes], latest: int) -> Iterator[tuple[int, _Node]]:
        record = node.record
        if record is None:
            return
        holder = record.session
        matter = self._gaps.later(min(node.version + 1, self._gaps.beyond)).sessions
        alike = False
        for session in sorted(node.due):
            # Of those who make no difference later one stands for all.
            if not self._may_end(session, latest):
                continue
            if session not in matter:
                if alike:
                    continue
                alike = True
            left = node.due - {bytes(_unseen(node.due) - 1) if _is_unseen(session) else session}
            if (moved := self._moved(node, record, left, ended=session)) is not None:
                yield 1 + 2 * (session in matter), moved
        if holder is None or not self._may_end(holder, latest):
            return
        price = 2 * (holder in matter)
        for after in (record._replace(session=None), *(record.granted(heir) for heir in targets)):
            if after.session in node.ended or (after.session == holder != UNSEEN):
                continue
            left = node.due if after.session in (None, UNSEEN) else node.due - {after.session}
            if (moved := self._moved(node, after, left, ended=holder)) is not None:
                yield price + (after.session is not None), moved

    def _may_end(self, session: bytes, latest: int) -> bool:
        if _is_unseen(session):
            return True
        if self._sessions.never_ended is not None and session in self._sessions.never_ended:
            return False
        until = max(self._sessions.alive_ns.get(session, 0), self._gaps.alive_ns.get(session, 0))
        return until <= latest

    def _moved(
        self,
        node: _Node,
        after: Record | None,
        due: frozenset[bytes],
        *,
        used: int | None = None,
        ended: bytes | None = None,
    ) -> _Node | None:
        """The node after a change; ``None`` where the version that it makes is shown otherwise."""
        version = node.version + 1
        view = self._gaps.views.get(version)
        if view is not None:
            if not shows(view, after):
                return None
            after = None if after is None else after.at(view.epoch)
        version = min(version, self._gaps.beyond)
        if self._sessions.forgetful:
            return node._replace(version=version, record=after)
        matter = self._gaps.later(version)
        return node._replace(
            version=version,
            record=after,
            used=(node.used if used is None else node.used | {used}) & matter.unknown,
            ended=(node.ended if ended is None else node.ended | {ended}) & matter.sessions,
            due=due,
        )

    def _is_past(self, number: int, version: int) -> bool:
        """Whether an answer that was not placed shows a version that can come no more."""
        operation = self._answered[number]
        return operation.record is not None and version_of(operation) <= version

    def _placed(self, node: _Node, number: int, record: Record | None) -> _Node:
        head, ahead = node.head, node.ahead | {number}
        while head in ahead:
            ahead -= {head}
            head += 1
        return node._replace(head=head, ahead=ahead, record=record)


def _due(node: _Node, operation: Operation, after: Record | None) -> frozenset[bytes]:
    """Sessions whose release may be due when a request has made this of the record.

    Those that are not named are told apart by their length alone, so that each ends once.
    """
    if clears_due(operation) or after is None:
        return frozenset()
    before = None if node.record is None else node.record.session
    due = node.due
    if before is not None and before != after.session:
        due |= {bytes(_unseen(due)) if _is_unseen(before) else before}
    return due if after.session is None or _is_unseen(after.session) else due - {after.session}


def _is_unseen(session: bytes) -> bool:
    return not session.strip(b"\0")


def _unseen(due: frozenset[bytes]) -> int:
    return sum(map(_is_unseen, due))


def _shortest(operations: list[Operation], sessions: _Sessions, start: Start) -> Counterexample:
    """What had been answered when it first went wrong, and of that only the end that is needed."""
    answers = sorted(op.answered_ns for op in operations if op.known is not Known.UNKNOWN)
    low, high = 0, len(answers) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(known_at(operations, answers[middle]), sessions, start):
            high = middle
        else:
            low = middle + 1
    prefix = known_at(operations, answers[low])
    last = next(op for op in prefix if op.answered_ns == answers[low] and op.known is not Known.UNKNOWN)
    shown, needed = _suffix(prefix, sessions)
    search = _Search(prefix, sessions, start)
    search.succeeds()
    reached = search.deepest
    state = "no entity" if reached.record is None else f"version {reached.version}, {reached.record}"
    text = f"{last.entity}: no order of the operations explains [{last}]; the furthest one gets to {state}"
    doubled = _same_version(prefix)
    if doubled:
        text = f"{last.entity}: two operations made version {doubled[0].record.version}"  # type: ignore[union-attr]
        return Counterexample(last.entity, text, doubled)
    return Counterexample(last.entity, text, tuple(sorted((*shown, *needed), key=lambda op: op.called_ns)))


def _fails(operations: Sequence[Operation], sessions: _Sessions, start: Start) -> bool:
    try:
        return not _Search(operations, sessions, start).succeeds()
    except UndecidedError:
        return False


def known_at(operations: Sequence[Operation], at_ns: int) -> list[Operation]:
    """The history as it was known at an instant."""
    return [
        op if op.answered_ns <= at_ns and op.known is not Known.UNKNOWN else _forgotten(op)
        for op in operations
        if op.called_ns <= at_ns
    ]


def _forgotten(operation: Operation) -> Operation:
    return replace(operation, known=Known.UNKNOWN, detail="", record=None, told_epoch=None)


def _suffix(prefix: Sequence[Operation], sessions: _Sessions) -> tuple[list[Operation], list[Operation]]:
    """The newest answer whose record, with what came after it, is enough; and what came after it."""
    granted = [op for op in prefix if op.known is Known.OK and op.record is not None]
    granted.sort(key=lambda op: op.answered_ns, reverse=True)
    for first in granted[:_SUFFIXES]:
        later = [
            op if op.called_ns > first.answered_ns else _forgotten(op)
            for op in prefix
            if op is not first and (op.known is Known.UNKNOWN or op.answered_ns >= first.called_ns)
        ]
        if _fails(later, sessions, _after(first)):
            return [first], [op for op in later if op.known is not Known.UNKNOWN]
    return [], [op for op in prefix if op.known is not Known.UNKNOWN]


def _same_version(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Two operations that each made the same version of the record."""
    made: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.known is Known.OK and operation.record is not None and always_changes(operation):
            made[operation.record.version].append(operation)
    return next((tuple(same[:2]) for same in made.values() if len(same) > 1), ())

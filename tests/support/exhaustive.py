"""The search of ``bridge.authority.linearizability`` once more, without any thought: all orders, one by one.

It takes nothing from what answers show but whether they fit, and names every session and epoch there may
be. So it is slow, and for histories of a few operations; the model of a record is the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

from bridge.authority.record_model import (
    Known,
    Operation,
    Record,
    clears_due,
    effects,
    shows,
    unchanged,
    version_of,
)

UNNAMED: Final = (b"u" * 16, b"v" * 16)
"""sessions that no operation names"""
_AFTER: Final = 3
"""changes after the last version that was shown"""


class _State(NamedTuple):
    answered: frozenset[int]
    unknown: frozenset[int]
    version: int
    record: Record | None
    ended: frozenset[bytes]
    due: frozenset[bytes]


class Exhaustive:
    """All orders of some operations on one entity.

    Args:
        operations: all of them.
        open_sessions: those known never to have ended; ``None``: any may have.
        version, record: from where it goes on.
        due: whether releases of any session may be due there.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        open_sessions: frozenset[bytes] | None,
        version: int = 0,
        record: Record | None = None,
        *,
        due: bool = False,
    ) -> None:
        self._operations = list(operations)
        self._open = open_sessions or frozenset()
        named = {op.session for op in operations} | {op.record.session for op in operations if op.record}
        self._sessions = sorted(session for session in named if session) + list(UNNAMED)
        told = {op.epoch for op in operations} | {op.told_epoch for op in operations}
        told |= {op.record.epoch for op in operations if op.record}
        self._epochs = sorted(epoch for epoch in told if epoch is not None)
        self._last = max([version, *(version_of(op) for op in operations)]) + _AFTER
        numbers = range(len(operations))
        self._start = _State(
            frozenset(n for n in numbers if operations[n].known is not Known.UNKNOWN),
            frozenset(n for n in numbers if operations[n].known is Known.UNKNOWN),
            version,
            record,
            frozenset(),
            frozenset(self._sessions) - {record.session if record else None} if due else frozenset(),
        )

    def succeeds(self) -> bool:
        """Whether the model allows one of them."""
        stack, seen = [self._start], {self._start}
        while stack:
            state = stack.pop()
            if not state.answered:
                return True
            for after in self._after(state):
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return False

    def _after(self, state: _State) -> Iterator[_State]:
        latest = min(self._operations[number].answered_ns for number in state.answered)
        for number in state.answered:
            operation = self._operations[number]
            if operation.called_ns <= latest:
                for placed in self._placed(state, operation):
                    yield placed._replace(answered=state.answered - {number})
        if state.version == self._last:
            return
        for number in state.unknown:
            operation = self._operations[number]
            if operation.called_ns <= latest:
                for after in effects(operation, state.record, state.ended, self._sessions):
                    for exact in self._exact(after):
                        moved = self._changed(state, operation, exact)
                        yield moved._replace(unknown=state.unknown - {number})
        yield from self._endings(state)

    def _placed(self, state: _State, operation: Operation) -> Iterator[_State]:
        if unchanged(operation, state.version, state.record) is not False:
            yield state
        view = operation.record
        if operation.known is not Known.OK or view is None or view.version != state.version + 1:
            return
        for after in effects(operation, state.record, state.ended, self._sessions):
            if shows(view, after):
                yield self._changed(state, operation, None if after is None else after.at(view.epoch))

    def _changed(self, state: _State, operation: Operation, after: Record | None) -> _State:
        before = None if state.record is None else state.record.session
        due = state.due if before is None else state.due | {before}
        due = frozenset() if clears_due(operation) or after is None else due - {after.session}
        return state._replace(version=state.version + 1, record=after, due=due)

    def _endings(self, state: _State) -> Iterator[_State]:
        if state.record is None:
            return
        for session in self._sessions:
            if session in self._open or session in state.ended:
                continue
            ended = state.ended | {session}
            following = state._replace(version=state.version + 1, ended=ended, due=state.due - {session})
            if session == state.record.session:
                yield following._replace(record=state.record._replace(session=None))
                for heir in self._sessions:
                    if heir not in ended:
                        for exact in self._exact(state.record.granted(heir)):
                            yield following._replace(record=exact, due=following.due - {heir})
            elif session in state.due:
                yield following

    def _exact(self, record: Record | None) -> Iterator[Record | None]:
        """With each epoch that it may have: those that are told, and one between any two."""
        if record is None or record.exact:
            yield record
            return
        bounds: list[Any] = [record.epoch, *(epoch for epoch in self._epochs if epoch > record.epoch)]
        yield from (record.at(epoch) for epoch in bounds[1:])
        for low, high in zip(bounds, [*bounds[1:], bounds[-1] + 2], strict=True):
            yield record.at(Fraction(low + high) / 2)  # type: ignore[arg-type]

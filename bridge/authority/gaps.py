"""What answers show of each version of a record, and what can have made the versions that none of them made.

Versions rise by one with every change, so an answer that shows one stands at a fixed place among all changes.
That bounds when each version was made: after all calls of answers that show an earlier one, before any answer
that shows it or a later one. A request that nobody was answered can have made a version only within these
bounds, if the epoch that it names can have been current there, and if it leads from what was shown before to
what was shown after. Nothing is excluded here that the model allows: a search that asks here stays complete.
"""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bridge.authority.record_model import (
    UNSEEN,
    Known,
    Operation,
    Record,
    RecordView,
    always_changes,
    effects,
    may_have_made,
    needs_epoch,
    needs_holder,
    record_of,
    shown_there,
    shows,
    version_of,
)

_NEVER: Final = sys.maxsize
_EACH: Final = 64
"""missing versions in a row that are looked at one by one; of more the inner ones count as alike"""


class Gap(NamedTuple):
    """How a version that no answered operation is sure to have made can have been made.

    Attributes:
        latest_ns: by when.
        unknown: operations of unknown end that can have made it, by call.
        targets: sessions that it makes a difference to name as the new holder.
    """

    latest_ns: int
    unknown: tuple[int, ...]
    targets: tuple[bytes, ...]


class Later(NamedTuple):
    """What makes a difference after a version: operations of unknown end, and sessions that ended."""

    unknown: frozenset[int]
    sessions: frozenset[bytes]


class Gaps:
    """The gaps in the history of one entity.

    Args:
        answered: operations that were granted or refused.
        unknown: those of unknown end, by call; results name them by their places.
        version, record: from where it goes on.

    Attributes:
        views: the record by version, as an answer showed it.
        beyond: the version after the last one that was shown; stands for all that follow.
        sessions: all that are named.
        alive_ns: the last call that was granted to each of them, or showed it as the holder.
        alike: for each operation of unknown end, the first that asks the same.
    """

    def __init__(
        self,
        answered: Sequence[Operation],
        unknown: Sequence[Operation],
        version: int,
        record: Record | None,
    ) -> None:
        self._unknown = unknown
        self._start = (version, record)
        self._shown = sorted(
            (op for op in answered if op.known is Known.OK and op.record is not None), key=version_of
        )
        self._versions = [version_of(op) for op in self._shown]
        self._called = list(itertools.accumulate((op.called_ns for op in self._shown), max))
        answers = (op.answered_ns for op in reversed(self._shown))
        self._answered = list(itertools.accumulate(answers, min))[::-1]
        self._others = [op for op in answered if op.known is not Known.OK or op.record is None]
        self._made = {version_of(op) for op in self._shown if always_changes(op)}
        self.views: dict[int, RecordView] = {}
        self.alive_ns: dict[bytes, int] = {}
        for operation in self._shown:
            assert operation.record is not None
            self.views.setdefault(operation.record.version, operation.record)
            for session in shown_there(operation):
                self.alive_ns[session] = max(self.alive_ns.get(session, 0), operation.called_ns)
        self.beyond = max(self._versions[-1] if self._versions else 0, version) + 1
        self._open_end = any(op.answered_ns >= self._earliest(self.beyond) for op in self._others)
        self.sessions = frozenset(self.alive_ns) | {op.session for op in unknown if op.session is not None}
        first: dict[object, int] = {}
        self.alike = [first.setdefault(_asked(op, place), place) for place, op in enumerate(unknown)]
        self._gaps: dict[int, Gap | None] = {}
        self._later: dict[int, Later] = {}
        self._last_unknown = [self._last_place(place) for place in range(len(unknown))]
        self._last_session = self._last_places_of_sessions()
        self._lasts = sorted({*self._last_unknown, *self._last_session.values()})

    def gap(self, version: int) -> Gap | None:
        """How a version can have been made unseen; ``None``: it was not."""
        version = min(version, self.beyond)
        if version not in self._gaps:
            self._gaps[version] = self._make_gap(version)
        return self._gaps[version]

    def later(self, version: int) -> Later:
        """What makes a difference for changes above a version."""
        above = bisect.bisect_right(self._lasts, version)
        if above not in self._later:
            unknown = frozenset(n for n, last in enumerate(self._last_unknown) if last > version)
            sessions = frozenset(s for s, last in self._last_session.items() if last > version)
            self._later[above] = Later(unknown, sessions)
        return self._later[above]

    def _make_gap(self, version: int) -> Gap | None:
        if not self._is_missing(version):
            return None
        unknown = tuple(place for place in range(len(self._unknown)) if self._can_make(place, version))
        return Gap(self._latest(version), unknown, tuple(self._targets(version)))

    def _is_missing(self, version: int) -> bool:
        if version == self.beyond:
            return self._open_end
        return version not in self._made and self._earliest(version) <= self._latest(version)

    def _earliest(self, version: int) -> int:
        """All that shows an earlier version was called by then, so it was made no sooner."""
        below = bisect.bisect_left(self._versions, version)
        return self._called[below - 1] if below else 0

    def _latest(self, version: int) -> int:
        """Something that shows it, or a later one, was answered then, so it was made by then."""
        place = bisect.bisect_left(self._versions, version)
        return self._answered[place] if place < len(self._answered) else _NEVER

    def _can_make(self, place: int, version: int) -> bool:
        operation = self._unknown[place]
        if operation.called_ns > self._latest(version):
            return False
        if operation.until_ns is not None and operation.until_ns < self._earliest(version):
            return False
        if needs_epoch(operation) and operation.epoch is not None:
            lowest, highest = self._epochs(version - 1)
            if not lowest <= operation.epoch <= highest:
                return False
        start, record = self._start
        view = self.views.get(version)
        if version - 1 == start or version - 1 in self.views:
            before = record if version - 1 == start else record_of(self.views[version - 1])
            target = UNSEEN if view is None else view.session
            afters = effects(operation, before, (), () if target is None else (target,))
            return any(view is None or shows(view, after) for after in afters)
        return operation.function != "create_entity" and (view is None or may_have_made(operation, view))

    def _epochs(self, version: int) -> tuple[int, int]:
        """Bounds of the epoch that a version had: epochs never fall."""
        below = bisect.bisect_right(self._versions, version)
        above = bisect.bisect_left(self._versions, version)
        _, record = self._start
        lowest = 0 if record is None else record.epoch
        if below:
            lowest = self._epoch(below - 1)
        return lowest, self._epoch(above) if above < len(self._shown) else _NEVER

    def _epoch(self, place: int) -> int:
        view = self._shown[place].record
        assert view is not None
        return view.epoch

    def _targets(self, version: int) -> list[bytes]:
        if (view := self.views.get(version)) is not None:
            return [] if view.session is None else [view.session]
        named: set[bytes | None] = {UNSEEN}
        following = bisect.bisect_right(self._versions, version)
        until = self._versions[following] if following < len(self._versions) else self.beyond
        for operation in itertools.islice(self._shown, following, None):
            if version_of(operation) != until:
                break
            named |= shown_there(operation)
        earliest, latest = self._earliest(version), self._latest(until) if until != self.beyond else _NEVER
        named |= {
            op.session
            for op in self._others
            if op.detail == "already_held" and op.answered_ns >= earliest and op.called_ns <= latest
        }
        # Who holds it may go on to do what nobody was answered.
        for later in self._places(version + 1, until):
            named |= {
                op.session
                for place, op in enumerate(self._unknown)
                if needs_holder(op) and op.session not in named and self._can_make(place, later)
            }
        return sorted(session for session in named if session is not None)

    def _places(self, first: int, last: int) -> Iterator[int]:
        """Missing versions of one stretch; the inner ones of a long one stand for each other."""
        if last - first > _EACH:
            yield from (first, first + 1, last - 1, last)
        else:
            yield from range(min(first, self.beyond), last + 1)

    def _last_place(self, place: int) -> int:
        """The last version that an operation of unknown end can have made; 0: none."""
        if self._open_end and self._can_make(place, self.beyond):
            return self.beyond + 1
        bounds = [self._start[0], *dict.fromkeys(self._versions)]
        for below, version in zip(reversed(bounds[:-1]), reversed(bounds[1:]), strict=True):
            if self._unknown[place].called_ns > self._latest(version):
                continue
            for missing in sorted(self._places(below + 1, version), reverse=True):
                if self._is_missing(missing) and self._can_make(place, missing):
                    return missing
        return 0

    def _last_places_of_sessions(self) -> dict[bytes, int]:
        """The last version for which it makes a difference whether a session has ended."""
        last: dict[bytes, int] = {}
        for place, operation in enumerate(self._unknown):
            if operation.session is not None:
                last[operation.session] = max(last.get(operation.session, 0), self._last_unknown[place])
        for operation in self._shown:
            for session in shown_there(operation):
                last[session] = max(last.get(session, 0), version_of(operation))
        for operation in self._others:
            if operation.detail == "already_held" and operation.session is not None:
                beyond = bisect.bisect_right(self._called, operation.answered_ns)
                until = self._versions[beyond] if beyond < len(self._versions) else self.beyond + 1
                last[operation.session] = max(last.get(operation.session, 0), until)
        return last


def _asked(operation: Operation, place: int) -> object:
    if operation.until_ns is not None:
        return place
    return (
        operation.function,
        operation.session,
        operation.epoch,
        operation.owner,
        operation.to,
        operation.by,
        operation.player,
        operation.value,
        operation.authority,
        operation.master,
    )

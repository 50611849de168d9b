"""Datagrams in flight: what each carried, which arrived, which are lost, and how much may be out.

What is sealed in one go is one record, a *run* of consecutive sequences with a bit for each that is still
out, so that acknowledging two hundred datagrams of a fat link costs a few operations on integers.

Loss is found as in RFC 9002: by a later datagram's acknowledgement and a reordering time, else by a probe
timer. The congestion window (slow start, then additive increase, halved once per round trip of loss)
holds back reliable bytes; state has a rate of its own, since it is worthless when late.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final, NamedTuple

from bridge.udp.columns import NOTES, Columns, Row
from bridge.udp.rtt import RttEstimator
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
)

REORDER_THRESHOLD: Final = 3
"""Datagrams: so many later ones acknowledged make an older one suspect."""
INITIAL_WINDOW_BYTES: Final = 16 * MAX_DATAGRAM_BYTES
MINIMUM_WINDOW_BYTES: Final = 2 * MAX_DATAGRAM_BYTES
MAXIMUM_WINDOW_BYTES: Final = 4 << 20
MAX_TRACKED: Final = 8192
"""Datagrams awaiting acknowledgement; beyond it the oldest runs count as lost."""


_new: Final = tuple.__new__
"""What the constructor of a named tuple comes down to, without the cost of calling it."""
_GIVEN_UP_KEPT: Final = 64
"""Runs that were given up and might arrive all the same,"""
_GIVEN_UP_TIMES: Final = 8
"""for so many times what it took to give them up."""


class Carried(NamedTuple):
    """What the datagrams of a run carried, as far as somebody wants to know of its arrival."""

    run: tuple[int, int] | None = None
    """Bytes of the ordered stream, start and end offset."""
    states: tuple[tuple[int, int], ...] = ()
    """States of a single datagram, (stream, number)."""
    batch: tuple[int, int] | None = None
    """Stream of the first datagram's state, one higher with each, and the number that all share."""
    fragments: tuple[tuple[int, int, int], ...] = ()
    """Parts of unordered messages: number, start and end offset."""


class SentRun:
    """Acknowledgement-eliciting datagrams with consecutive sequences, sealed at one moment.

    Attributes:
        first: sequence of the first.
        count: how many.
        sent_at: monotonic seconds.
        size: bytes of each.
        carried: what was in them.
        is_reliable: whether something in them has to be sent again if it is lost.
        outstanding: bit n set while the fate of ``first + n`` is unknown.
    """

    __slots__ = ("carried", "count", "first", "is_reliable", "outstanding", "sent_at", "size")

    def __init__(self, first: int, sent_at: float, size: int, carried: Carried, count: int = 1) -> None:
        self.first = first
        self.count = count
        self.sent_at = sent_at
        self.size = size
        self.carried = carried
        self.is_reliable = carried.run is not None or carried.fragments != ()
        self.outstanding = (1 << count) - 1


class Fate(NamedTuple):
    """Datagrams of one run that an acknowledgement decided: bit n of ``bits`` stands for ``first + n``."""

    run: SentRun
    bits: int


class Accounts(NamedTuple):
    """What an acknowledgement decided, each oldest first.

    ``late`` had been counted as lost before: whatever is to be sent again is on its way again.
    """

    arrived: list[Fate]
    lost: list[Fate]
    late: list[Fate]


class SentLedger:
    """Datagrams of one session that were sent and not yet accounted for.

    Those that each held one state are noted in the session's row (:mod:`bridge.udp.lone`); they are taken
    over from there before anything depends on them.
    """

    __slots__ = (
        "_given_up",
        "_newest",
        "_recovery_until",
        "_row",
        "_rtt",
        "_runs",
        "_threshold",
        "_window",
        "arrived",
        "largest_acknowledged",
        "lost",
        "reliable_bytes",
    )

    def __init__(self, rtt: RttEstimator, *, row: Row | None = None) -> None:
        """Begin with nothing in flight.

        Args:
            row: of its session; ``None`` for one of its own.
        """
        self._rtt = rtt
        self._row = row or Row(Columns())
        self._runs: dict[int, SentRun] = {}  # by first sequence, ascending
        self._newest = -1  # the highest of those sequences ever
        self._window = float(INITIAL_WINDOW_BYTES)
        self._threshold = float(MAXIMUM_WINDOW_BYTES)
        self._recovery_until = -1
        self._given_up: deque[Fate] = deque(maxlen=_GIVEN_UP_KEPT)
        self.largest_acknowledged = -1
        self.reliable_bytes = 0
        """Size of the datagrams in flight that carry reliable bytes."""
        self.arrived = 0
        """Datagrams known to have arrived."""
        self.lost = 0
        """Datagrams counted as lost."""

    @property
    def window_bytes(self) -> int:
        """Reliable bytes that may be out at once."""
        return int(self._window)

    @property
    def in_flight(self) -> int:
        """Datagrams out."""
        return self._row.columns.in_flight[self._row.index]

    def take_notes(self) -> None:
        """Take over what the row has noted."""
        columns, at = self._row.columns, self._row.index
        notes = columns.notes[at]
        if not notes:
            return
        columns.notes[at] = 0
        for note in range(at * NOTES, at * NOTES + notes):
            state = (columns.note_streams[note], columns.note_numbers[note])
            self._remember(
                SentRun(
                    columns.note_sequences[note],
                    columns.note_times[note],
                    columns.note_sizes[note],
                    _new(Carried, (None, (), state, ())),
                )
            )

    def take_arrived_notes(self, largest: int, bits: int) -> range | None:
        """Apply an ACK frame that names all that is in flight, each noted in the row: what players answer.

        Returns:
            Which of the row's notes they are, good until the next datagram is noted. ``None``, with nothing
            changed, where it is not so: then :meth:`acknowledge` does what this would come to.
        """
        columns, at = self._row.columns, self._row.index
        count = columns.notes[at]
        if not count or self._runs or self._given_up:
            return None
        notes = range(at * NOTES, at * NOTES + count)
        sequences = columns.note_sequences
        for note in notes:
            behind = largest - sequences[note]
            if behind and (behind < 0 or not bits >> behind - 1 & 1):
                return None
        columns.notes[at] = columns.in_flight[at] = 0
        if largest > self.largest_acknowledged:
            self.largest_acknowledged = largest
        if sequences[notes[-1]] > self._newest:
            self._newest = sequences[notes[-1]]
        self.arrived += count
        return notes

    def record(self, run: SentRun) -> list[Fate]:
        """Remember datagrams just sealed.

        Returns:
            What is given up as lost to make room.
        """
        columns, at = self._row.columns, self._row.index
        if columns.notes[at]:
            self.take_notes()
        in_flight = columns.in_flight[at] = columns.in_flight[at] + run.count
        self._remember(run)
        if run.is_reliable:
            self.reliable_bytes += run.size
        if in_flight <= MAX_TRACKED:
            return []
        given_up: list[Fate] = []
        while columns.in_flight[at] > MAX_TRACKED and len(self._runs) > 1:
            given_up.append(self._give_up(next(iter(self._runs.values()))))
        return given_up

    def _remember(self, run: SentRun) -> None:
        first = run.first
        self._runs[first] = run
        if first > self._newest:
            self._newest = first
        else:
            # States that waited for their signature have lower sequences than what was sealed meanwhile.
            self._runs = dict(sorted(self._runs.items()))

    def _give_up(self, run: SentRun) -> Fate:
        fate = Fate(run, run.outstanding)
        self.lost += fate.bits.bit_count()
        self._account(run, fate.bits)
        return fate

    def _account(self, run: SentRun, bits: int) -> None:
        self._row.columns.in_flight[self._row.index] -= bits.bit_count()
        run.outstanding &= ~bits
        if run.outstanding:
            return
        del self._runs[run.first]
        if run.is_reliable:
            self.reliable_bytes -= run.size

    def acknowledge(self, largest: int, bits: int, *, now: float) -> Accounts:
        """Apply an ACK frame.

        Looked at are the runs it names, and from the oldest on those that it lets count as lost: however many
        are in flight, a peer cannot make each of its acknowledgements cost them all.
        """
        self.take_notes()
        newest = self.largest_acknowledged
        if largest > newest:
            self.largest_acknowledged = newest = largest
        runs = self._runs
        if len(runs) == 1 and not self._given_up and (run := runs.get(largest)) and run.count == 1:
            # What a server's player answers to each tick: it is what the rest of this would come to.
            return _new(Accounts, (self._all_arrived(run), [], []))
        named = bits << 1 | 1  # bit n stands for largest - n
        late = self._arrived_late(named, largest, now=now) if self._given_up else []
        arrived: list[Fate] = []
        lost: list[Fate] = []
        firsts = list(runs)
        lost_to = 0
        suspect_below = newest - REORDER_THRESHOLD
        if firsts and firsts[0] <= suspect_below:
            sent_before = now - self._rtt.reorder_time()
            for first, run in runs.items():
                if first > suspect_below or run.sent_at > sent_before:
                    break
                lost_to += 1
                outstanding = run.outstanding & ~self._decide(run, named, largest, arrived)
                gone = outstanding & ((1 << min(suspect_below - first + 1, run.count)) - 1)
                if gone:
                    lost.append(_new(Fate, (run, gone)))
                    if run.is_reliable and first > self._recovery_until:
                        self._shrink()
        # Runs do not overlap: of those that begin below what is named, only the last may reach into it.
        begin = max(lost_to, bisect_right(firsts, largest - bits.bit_length()) - 1)
        for first in firsts[begin : bisect_right(firsts, largest)]:
            self._decide(runs[first], named, largest, arrived)
        for run, got in arrived:
            self._account(run, got)
            self.arrived += got.bit_count()
        if lost:
            for run, gone in lost:
                self._account(run, gone)
                self.lost += gone.bit_count()
            self._given_up += lost
        return _new(Accounts, (arrived, lost, late))

    def _all_arrived(self, run: SentRun) -> list[Fate]:
        """The only datagram in flight arrived."""
        if run.is_reliable and run.first > self._recovery_until:
            self._grow(run.size)
        self._runs.clear()
        self._row.columns.in_flight[self._row.index] = 0
        self.reliable_bytes = run.outstanding = 0
        self.arrived += 1
        return [_new(Fate, (run, 1))]

    def _decide(self, run: SentRun, named: int, largest: int, arrived: list[Fate]) -> int:
        """Which of a run's datagrams arrived, noted in ``arrived``."""
        distance = largest - run.first
        got = run.outstanding & self._named_in_run(named, distance, run.count)
        if got:
            arrived.append(_new(Fate, (run, got)))
            if run.is_reliable and run.first > self._recovery_until:
                self._grow(run.size)
        return got

    def _arrived_late(self, named: int, largest: int, *, now: float) -> list[Fate]:
        since = now - _GIVEN_UP_TIMES * self._rtt.reorder_time()
        while self._given_up and (not self._given_up[0].bits or self._given_up[0].run.sent_at < since):
            self._given_up.popleft()
        late: list[Fate] = []
        for index, (run, bits) in enumerate(self._given_up):
            got = bits & self._named_in_run(named, largest - run.first, run.count)
            if got:
                self._given_up[index] = Fate(run, bits & ~got)
                late.append(Fate(run, got))
                self.lost -= got.bit_count()
                self.arrived += got.bit_count()
                self._rtt.arrived_late(now - run.sent_at)
        return late

    @staticmethod
    def _named_in_run(named: int, distance: int, count: int) -> int:
        """Bits of a run, lowest first, that ``named`` holds; ``distance`` is largest - first of the run."""
        if distance < 0:
            return 0
        if count == 1:
            return named >> distance & 1
        # Bit n of the run is bit distance - n of ``named``: the order of the bits is turned round.
        low = distance - count + 1
        window = (named >> low if low >= 0 else named << -low) & ((1 << count) - 1)
        if window == (1 << count) - 1:
            return window
        return int(format(window, f"0{count}b")[::-1], 2)

    def _grow(self, size: int) -> None:
        step = size if self._window < self._threshold else MAX_DATAGRAM_BYTES * size / self._window
        self._window = min(self._window + step, MAXIMUM_WINDOW_BYTES)

    def _shrink(self) -> None:
        self._window = self._threshold = max(self._window / 2, MINIMUM_WINDOW_BYTES)
        newest = next(reversed(self._runs.values()))
        self._recovery_until = newest.first + newest.count - 1

    def give_up_oldest(self, count: int) -> list[Fate]:
        """The probe timer fired: the oldest datagrams that carried reliable bytes count as lost."""
        oldest = [run for run in self._runs.values() if run.is_reliable][:count]
        return [self._give_up(run) for run in oldest]

    def collapse_window(self) -> None:
        """Several probes in a row went unanswered: start over gently."""
        self._threshold = max(self._window / 2, MINIMUM_WINDOW_BYTES)
        self._window = float(MINIMUM_WINDOW_BYTES)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.columns import NOTES, Columns, Row
from bridge.udp.loss import (
    INITIAL_WINDOW_BYTES,
    MAX_TRACKED,
    MINIMUM_WINDOW_BYTES,
    REORDER_THRESHOLD,
    Carried,
    Fate,
    SentLedger,
    SentRun,
)
from bridge.udp.rtt import RttEstimator


def ledger_with(count: int, *, at: float = 0.0) -> SentLedger:
    ledger = SentLedger(RttEstimator(0.1))
    for sequence in range(count):
        ledger.record(SentRun(sequence, at, 1000, Carried((sequence * 10, sequence * 10 + 10))))
    return ledger


def test_what_is_named_arrived_and_is_forgotten() -> None:
    ledger = ledger_with(4)
    arrived, lost, _ = ledger.acknowledge(3, 0b101, now=0.01)
    assert [fate.run.carried.run for fate in arrived] == [(0, 10), (20, 30), (30, 40)]
    assert lost == []
    assert ledger.in_flight == 1
    assert ledger.reliable_bytes == 1000


def test_a_datagram_is_lost_only_when_later_ones_arrived_and_the_reordering_time_passed() -> None:
    ledger = ledger_with(REORDER_THRESHOLD + 1)
    assert ledger.acknowledge(REORDER_THRESHOLD, 0b11, now=0.01)[1] == []
    (lost,) = ledger.acknowledge(REORDER_THRESHOLD, 0b11, now=1.0)[1]
    assert lost.run.carried.run == (0, 10)
    assert ledger.lost == 1


def test_one_round_trip_of_losses_halves_the_window_once() -> None:
    ledger = ledger_with(20)
    ledger.acknowledge(19, 0, now=1.0)
    grown = INITIAL_WINDOW_BYTES + 1000
    assert ledger.window_bytes in range(INITIAL_WINDOW_BYTES // 2, grown // 2 + 1001)


def test_acknowledged_reliable_bytes_open_the_window() -> None:
    ledger = ledger_with(2)
    ledger.acknowledge(1, 1, now=0.01)
    assert ledger.window_bytes == INITIAL_WINDOW_BYTES + 2000


def test_the_table_is_bounded_and_gives_up_the_oldest() -> None:
    ledger = ledger_with(MAX_TRACKED)
    (given_up,) = ledger.record(SentRun(MAX_TRACKED, 0.0, 1000, Carried(states=((1, 2),))))
    assert given_up.run.carried.run == (0, 10)
    assert ledger.in_flight == MAX_TRACKED


def test_a_probe_gives_up_the_oldest_that_carried_reliable_bytes() -> None:
    ledger = SentLedger(RttEstimator(0.1))
    ledger.record(SentRun(0, 0.0, 100, Carried(states=((0, 0),))))
    ledger.record(SentRun(1, 0.0, 100, Carried((0, 10))))
    ledger.record(SentRun(2, 0.0, 100, Carried((10, 20))))
    assert [fate.run.carried.run for fate in ledger.give_up_oldest(1)] == [(0, 10)]
    assert ledger.reliable_bytes == 100


def test_a_collapsed_window_is_the_smallest() -> None:
    ledger = ledger_with(1)
    ledger.collapse_window()
    assert ledger.window_bytes == MINIMUM_WINDOW_BYTES


def test_an_old_acknowledgement_out_of_order_still_counts() -> None:
    ledger = ledger_with(3)
    ledger.acknowledge(2, 0, now=0.01)
    arrived, _, _ = ledger.acknowledge(1, 1, now=0.01)
    assert len(arrived) == 2
    assert ledger.in_flight == 0


@given(
    counts=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    received=st.sets(st.integers(0, 300)),
    data=st.data(),
)
def test_runs_are_accounted_for_as_their_datagrams_would_be_alone(
    counts: list[int], received: set[int], data: st.DataObject
) -> None:
    total = sum(counts)
    got = {sequence for sequence in received if sequence < total}
    if not got:
        got = {data.draw(st.integers(0, total - 1))}
    runs, alone = SentLedger(RttEstimator(0.1)), SentLedger(RttEstimator(0.1))
    first = 0
    for count in counts:
        runs.record(SentRun(first, 0.0, 100, Carried(batch=(0, 0)), count))
        first += count
    for sequence in range(total):
        alone.record(SentRun(sequence, 0.0, 100, Carried(batch=(0, 0))))
    largest = max(got)
    bits = sum(1 << (largest - 1 - sequence) for sequence in got if sequence != largest)
    decided = [ledger.acknowledge(largest, bits, now=10.0) for ledger in (runs, alone)]
    for mine, theirs in zip(*decided, strict=True):
        assert sequences_of(mine) == sequences_of(theirs)
    assert sequences_of(decided[0][0]) == got
    assert (runs.in_flight, runs.lost) == (alone.in_flight, alone.lost)


def sequences_of(fates: list[Fate]) -> set[int]:
    return {run.first + n for run, bits in fates for n in range(run.count) if bits >> n & 1}


def test_what_arrives_after_it_was_given_up_is_told_once_and_makes_the_ledger_wait_longer() -> None:
    rtt = RttEstimator(0.1)
    ledger = SentLedger(rtt)
    rtt.sample(0.04)
    for n in range(6):
        ledger.record(SentRun(n, 100.0 + n / 1000, 100, Carried(states=((n, n),))))
    (lost,) = ledger.acknowledge(5, 0b01111, now=100.05).lost
    assert (lost.run.first, ledger.lost) == (0, 1)
    (late,) = ledger.acknowledge(5, 0b11111, now=100.06).late
    assert (late.run.first, late.bits) == (0, 1)
    assert (ledger.lost, ledger.arrived) == (0, 6)
    assert rtt.reorder_time() == pytest.approx(0.06)
    assert ledger.acknowledge(5, 0b11111, now=100.07).late == []


def test_only_so_many_runs_that_were_given_up_are_remembered() -> None:
    ledger = SentLedger(RttEstimator(1.0))
    for n in range(200):
        ledger.record(SentRun(n, 100.0, 100, Carried()))
    ledger.record(SentRun(200, 100.0, 100, Carried()))
    assert len(ledger.acknowledge(200, 0, now=102.0).lost) == 198
    assert len(ledger.acknowledge(200, (1 << 200) - 1, now=102.0).late) == 64


def test_what_was_given_up_long_ago_is_not_looked_for_any_more() -> None:
    ledger = ledger_with(REORDER_THRESHOLD + 1)
    assert len(ledger.acknowledge(REORDER_THRESHOLD, 0b11, now=1.0).lost) == 1
    assert ledger.acknowledge(REORDER_THRESHOLD, 0b111, now=10.0).late == []


def test_what_is_recorded_late_is_accounted_for_by_its_sequence() -> None:
    """States of a signed session are sealed after what was sealed while they waited for their signature."""
    ledger = SentLedger(RttEstimator(0.1))
    ledger.record(SentRun(5, 0.0, 100, Carried((0, 10))))
    ledger.record(SentRun(0, 0.0, 100, Carried(batch=(0, 0)), 5))
    arrived = ledger.acknowledge(4, 0b1111, now=0.01).arrived
    assert [(fate.run.first, fate.bits) for fate in arrived] == [(0, 0b11111)]
    assert ledger.in_flight == 1


def test_an_acknowledgement_costs_what_it_names_however_many_are_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent_at = 100.0
    ledger = SentLedger(RttEstimator(1.0))
    for sequence in range(4096):
        ledger.record(SentRun(sequence, sent_at, 100, Carried()))
    looked_at: list[int] = []
    decide = SentLedger._decide

    def counted(self: SentLedger, run: SentRun, *rest: Any) -> int:
        looked_at.append(run.first)
        return decide(self, run, *rest)

    monkeypatch.setattr(SentLedger, "_decide", counted)
    ledger.acknowledge(4000, 1 << 9, now=sent_at)
    assert set(looked_at) <= set(range(3989, 4001))
    assert ledger.in_flight == 4094
    looked_at.clear()
    ledger.acknowledge(4000, 0, now=sent_at + 10)  # by now all before are lost
    assert len(set(looked_at)) == len(looked_at) <= 4000
    assert ledger.in_flight == 4096 - 4001 + 2


@given(st.data())
def test_the_ledger_agrees_with_one_that_looks_at_everything(data: st.DataObject) -> None:
    """Runs and single ones, named, lost, late and out of order: what a plain list of bits would say."""
    rtt = RttEstimator(0.1)
    ledger = SentLedger(rtt)
    out: dict[int, float] = {}
    sequence, now = 0, 100.0
    for _ in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.sampled_from([0.0, 0.01, 0.2]))
        if data.draw(st.booleans()):
            count = data.draw(st.sampled_from([1, 1, 1, 5, 216]))
            ledger.record(SentRun(sequence, now, 100, Carried(), count))
            out |= dict.fromkeys(range(sequence, sequence + count), now)
            sequence += count + data.draw(st.integers(0, 2))
        elif sequence:
            largest = data.draw(st.integers(0, sequence - 1))
            bits = data.draw(st.integers(0, (1 << min(largest, 300)) - 1))
            before = dict(out)
            newest = max(ledger.largest_acknowledged, largest)
            accounts = ledger.acknowledge(largest, bits, now=now)
            named = {largest} | {largest - 1 - n for n in range(300) if bits >> n & 1}
            arrived = sequences(accounts.arrived)
            assert arrived == named & before.keys()
            old = now - rtt.reorder_time()
            lost = {n for n, at in before.items() if n <= newest - 3 and at <= old} - arrived
            assert sequences(accounts.lost) == lost
            out = {n: at for n, at in out.items() if n not in arrived | lost}
            assert ledger.in_flight == len(out)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("note"), st.integers(1, 3), st.integers(0, 1)),
            st.tuples(st.just("record"), st.integers(1, 3), st.just(0)),
            st.tuples(st.just("acknowledge"), st.integers(0, 4), st.integers(0, 255)),
            st.tuples(st.just("acknowledge"), st.integers(0, 1), st.just(255)),
        ),
        max_size=40,
    )
)
def test_notes_that_all_arrived_are_accounted_for_as_by_the_general_way(
    steps: list[tuple[str, int, int]],
) -> None:
    """Noted, recorded, named or not: the same arrivals, losses and counters, whichever way is taken."""
    ways = [(SentLedger(RttEstimator(0.01), row=row), row) for row in (Row(Columns()), Row(Columns()))]
    sequence, now = 0, 100.0
    for verb, count, more in steps:
        now += 0.004
        if verb == "acknowledge":
            largest = sequence - 1 - count
            if largest < 0:
                continue
            bits = more & ((1 << largest) - 1)
            accounts = []
            for n, (ledger, row) in enumerate(ways):
                notes = ledger.take_arrived_notes(largest, bits) if n else None
                if notes is None:
                    arrived, lost, late = ledger.acknowledge(largest, bits, now=now)
                    got = [(fate.run.sent_at, fate.run.carried.batch) for fate in arrived]
                    accounts.append((got, sequences(lost), sequences(late)))
                else:
                    cells = row.columns
                    got = [
                        (cells.note_times[note], (cells.note_streams[note], cells.note_numbers[note]))
                        for note in notes
                    ]
                    accounts.append((got, set(), set()))
            assert accounts[0] == accounts[1]
        for _ in range(0 if verb == "acknowledge" else count):
            for ledger, row in ways:
                if verb == "record" or row.columns.notes[row.index] == NOTES:
                    ledger.record(SentRun(sequence, now, 100, Carried(batch=(7, sequence))))
                else:
                    note_state(row, sequence, now=now)
            sequence += 1 + more
        first, second = (
            (
                ledger.in_flight,
                ledger.arrived,
                ledger.lost,
                ledger.largest_acknowledged,
                ledger.window_bytes,
                ledger.reliable_bytes,
            )
            for ledger, _ in ways
        )
        assert first == second


def note_state(row: Row, sequence: int, *, now: float) -> None:
    """What the pass over lone states notes of one."""
    columns, at = row.columns, row.index
    cell = at * NOTES + columns.notes[at]
    columns.note_sequences[cell], columns.note_times[cell], columns.note_sizes[cell] = sequence, now, 100
    columns.note_streams[cell], columns.note_numbers[cell] = 7, sequence
    columns.notes[at] += 1
    columns.in_flight[at] += 1


def sequences(fates: list[Fate]) -> set[int]:
    return {run.first + n for run, bits in fates for n in range(run.count) if bits >> n & 1}

from __future__ import annotations

from bridge.udp.loss import (
    INITIAL_WINDOW_BYTES,
    MAX_TRACKED,
    MINIMUM_WINDOW_BYTES,
    REORDER_THRESHOLD,
    SentDatagram,
    SentLedger,
)
from bridge.udp.rtt import RttEstimator


def ledger_with(count: int, *, at: float = 0.0) -> SentLedger:
    ledger = SentLedger(RttEstimator(0.1))
    for sequence in range(count):
        ledger.record(sequence, SentDatagram(at, 1000, (sequence * 10, sequence * 10 + 10), ()))
    return ledger


def test_what_is_named_arrived_and_is_forgotten() -> None:
    ledger = ledger_with(4)
    arrived, lost = ledger.acknowledge(3, 0b101, now=0.01)
    assert [datagram.run for datagram in arrived] == [(0, 10), (20, 30), (30, 40)]
    assert lost == []
    assert len(ledger) == 1
    assert ledger.reliable_bytes == 1000


def test_a_datagram_is_lost_only_when_later_ones_arrived_and_the_reordering_time_passed() -> None:
    ledger = ledger_with(REORDER_THRESHOLD + 1)
    assert ledger.acknowledge(REORDER_THRESHOLD, 0b11, now=0.01)[1] == []
    (lost,) = ledger.acknowledge(REORDER_THRESHOLD, 0b11, now=1.0)[1]
    assert lost.run == (0, 10)
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
    given_up = ledger.record(MAX_TRACKED, SentDatagram(0.0, 1000, None, ((1, 2),)))
    assert given_up is not None
    assert given_up.run == (0, 10)
    assert len(ledger) == MAX_TRACKED


def test_a_probe_gives_up_the_oldest_that_carried_reliable_bytes() -> None:
    ledger = SentLedger(RttEstimator(0.1))
    ledger.record(0, SentDatagram(0.0, 100, None, ((0, 0),)))
    ledger.record(1, SentDatagram(0.0, 100, (0, 10), ()))
    ledger.record(2, SentDatagram(0.0, 100, (10, 20), ()))
    assert [datagram.run for datagram in ledger.give_up_oldest(1)] == [(0, 10)]
    assert ledger.reliable_bytes == 100


def test_a_collapsed_window_is_the_smallest() -> None:
    ledger = ledger_with(1)
    ledger.collapse_window()
    assert ledger.window_bytes == MINIMUM_WINDOW_BYTES


def test_an_old_acknowledgement_out_of_order_still_counts() -> None:
    ledger = ledger_with(3)
    ledger.acknowledge(2, 0, now=0.01)
    arrived, _ = ledger.acknowledge(1, 1, now=0.01)
    assert len(arrived) == 2
    assert len(ledger) == 0

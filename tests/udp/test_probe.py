from __future__ import annotations

import pytest

from bridge.udp.probe import ProbeTimer
from bridge.udp.rtt import RttEstimator


def test_an_unanswered_probe_is_followed_by_a_later_one_and_an_answer_begins_anew() -> None:
    rtt = RttEstimator(0.1)
    rtt.sample(0.01)
    timer = ProbeTimer(rtt, ack_delay=0.025, minimum=0.02, now=100.0)
    first = timer.due_at() - 100.0
    timer.fired(now=timer.due_at())
    assert timer.due_at() - timer.since == pytest.approx(2 * first)
    timer.backoff, timer.since = 0, 200.0
    assert timer.due_at() - 200.0 == pytest.approx(first)


def test_probes_never_lie_far_apart_so_that_an_outage_ends_when_the_path_is_back() -> None:
    timer = ProbeTimer(RttEstimator(0.1), ack_delay=0.025, minimum=0.02, now=100.0)
    for _ in range(20):
        due = timer.due_at()
        assert 0 < due - timer.since <= 0.5
        timer.fired(now=due)


def test_where_the_round_trip_is_longer_it_alone_sets_the_pace() -> None:
    timer = ProbeTimer(RttEstimator(2.0), ack_delay=0.025, minimum=0.02, now=100.0)
    for _ in range(20):
        timer.fired(now=timer.due_at())
    assert timer.due_at() - timer.since == pytest.approx(timer.timeout())

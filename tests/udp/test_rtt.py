from __future__ import annotations

import pytest

from bridge.udp.rtt import RttEstimator


def test_the_first_sample_sets_the_estimate_as_rfc_6298_says() -> None:
    rtt = RttEstimator(0.1)
    rtt.sample(0.04)
    assert (rtt.smoothed, rtt.variation, rtt.minimum) == (0.04, 0.02, 0.04)


def test_later_samples_are_smoothed_by_an_eighth_and_a_quarter() -> None:
    rtt = RttEstimator(0.1)
    rtt.sample(0.04)
    rtt.sample(0.08)
    assert rtt.variation == pytest.approx(0.75 * 0.02 + 0.25 * 0.04)
    assert rtt.smoothed == pytest.approx(0.875 * 0.04 + 0.125 * 0.08)
    assert rtt.minimum == 0.04


def test_the_probe_timeout_has_a_floor() -> None:
    rtt = RttEstimator(0.1)
    rtt.sample(0.0001)
    assert rtt.probe_timeout(ack_delay=0.025, minimum=0.02) == pytest.approx(0.045)


def test_before_any_sample_the_assumed_round_trip_counts() -> None:
    rtt = RttEstimator(0.1)
    assert rtt.reorder_time() == pytest.approx(0.1125)
    assert rtt.probe_timeout(ack_delay=0, minimum=0.02) == pytest.approx(0.3)


def test_datagrams_that_come_after_they_were_given_up_make_it_wait_longer_for_a_while() -> None:
    rtt = RttEstimator(0.1)
    rtt.sample(0.04)
    assert rtt.reorder_time() == pytest.approx(0.045)
    rtt.arrived_late(0.1)
    rtt.arrived_late(0.06)
    assert rtt.reorder_time() == pytest.approx(0.1)
    for _ in range(5000):
        rtt.sample(0.04)
    assert rtt.reorder_time() == pytest.approx(0.045)

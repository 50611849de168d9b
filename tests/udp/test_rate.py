from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.rate import MIN_SAMPLE, Pacer, StateRate
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
)

FLOOR, CEILING = 50_000.0, 100_000_000.0


def rate(*, initial: float = 1_000_000.0) -> StateRate:
    return StateRate(initial=initial, floor=FLOOR, ceiling=CEILING, now=0.0)


def interval(
    controller: StateRate, *, lost: int, of: int = 100, sent: int = 100_000, now: float = 0.1
) -> None:
    """One interval of 0.1 s in which the rate was the limit."""
    controller.sent_bytes += sent
    controller.held_back()
    controller.arrived(of - lost, now - 0.05)
    controller.lost(lost, now - 0.05)
    assert controller.update(rtt=0.01, now=now)


@pytest.mark.parametrize(
    ("lost", "factor"), [(0, 2.0), (2, 2.0), (3, 1.0), (10, 1.0), (17, 0.915), (50, 0.75), (100, 0.5)]
)
def test_the_first_interval_doubles_holds_or_yields_by_its_loss(lost: int, factor: float) -> None:
    controller = rate()
    interval(controller, lost=lost)
    assert controller.bytes_per_second == pytest.approx(1_000_000 * factor)
    assert controller.loss == lost / 100


def test_after_the_first_loss_it_grows_by_eight_percent() -> None:
    controller = rate()
    interval(controller, lost=5, now=0.1)
    interval(controller, lost=0, now=0.2)
    assert controller.bytes_per_second == pytest.approx(1_080_000)


def test_a_rate_that_was_not_the_limit_does_not_grow() -> None:
    controller = rate()
    controller.arrived(100, 0.0)
    assert controller.update(rtt=0.01, now=0.1)
    assert controller.bytes_per_second == 1_000_000


def test_after_an_outage_it_doubles_up_to_half_of_what_was_sent_before() -> None:
    controller = rate()
    interval(controller, lost=0, now=0.1)
    interval(controller, lost=100, sent=10_000, now=1.1)
    rates = []
    for n in range(12):
        interval(controller, lost=0, now=1.2 + 0.1 * n)
        rates.append(controller.bytes_per_second)
    assert rates[0] == 100_000
    assert rates[3] == pytest.approx(500_000)
    assert rates[4] == pytest.approx(540_000)


def test_heavy_loss_again_and_again_halves_what_it_doubles_up_to() -> None:
    controller = rate()
    for n in range(4):
        interval(controller, lost=60, now=0.1 * (n + 1))
    before = controller.bytes_per_second
    interval(controller, lost=0, now=0.5)
    assert controller.bytes_per_second < 1.3 * before


def test_it_yields_from_what_was_sent() -> None:
    controller = rate(initial=CEILING)
    interval(controller, lost=20, sent=50_000)
    assert controller.bytes_per_second == pytest.approx(500_000 * 0.9)


def test_too_few_datagrams_or_too_short_a_time_say_nothing() -> None:
    controller = rate()
    controller.lost(MIN_SAMPLE - 1, 0.0)
    assert not controller.update(rtt=0.01, now=10.0)
    controller.lost(1, 0.0)
    assert not controller.update(rtt=6.0, now=10.0)
    assert not rate().update(rtt=0.0, now=0.009)
    assert controller.update(rtt=0.01, now=10.0)


def test_a_high_loss_that_may_be_chance_is_looked_at_again_with_more_datagrams() -> None:
    controller = rate()
    controller.sent_bytes += 1_000_000
    for lost, arrived, is_decided in ((3, 17, False), (3, 57, True)):
        controller.lost(lost, 0.0)
        controller.arrived(arrived, 0.0)
        assert controller.update(rtt=0.01, now=1.0) is is_decided
    assert controller.bytes_per_second == 1_000_000
    controller.lost(25, 1.0)
    controller.arrived(155, 1.0)
    assert not controller.update(rtt=0.01, now=2.0)
    controller.arrived(20, 1.0)
    assert controller.update(rtt=0.01, now=2.0)
    assert controller.bytes_per_second == 1_000_000


def test_what_was_sent_before_the_rate_changed_does_not_count() -> None:
    controller = rate()
    interval(controller, lost=0, now=0.1)
    controller.lost(1000, 0.09)
    controller.arrived(1000, 0.09)
    assert not controller.update(rtt=0.01, now=0.3)


def test_what_arrived_after_all_was_not_lost() -> None:
    controller = rate()
    controller.lost(50, 0.05)
    controller.arrived(50, 0.05)
    controller.arrived_late(49, 0.05)
    assert controller.update(rtt=0.01, now=0.1)
    assert controller.loss == 0.01


@given(st.lists(st.integers(0, 100), max_size=60))
def test_it_never_leaves_its_bounds(losses: list[int]) -> None:
    controller = rate()
    for n, lost in enumerate(losses):
        interval(controller, lost=3 * lost, of=300, now=0.1 * (n + 1))
        assert FLOOR <= controller.bytes_per_second <= CEILING


def test_a_pacer_gives_a_burst_and_then_its_rate() -> None:
    pacer = Pacer(1_000_000, now=0.0)
    assert pacer.allowance(0.0) == 16 * MAX_DATAGRAM_BYTES
    pacer.spend(16 * MAX_DATAGRAM_BYTES)
    assert pacer.allowance(0.0) == 0
    assert pacer.ready_at() == pytest.approx(0.0048)
    assert pacer.allowance(0.0048) == pytest.approx(4800, abs=1)
    assert pacer.allowance(100.0) == 16 * MAX_DATAGRAM_BYTES


def test_a_burst_is_at_least_five_milliseconds_of_the_rate() -> None:
    assert Pacer(100_000_000, now=0.0).allowance(0.0) == 500_000


def test_an_overdrawn_pacer_gives_nothing_until_it_is_paid_back() -> None:
    pacer = Pacer(1_000_000, now=0.0)
    pacer.spend(20 * MAX_DATAGRAM_BYTES)
    assert pacer.allowance(0.004) == 0
    assert pacer.ready_at() > 0.004


def test_a_lower_rate_takes_the_larger_burst_back() -> None:
    pacer = Pacer(100_000_000, now=0.0)
    pacer.set_rate(1_000_000)
    assert pacer.allowance(0.0) == 16 * MAX_DATAGRAM_BYTES


class Link:
    """A link of so many bytes a second with room for 20 ms of them, 10 ms away."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.free_at = 0.0

    def send(self, now: float) -> float | None:
        """When the datagram arrives; ``None`` when the queue is full."""
        if self.free_at - now > 0.02:
            return None
        self.free_at = max(self.free_at, now) + MAX_DATAGRAM_BYTES / self.speed
        return self.free_at + 0.01


def drive(
    controller: StateRate, link: Link, *, offered: float, begin: float, seconds: float
) -> tuple[float, float]:
    """Offer so many bytes a second in ticks of 1 ms; ``(rate sent, share lost)`` of the last quarter."""
    pacer = Pacer(controller.bytes_per_second, now=begin)
    known: deque[tuple[float, float, bool]] = deque()
    sent = lost = 0
    for tick in range(int(seconds * 1000)):
        now = begin + tick / 1000
        while known and known[0][0] <= now:
            _, sent_at, is_lost = known.popleft()
            (controller.lost if is_lost else controller.arrived)(1, sent_at)
        if controller.update(rtt=0.03, now=now):
            pacer.set_rate(controller.bytes_per_second)
        wanted = int(offered / 1000 / MAX_DATAGRAM_BYTES)
        count = min(wanted, pacer.allowance(now) // MAX_DATAGRAM_BYTES)
        if count < wanted:
            controller.held_back()
        for _ in range(count):
            arrives = link.send(now)
            known.append((now + 0.04, now, arrives is None))
            if tick >= seconds * 750:
                sent += MAX_DATAGRAM_BYTES
                lost += MAX_DATAGRAM_BYTES * (arrives is None)
        pacer.spend(count * MAX_DATAGRAM_BYTES)
        controller.sent_bytes += count * MAX_DATAGRAM_BYTES
    return sent / (seconds / 4), lost / max(sent, 1)


def test_it_settles_near_the_speed_of_a_link_and_follows_when_that_changes() -> None:
    controller, link = rate(), Link(5_000_000)
    sent, loss = drive(controller, link, offered=20_000_000, begin=0.0, seconds=8.0)
    assert 4_000_000 < sent < 6_000_000
    assert loss < 0.12
    link.speed = 1_000_000
    sent, loss = drive(controller, link, offered=20_000_000, begin=8.0, seconds=8.0)
    assert 800_000 < sent < 1_200_000
    assert loss < 0.12
    link.speed = 8_000_000
    sent, loss = drive(controller, link, offered=20_000_000, begin=16.0, seconds=8.0)
    assert 6_400_000 < sent < 9_600_000
    assert loss < 0.12

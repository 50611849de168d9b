from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.rtt import RttEstimator
from bridge.udp.stamps import StampExchange, echo_age, stamp_of
from bridge.udp.wire import (
    HOLD_UNIT_US,
    NO_ECHO,
    PROLOGUE,
)


def exchange() -> tuple[StampExchange, RttEstimator]:
    rtt = RttEstimator(0.1)
    return StampExchange(rtt, longest=10.0), rtt


@given(start=st.floats(0, 1e7), held=st.floats(0, 4), way=st.floats(1e-4, 2))
def test_the_sample_is_the_round_trip_without_the_time_the_echo_was_held(
    start: float, held: float, way: float
) -> None:
    """Also where the stamps wrap, every 72 minutes."""
    (near, rtt), (far, _) = exchange(), exchange()
    far.receive(*PROLOGUE.unpack(near.prologue(now=start)), now=777.0)
    near.receive(*PROLOGUE.unpack(far.prologue(now=777.0 + held)), now=start + 2 * way + held)
    assert rtt.latest == pytest.approx(2 * way, abs=2 * HOLD_UNIT_US / 1e6)


def test_an_echo_is_sampled_once() -> None:
    stamps, rtt = exchange()
    stamps.receive(1, stamp_of(5.0), 0, now=5.1)
    stamps.receive(2, stamp_of(5.0), 0, now=9.0)
    assert rtt.latest == pytest.approx(0.1)


@pytest.mark.parametrize(("echo", "hold"), [(0, 0), (stamp_of(5.0), NO_ECHO), (stamp_of(6.0), 0)])
def test_no_echo_no_hold_time_or_an_echo_of_the_future_gives_no_sample(echo: int, hold: int) -> None:
    stamps, rtt = exchange()
    stamps.receive(1, echo, hold, now=5.1)
    assert rtt.latest is None


def test_an_echo_held_too_long_to_say_says_so() -> None:
    stamps, _ = exchange()
    stamps.receive(1, 0, NO_ECHO, now=5.0)
    assert PROLOGUE.unpack(stamps.prologue(now=50.0))[1:] == (1, NO_ECHO)


def test_the_age_of_an_echo_survives_the_wrap() -> None:
    before = 2**32 / 1e6 - 0.5
    assert echo_age(stamp_of(before), now=before + 1) == pytest.approx(1, abs=1e-5)
    assert echo_age(0, now=5.0) is None


def test_a_stamp_is_never_zero() -> None:
    assert stamp_of(0.0) == stamp_of(2**32 / 1e6) == 1

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError
from bridge.udp.conditions import DEFAULT_QUEUE_BYTES, MAX_SECONDS, NetworkConditions, Partition

fractions = st.floats(0, 1)
times = st.floats(0, MAX_SECONDS)
partitions = st.builds(
    Partition, st.floats(0, MAX_SECONDS / 2), st.floats(0, MAX_SECONDS / 2, exclude_min=True)
)


@st.composite
def conditions(draw: st.DrawFn) -> NetworkConditions:
    loss = draw(fractions)
    least = loss / (1 - loss) if loss < 1 else 1.0
    return NetworkConditions(
        loss=loss,
        burst=draw(st.none() | st.floats(max(1.0, least), allow_infinity=False)),
        delay=draw(times),
        jitter=draw(times),
        duplicate=draw(fractions),
        reorder=draw(fractions),
        reorder_by=draw(times),
        rate=draw(st.none() | st.floats(1, allow_infinity=False)),
        queue=draw(st.integers(1500, 1 << 40)),
        partition=tuple(draw(st.lists(partitions, max_size=3))),
        seed=draw(st.integers(0, 1 << 64)),
    )


@given(conditions())
def test_the_text_of_conditions_says_exactly_them(one: NetworkConditions) -> None:
    assert NetworkConditions.parse(str(one)) == one


def test_every_condition_can_be_written() -> None:
    text = (
        "loss=5%,burst=4,delay=25ms,jitter=10ms,duplicate=1%,reorder=2%,reorder_by=7.5ms,rate=10mbit,"
        "queue=64KiB,partition=10s+5s,partition=60s+500ms,seed=7"
    )
    parsed = NetworkConditions.parse(text)
    assert parsed == NetworkConditions(
        loss=0.05,
        burst=4,
        delay=0.025,
        jitter=0.01,
        duplicate=0.01,
        reorder=0.02,
        reorder_by=0.0075,
        rate=1_250_000,
        queue=65_536,
        partition=(Partition(10, 5), Partition(60, 0.5)),
        seed=7,
    )
    assert str(parsed) == text


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", NetworkConditions()),
        (" loss = 0.5% , delay=1.5s ", NetworkConditions(loss=0.005, delay=1.5)),
        ("delay=250us", NetworkConditions(delay=0.00025)),
        ("rate=64kbit", NetworkConditions(rate=8_000)),
        ("rate=1gbit,queue=1MB", NetworkConditions(rate=125_000_000, queue=1_000_000)),
        ("rate=800bit", NetworkConditions(rate=100)),
        ("queue=128KiB", NetworkConditions(queue=DEFAULT_QUEUE_BYTES)),
    ],
)
def test_units_mean_what_they_say(text: str, means: NetworkConditions) -> None:
    assert NetworkConditions.parse(text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("los=5%", "'los=5%' is no condition=value; conditions: loss, burst, delay"),
        ("loss", "'loss' is no condition=value"),
        ("loss=5%,,delay=1s", "'' is no condition=value"),
        ("loss=5", "loss=5: write loss=5%"),
        ("loss=-5%", "write loss=5%"),
        ("delay=25", "delay=25: write delay=25ms .units: us, ms, s."),
        ("delay=1e3s", "write delay=25ms"),
        ("rate=10mb", "write rate=10mbit .units: bit, kbit, mbit, gbit."),
        ("queue=64kb", "write queue=64KiB"),
        ("burst=4x", "write burst=4"),
        ("seed=-1", "a whole number, seed=7"),
        ("seed=²", "a whole number"),
        ("partition=10s", "write its start and its length, partition=10s[+]5s"),
        ("partition=10s+5", "write partition=25ms"),
        ("delay=1s,delay=2s", "delay is there twice"),
        ("loss=101%", "loss is 0 to 100 %"),
        ("loss=90%,burst=4", "a loss of 0.9 needs a burst of at least 9"),
        ("burst=0.5", "burst is a number of datagrams from 1"),
        ("delay=100000s", "delay is 0 s to 86400 s"),
        ("rate=7bit", "at least 8 bit a second"),
        ("queue=1499B", "at least 1500 bytes"),
        ("partition=10s+0s", "takes time"),
        ("partition=86400s+1s", "between 0 s and 86400 s"),
    ],
)
def test_what_cannot_be_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        NetworkConditions.parse(text)


@given(st.text(max_size=60) | st.from_regex(r"[a-z_]{0,10}=[0-9.]{0,5}[a-zA-Z%+]{0,4}", fullmatch=True))
def test_any_other_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        NetworkConditions.parse(text)


@pytest.mark.parametrize(
    "bad",
    [
        {"loss": 1.1},
        {"loss": float("nan")},
        {"duplicate": -0.1},
        {"delay": -1},
        {"jitter": float("inf")},
        {"rate": float("inf")},
        {"seed": -1},
        {"partition": (Partition(-1, 1),)},
    ],
)
def test_impossible_conditions_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        NetworkConditions(**bad)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import LimitExceededError
from bridge.udp.frames import (
    MAX_STATE_BYTES,
)
from bridge.udp.latest import LatestReceiver, LatestSender


@given(st.permutations(range(20)))
def test_only_states_newer_than_all_before_are_accepted(order: list[int]) -> None:
    receiver = LatestReceiver()
    newest = -1
    for number in order:
        assert receiver.accept(0, number) == (number > newest)
        newest = max(newest, number)


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, (1 << 31) - 1))
def test_numbers_wrap_by_serial_arithmetic(start: int, step: int) -> None:
    receiver = LatestReceiver()
    receiver.accept(0, start)
    after = (start + step) & 0xFFFFFFFF
    assert receiver.accept(0, after)
    assert not receiver.accept(0, start)


def test_streams_do_not_hinder_each_other() -> None:
    receiver = LatestReceiver()
    assert receiver.accept(1, 100)
    assert receiver.accept(2, 5)


def test_a_newer_state_supersedes_the_unsent_one() -> None:
    sender = LatestSender(max_streams=2)
    sender.put(1, b"old")
    number = sender.put(1, b"new")
    assert [(state.number, state.payload) for state in sender.pending.values()] == [(number, b"new")]
    assert sender.superseded == 1


@pytest.mark.parametrize(("size", "fits"), [(MAX_STATE_BYTES, True), (MAX_STATE_BYTES + 1, False)])
def test_a_state_has_its_largest_size(size: int, fits: bool) -> None:
    sender = LatestSender(max_streams=1)
    if fits:
        sender.put(0, bytes(size))
    else:
        with pytest.raises(LimitExceededError):
            sender.put(0, bytes(size))


@pytest.mark.parametrize("stream", [-1, 10])
def test_a_stream_out_of_bounds_is_refused(stream: int) -> None:
    with pytest.raises(LimitExceededError):
        LatestSender(max_streams=10).put(stream, b"")


def test_a_batch_reaches_no_further_than_the_last_stream() -> None:
    sender = LatestSender(max_streams=3)
    sender.put(1, np.zeros((2, 5), np.uint8))
    with pytest.raises(LimitExceededError):
        sender.put(2, np.zeros((2, 5), np.uint8))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=20))
def test_a_run_of_batches_is_accepted_as_its_states_would_be_one_by_one(
    batches: list[tuple[int, int, int]],
) -> None:
    together, alone = LatestReceiver(), LatestReceiver()
    states = [(first + n, number) for first, count, number in batches for n in range(count)]
    streams = np.array([stream for stream, _ in states], dtype=np.intp)
    numbers = np.array([number for _, number in states], dtype=np.int64)
    newer = together.accept_run(streams, numbers)
    assert newer.tolist() == [alone.accept(stream, number) for stream, number in states]


@given(bits=st.integers(1, 1 << 40))
def test_of_a_batch_the_rows_that_arrived_are_acknowledged(bits: int) -> None:
    sender = LatestSender(max_streams=60)
    sender.acknowledge_run(3, 9, bits)
    assert [sender.acknowledged(3 + n) for n in range(41)] == [
        9 if bits >> n & 1 else None for n in range(41)
    ]


def test_a_batch_of_which_a_part_was_sent_lets_the_others_go_first() -> None:
    sender = LatestSender(max_streams=64)
    served = []
    for _ in range(4):
        # More than goes comes anew each time.
        sender.put(0, np.zeros((8, 4), np.uint8))
        sender.put(20, b"alone")
        sender.put(30, np.zeros((8, 4), np.uint8))
        first = next(iter(sender.pending.values()))
        count = 1 if isinstance(first.payload, bytes) else len(first.take_rows(2)[1])
        sender.sent(first, count)
        served.append(first.stream)
    assert served == [0, 20, 30, 0]


def test_acknowledgements_out_of_order_leave_the_newest() -> None:
    sender = LatestSender(max_streams=1)
    sender.acknowledge(0, 5)
    sender.acknowledge(0, 3)
    assert sender.acknowledged(0) == 5


def test_what_is_dropped_is_neither_pending_nor_waiting_and_numbers_go_on() -> None:
    sender = LatestSender(max_streams=8)
    sender.put(0, b"one")
    assert sender.put(1, b"two") == 1
    sender.drop()
    assert (sender.pending, sender.waiting, sender.superseded) == ({}, 0, 2)
    assert sender.put(0, b"three") == 2

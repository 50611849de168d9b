from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bridge.udp.events import StateReceived, StatesReceived
from bridge.udp.frames import (
    Ping,
    State,
    encode_frame,
)
from bridge.udp.state_inbox import StateInbox
from bridge.udp.statistics import DropReason
from bridge.udp.wire import (
    NO_ECHO,
    PROLOGUE,
)
from bridge.udp.workspace import Matrix


def inbox(*, maximum: int = 100) -> tuple[StateInbox, Counter[DropReason]]:
    drops: Counter[DropReason] = Counter()
    made = StateInbox(
        peer="b",
        session_id=bytes(16),
        max_streams=8,
        maximum=maximum,
        verifier=None,
        keep_evidence=False,
        drops=drops,
    )
    return made, drops


def plaintexts(*states: State) -> Matrix:
    rows = [PROLOGUE.pack(1, 0, NO_ECHO) + encode_frame(state) for state in states]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1)


def test_a_run_whose_datagrams_hold_one_state_each_is_known_by_its_bytes() -> None:
    box, _ = inbox()
    rows = plaintexts(State(0, 0, b"abc"), State(1, 0, b"def"))
    assert box.state_end(rows) == rows.shape[1]
    other = rows.copy()
    other[1, PROLOGUE.size] = encode_frame(Ping())[0]
    assert box.state_end(other) is None
    shorter = rows.copy()
    shorter[1, PROLOGUE.size + 8] = 2
    assert box.state_end(shorter) is None
    assert box.state_end(rows[:, : PROLOGUE.size + 3]) is None


def test_of_a_run_only_what_is_newer_goes_on() -> None:
    box, drops = inbox()
    box.accept(1, 5, b"new", 0, None, now=1.0)
    rows = plaintexts(State(0, 4, b"abc"), State(1, 4, b"def"), State(2, 4, b"ghi"))
    box.accept_run(np.arange(3, dtype=np.uint64), rows, rows.shape[1], now=1.0)
    assert isinstance(box.pop(), StateReceived)
    run = box.pop()
    assert isinstance(run, StatesReceived)
    assert [(state.stream, state.payload) for state in run.states()] == [(0, b"abc"), (2, b"ghi")]
    assert drops == {DropReason.STALE_STATE: 1}
    assert box.pop() is None


@pytest.mark.parametrize("stream", [8, 0xFFFF])
def test_streams_beyond_those_allowed_are_counted(stream: int) -> None:
    box, drops = inbox()
    rows = plaintexts(State(0, 0, b"a"), State(stream, 0, b"b"))
    box.accept_run(np.arange(2, dtype=np.uint64), rows, rows.shape[1], now=1.0)
    box.accept(stream, 0, b"b", 0, None, now=1.0)
    assert drops == {DropReason.STATE_STREAMS: 2}
    run = box.pop()
    assert isinstance(run, StatesReceived)
    assert [(state.stream, state.payload) for state in run.states()] == [(0, b"a")]
    assert box.pop() is None


def test_what_nobody_takes_is_bounded_in_states_not_in_events() -> None:
    box, drops = inbox(maximum=4)
    for number in range(3):
        rows = plaintexts(*(State(stream, number, b"x") for stream in range(3)))
        box.accept_run(np.arange(3, dtype=np.uint64), rows, rows.shape[1], now=1.0)
    kept = box.pop()
    assert isinstance(kept, StatesReceived)
    assert set(kept.numbers.tolist()) == {2}
    assert box.pop() is None
    assert drops == {DropReason.STATE_OVERFLOW: 6}


def test_without_proofs_every_state_is_believed() -> None:
    box, _ = inbox()
    assert box.prove(0, b"", Ping(), now=1.0) == (True, None)

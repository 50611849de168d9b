from __future__ import annotations

import logging

import pytest

from bridge.authority import Message
from bridge.sim.traces import MAX_KEPT, Traces


def message(number: int) -> Message:
    return Message(
        trace=number.to_bytes(16, "big"), hop=1, kind="grant", sender="home", receiver="sim1", at_ns=number
    )


def test_the_newest_messages_are_kept_and_all_are_counted() -> None:
    traces = Traces("sim1")
    for number in range(MAX_KEPT + 3):
        traces.add(message(number))
    assert [m.at_ns for m in traces] == list(range(3, MAX_KEPT + 3))
    assert (len(traces), traces.crossed) == (MAX_KEPT, MAX_KEPT + 3)
    assert traces.kinds == {"grant": MAX_KEPT + 3}


def test_all_are_kept_where_the_whole_history_is_wanted() -> None:
    traces = Traces("sim1", keep_history=True)
    for number in range(MAX_KEPT + 3):
        traces.add(message(number))
    assert len(traces) == traces.crossed == MAX_KEPT + 3


def test_each_is_a_line_of_the_log_that_names_its_transfer(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces("sim1")
    with caplog.at_level(logging.WARNING, logger="bridge.sim"):
        traces.add(message(1))
    assert caplog.records == []
    with caplog.at_level(logging.INFO, logger="bridge.sim"):
        traces.add(message(2))
    (line,) = caplog.records
    assert line.getMessage() == "grant from home to sim1"
    fields = line.__dict__
    assert (fields["trace"], fields["hop"], fields["server"]) == (f"{2:032x}", 1, "sim1")

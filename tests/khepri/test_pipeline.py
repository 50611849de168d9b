from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, OutcomeUnknownError, ProtocolError
from bridge.etf import Atom
from bridge.khepri import Delete, HasData, NodeExists, Outcome, Put, TooLargeError
from bridge.khepri.pipeline import MAX_PIPELINE, outcomes, wire_pipeline
from tests.support.scripted_caller import ok, refusal


def test_writes_are_sent_with_their_positions() -> None:
    assert wire_pipeline([Put("/:a", 1), Delete(["b"])]) == [
        (0, (Atom("put"), b"/:a", 1)),
        (1, (Atom("delete"), [b"b"])),
    ]


def test_outcomes_come_in_any_order() -> None:
    one, two, three = outcomes(
        [(2, refusal("timeout")), (0, ok({})), (1, refusal("too_large", message=b"no"))], 3
    )
    assert one == Outcome()
    assert one.applied
    one.check()
    assert isinstance(two.error, TooLargeError)
    assert not two.applied
    with pytest.raises(OutcomeUnknownError):
        three.check()


@pytest.mark.parametrize("term", [[], [(0, ok({}))], [(0, ok({})), (0, ok({}))], 7, [7], [(0, 7), (1, 7)]])
def test_an_outcome_that_is_missing_breaks_the_protocol(term: Any) -> None:
    with pytest.raises(ProtocolError):
        outcomes(term, 2)


@pytest.mark.parametrize(
    "writes",
    [
        [],
        [Delete("/:a")] * (MAX_PIPELINE + 1),
        [Delete(["a", HasData()])],
        [Put("/:a", 1, {"/:b": NodeExists()})],
        [(Atom("delete"), b"/:a")],
    ],
)
def test_only_plain_writes_are_sent_together(writes: Any) -> None:
    with pytest.raises(ConfigurationError, match="pipeline"):
        wire_pipeline(writes)

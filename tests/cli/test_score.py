"""The object and the table at the end of a replay."""

from __future__ import annotations

import json

from bridge.authority import Message
from bridge.cli.score import result_object, result_table
from bridge.sim.match import generate_match
from bridge.sim.replay import Latencies, Outcome
from tests.support.health import member_health

KEYS = [
    *("passes", "interceptions", "transfers", "messages_per_transfer", "p50_ms", "p95_ms", "p99_ms"),
    *("late_refused", "double_holders", "lost_updates", "members", "leader"),
]
HEALTH = member_health(members=("hs1@h", "hs2@h", "hs3@h"), leader="hs2@h")
MATCH = generate_match(passes=3, seconds=1.0, seed=1)


def outcome(samples: list[float]) -> Outcome:
    kinds = ("push", "answer", "grant", "accepted")
    return Outcome(
        passes=3,
        interceptions=1,
        transfers=2,
        messages_per_transfer=4.0,
        passes_ms=Latencies.of(samples),
        interceptions_ms=Latencies.of([]),
        late_refused=5,
        double_holders=0,
        lost_updates=0,
        violations=(),
        entries=(),
        messages=tuple(
            Message(trace=bytes(16), hop=hop, kind=kind, sender="a", receiver="b", at_ns=hop)
            for hop, kind in zip((0, 1, 1, 2), kinds, strict=True)
        ),
    )


def test_the_object_has_the_keys_that_scripts_read() -> None:
    result = result_object(outcome([1.0, 2.0, 3.0]), HEALTH, match=MATCH, seconds=1.5)
    assert set(KEYS) <= set(result)
    assert (result["messages_per_transfer"], result["members"], result["leader"]) == (4, 3, "hs2@h")
    assert result["p50_ms"] == 2.0
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_a_transfer_there_is_no_latency_and_no_invalid_json() -> None:
    result = result_object(outcome([]), HEALTH, match=MATCH, seconds=1.5)
    assert result["p50_ms"] is None
    assert json.dumps(result, allow_nan=False)
    assert "none crossed" in result_table(outcome([]), HEALTH, match=MATCH, seconds=1.5)


def test_the_table_calls_a_generated_match_generated_and_holds_counts_against_the_formula() -> None:
    text = result_table(outcome([1.0]), HEALTH, match=MATCH, seconds=1.5)
    assert "(generated match)" in text
    assert "4.00 (R0-29 says 4)" in text
    assert "1 transfers, 2.00 hops to authority (2)" in text
    assert "3 members, leader hs2@h" in text

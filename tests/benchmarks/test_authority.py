"""The result of the benchmark of authority."""

from __future__ import annotations

from benchmarks.authority import GOALS, PARTS, result


def test_what_has_a_goal_stands_at_the_top_and_what_was_not_measured_is_none() -> None:
    found = result({"lease": {"lease_cpu_share": 0.1, "sessions": 9}, "cuts": {"cut_outage_worst_ms": 900.0}})
    assert list(found)[1:-1] == list(GOALS)
    assert (found["lease_cpu_share"], found["cut_outage_worst_ms"], found["case2_p50_ms"]) == (
        0.1,
        900.0,
        None,
    )
    assert found["parts"]["lease"]["sessions"] == 9
    assert found["parts"].keys() <= PARTS.keys()

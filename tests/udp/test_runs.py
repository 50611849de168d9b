from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.runs import Runs, add_run, touches

spans = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))


@given(st.lists(spans, max_size=20))
def test_runs_hold_what_was_added_and_nothing_else(added: list[tuple[int, int]]) -> None:
    runs: Runs = []
    expected: set[int] = set()
    for start, end in added:
        add_run(runs, start, end)
        expected |= set(range(start, end))
    assert [offset for start, end in runs for offset in range(start, end)] == sorted(expected)
    assert all(end < start for (_, end), (start, _) in pairwise(runs))


@given(st.lists(spans, max_size=10), spans)
def test_a_run_that_touches_makes_the_list_no_longer(
    added: list[tuple[int, int]], last: tuple[int, int]
) -> None:
    runs: Runs = []
    for start, end in added:
        add_run(runs, start, end)
    before, expected = len(runs), touches(runs, *last)
    add_run(runs, *last)
    assert expected is (len(runs) <= before)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.timers import Timers


class Clock:
    """An owner whose timer the test sets."""

    def __init__(self, when: float | None) -> None:
        self.when = when

    def get_timer(self) -> float | None:
        return self.when


def test_a_timer_that_moved_back_is_looked_at_early_and_not_due() -> None:
    timers: Timers[Clock] = Timers()
    clock = Clock(1.0)
    timers.arm(clock)
    clock.when = 5.0
    timers.arm(clock)
    assert timers.first() == 1.0
    assert list(timers.due(now=2.0)) == []
    assert timers.first() == 5.0
    assert list(timers.due(now=5.0)) == [clock]
    assert timers.first() is None


def test_a_timer_that_came_nearer_is_due_once() -> None:
    timers: Timers[Clock] = Timers()
    clock = Clock(5.0)
    timers.arm(clock)
    clock.when = 1.0
    timers.arm(clock)
    assert timers.first() == 1.0
    assert list(timers.due(now=9.0)) == [clock]


def test_who_is_forgotten_or_wants_nothing_is_not_called() -> None:
    timers: Timers[Clock] = Timers()
    gone, never = Clock(1.0), Clock(None)
    timers.arm(gone)
    timers.arm(never)
    timers.forget(gone)
    assert timers.first() is None
    assert list(timers.due(now=9.0)) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 20))), max_size=40))
def test_whoever_is_armed_at_each_change_is_called_in_time(changes: list[tuple[int, int | None]]) -> None:
    timers: Timers[Clock] = Timers()
    clocks = [Clock(None) for _ in range(5)]
    for now, (which, when) in enumerate(changes):
        clock = clocks[which]
        clock.when = when
        timers.arm(clock)
        first = timers.first()
        wanted = [one for one in clocks if one.when is not None]
        assert all(first is not None and first <= one.when for one in wanted if one.when is not None)
        due = list(timers.due(now=now))
        assert set(due) == {one for one in wanted if one.when is not None and one.when <= now}
        assert len(due) == len(set(due))
        for one in due:
            one.when = None

"""Sorted disjoint half-open runs of offsets, a plain list of pairs: what arrived, or is to be resent."""

from __future__ import annotations

from bisect import bisect_left

Runs = list[tuple[int, int]]
"""``(start, end)`` with ``start < end``, in order, no two touching."""


def add_run(runs: Runs, start: int, end: int) -> None:
    """Add ``start … end - 1``, joined with all it overlaps or touches."""
    first = bisect_left(runs, start, key=lambda run: run[1])
    last = first
    while last < len(runs) and runs[last][0] <= end:
        start = min(start, runs[last][0])
        end = max(end, runs[last][1])
        last += 1
    runs[first:last] = [(start, end)]


def touches(runs: Runs, start: int, end: int) -> bool:
    """Whether :meth:`add_run` would not make the list longer."""
    first = bisect_left(runs, start, key=lambda run: run[1])
    return first < len(runs) and runs[first][0] <= end

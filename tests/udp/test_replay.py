from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.udp.replay import WINDOW, ReplayWindow


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=300))
def test_each_sequence_is_fresh_once_and_only_within_the_window(sequences: list[int]) -> None:
    """R0-24: replay refused."""
    window = ReplayWindow()
    seen: set[int] = set()
    for sequence in sequences:
        expected = sequence not in seen and (not seen or sequence > max(seen) - WINDOW)
        assert window.is_fresh(sequence) == expected
        if expected:
            window.mark(sequence)
            seen.add(sequence)


@given(st.sets(st.integers(0, 400), min_size=1))
def test_the_acknowledgement_names_exactly_what_was_marked(sequences: set[int]) -> None:
    window = ReplayWindow()
    for sequence in sequences:
        if window.is_fresh(sequence):
            window.mark(sequence)
    largest, bits = window.acknowledgement()
    named = {largest} | {largest - 1 - n for n in range(bits.bit_length()) if bits >> n & 1}
    assert named == sequences


def test_the_window_ends_where_it_says() -> None:
    window = ReplayWindow()
    window.mark(WINDOW)
    assert window.is_fresh(1)
    assert not window.is_fresh(0)


def test_a_leap_across_64_bits_forgets_what_came_before() -> None:
    window = ReplayWindow()
    window.mark(0)
    window.mark((1 << 64) - 1)
    assert not window.is_fresh(0)
    assert not window.is_fresh((1 << 64) - 1)
    assert window.acknowledgement() == ((1 << 64) - 1, 0)


def test_the_window_is_at_least_256() -> None:
    assert WINDOW >= 256


@given(before=st.sets(st.integers(0, 300)), ahead=st.sets(st.integers(1, 2 * WINDOW), min_size=1))
def test_a_run_is_marked_as_its_sequences_would_be_one_by_one(before: set[int], ahead: set[int]) -> None:
    together, alone = ReplayWindow(), ReplayWindow()
    for sequence in sorted(before):
        together.mark(sequence)
        alone.mark(sequence)
    last = together.largest + max(ahead)
    run = [together.largest + step for step in sorted(ahead) if last - together.largest - step < WINDOW]
    together.mark_run(last, sum(1 << (last - sequence) for sequence in run))
    for sequence in run:
        alone.mark(sequence)
    assert together.acknowledgement() == alone.acknowledgement()

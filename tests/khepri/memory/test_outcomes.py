from __future__ import annotations

from typing import Any

import pytest

from bridge.khepri.memory.outcomes import KEPT_RESULTS, MAX_CLIENTS, Outcomes
from bridge.khepri.memory.requests import RefusedError


class Counter:
    """Says how often it was executed."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> int:
        self.value += 1
        return self.value


def test_a_repeat_gets_the_stored_result() -> None:
    outcomes, counter = Outcomes(), Counter()
    assert [outcomes.once((b"me", 1, 1, 0), counter) for _ in range(3)] == [1, 1, 1]
    assert outcomes.once((b"you", 1, 1, 0), counter) == 2


def test_what_was_forgotten_is_not_executed_again() -> None:
    outcomes, counter = Outcomes(), Counter()
    outcomes.once((b"me", 1, 1, 0), counter)
    outcomes.once((b"me", 1, 2, 1), counter)
    with pytest.raises(RefusedError, match="forgotten"):
        outcomes.once((b"me", 1, 1, 0), counter)
    assert counter.value == 2


def test_the_last_results_are_kept() -> None:
    outcomes, counter = Outcomes(), Counter()
    for sequence in range(1, KEPT_RESULTS + 2):
        outcomes.once((b"me", 1, sequence, 0), counter)
    assert outcomes.once((b"me", 1, 2, 0), counter) == 2
    with pytest.raises(RefusedError):
        outcomes.once((b"me", 1, 1, 0), counter)


def test_an_older_incarnation_is_refused_and_a_newer_one_begins_anew() -> None:
    outcomes, counter = Outcomes(), Counter()
    outcomes.once((b"me", 2, 1, 0), counter)
    with pytest.raises(RefusedError, match="newer incarnation"):
        outcomes.once((b"me", 1, 2, 0), counter)
    assert outcomes.once((b"me", 3, 1, 0), counter) == 2


def test_the_clients_unused_for_longest_are_forgotten() -> None:
    outcomes, counter = Outcomes(), Counter()
    for number in range(MAX_CLIENTS):
        outcomes.once((f"{number}".encode(), 1, 1, 0), counter)
    outcomes.once((b"0", 1, 2, 0), counter)
    outcomes.once((b"one more", 1, 1, 0), counter)
    assert outcomes.once((b"0", 1, 1, 0), counter) == 1
    assert outcomes.once((b"1", 1, 1, 0), counter) == MAX_CLIENTS + 3


def test_ids_of_another_purpose_do_nothing() -> None:
    outcomes, counter = Outcomes(), Counter()
    assert outcomes.once((b"a", 1, 1, 0, b"one"), counter) == 1
    for sequence in (1, 2):
        with pytest.raises(RefusedError) as caught:
            outcomes.once((b"a", 1, sequence, 0, b"another"), counter)
        assert caught.value.reason == "other_purpose"
    assert outcomes.once((b"a", 1, 1, 0, b"one"), counter) == 1
    assert outcomes.once((b"a", 1, 2, 0), counter) == 2
    assert outcomes.once((b"a", 2, 3, 0, b"another"), counter) == 3


@pytest.mark.parametrize(
    "operation",
    [(b"", 1, 1, 0), (b"a", 0, 1, 0), (b"a", 1, 1, 1), (b"a", 1, 2**64, 0), (b"a", 1, 1, 0, b""), 1],
)
def test_what_is_no_operation_id_is_refused(operation: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        Outcomes().once(operation, Counter())
    assert caught.value.reason == "invalid_options"

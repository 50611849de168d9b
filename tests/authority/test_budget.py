import pytest

from bridge.authority.budget import budgets, majority, mean_hops, worst_case
from bridge.errors import ConfigurationError


def test_a_commit_needs_more_than_half() -> None:
    """R0-36: ceil((N + 1) / 2)."""
    assert [majority(members) for members in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    with pytest.raises(ConfigurationError):
        majority(0)


def test_the_bound_is_a_commit_between_two_averages() -> None:
    """R0-38."""
    assert worst_case(1.0, 3) == 4.0
    assert worst_case(0.5, 5) == 4.0


def test_hops_are_averaged_over_pairs_of_servers_and_over_pairs_of_players() -> None:
    """R0-37."""
    assert mean_hops({}, 1) == (0.0, 0.0)
    assert mean_hops({("a", "b"): 1, ("b", "a"): 1}, 2) == (1.0, 0.5)
    with pytest.raises(ConfigurationError, match="2 pairs"):
        mean_hops({("a", "b"): 1}, 2)


def test_the_budget_table_is_that_of_the_requirement_and_the_same_each_time() -> None:
    """R0-39."""
    rows = budgets()
    assert [(row.exchange, row.hops, row.per_hop_ms) for row in rows if row.target_ms == 600] == [
        ("establishment", 6, 100.0),
        ("switching", 4, 150.0),
        ("real-time", 2, 300.0),
    ]
    assert all(0.0 < row.within < 1.0 for row in rows)
    assert all(row.p50_ms >= 2 * row.hops for row in rows), "each hop takes 2 ms or more"
    assert budgets() == rows

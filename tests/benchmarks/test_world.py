"""Each part of the benchmark of a world, small, on real parts."""

from __future__ import annotations

import pytest

from benchmarks.world.balance import measure_balance
from benchmarks.world.crowd import Plan, measure_crowd
from benchmarks.world.edit import measure_edit
from benchmarks.world.load import measure_load
from bridge.cluster.local import LocalCluster
from bridge.replication import COMPACT, records_per_payload


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_world_made_at_one_server_is_known_to_another_and_to_one_that_comes_later(
    own_cluster: LocalCluster,
) -> None:
    """R0-52: records and states of all of it."""
    measured = await measure_load(own_cluster, 300)
    assert measured["entities"] == 300
    assert 0 < measured["made_s"] <= measured["seconds"]
    assert measured["records_s"] <= measured["seconds"]
    assert measured["join"]["seconds"] > 0
    assert measured["join"]["longest_turn_ms"] > 0
    assert measured["sessions_lost"] == 0


@pytest.mark.erlang
@pytest.mark.slow
async def test_an_imported_object_is_edited_live_by_a_second_party(own_cluster: LocalCluster) -> None:
    """R0-52: after it asked for it, and directly while the importer's server goes on simulating it."""
    measured = await measure_edit(own_cluster, 8)
    for way in ("placed", "direct"):
        assert 0 < measured[way]["p50_ms"] <= measured[way]["worst_ms"]
    assert measured["direct"]["refused"] == 0


@pytest.mark.erlang
@pytest.mark.slow
async def test_a_server_that_holds_twice_what_it_may_gives_the_excess_away_for_good(
    own_cluster: LocalCluster,
) -> None:
    """R0-44."""
    measured = await measure_balance(own_cluster, 10)
    assert (measured["held_after"], measured["held_after_by_the_other"]) == (8, 12)
    assert (measured["given"], measured["failed"], measured["given_back"]) == (12, 0, 0)


@pytest.mark.slow
def test_every_player_of_a_crowd_is_told_of_the_nearest_in_full_and_of_some_far_ones_in_turn() -> None:
    """R0-A3: all that is sent arrives, and what crosses is what the layouts say."""
    measured = measure_crowd(entities=3_000, players=20, near=100, ticks=6)
    assert measured["loss"] == 0
    assert measured["states_held_back"] == 0
    assert measured["near"]["entities"] == 100
    assert measured["far"]["kbit_s"] <= 100
    told = measured["near"]["kbit_s"] + measured["far"]["kbit_s"]
    # Beside the states there are acknowledgements of what players say.
    assert told <= measured["kbit_s_counted"] < 1.05 * told
    assert all(steps > 0 for steps in measured["steps_ms"].values())


@pytest.mark.parametrize("rate_hz", [10, 20, 60])
def test_what_far_entities_take_is_within_the_budget_at_any_rate(rate_hz: int) -> None:
    """R0-A3."""
    plan = Plan.of(rate_hz)
    assert plan.far == plan.far_per_tick * plan.cycle
    assert plan.cycle * 2 == rate_hz
    bytes_per_second = rate_hz * (plan.far_per_tick * 20 + 8 + 76)
    assert bytes_per_second * 8 <= 100_000
    is_full = plan.far_per_tick == records_per_payload(COMPACT)
    assert is_full or bytes_per_second * 8 + rate_hz * 20 * 8 > 100_000

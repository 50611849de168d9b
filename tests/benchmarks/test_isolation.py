"""The benchmark of data beside metadata measures each alone and beside the other."""

from __future__ import annotations

import pytest

from benchmarks.isolation import measure
from bridge.cluster.local import LocalCluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_data_and_metadata_both_go_on_while_the_other_is_at_its_most(own_cluster: LocalCluster) -> None:
    """R0-46."""
    measured = await measure(own_cluster, rounds=1, seconds=0.2)
    for name in ("put_p50", "put_p99", "trip_p50", "trip_p99", "data_rate"):
        assert measured[f"{name}_x"] > 0
    assert measured["data_rate_beside"] > 0
    assert measured["put_p50_ms_beside"] > 0

"""The benchmark of throughput against the number of servers measures every kind of work."""

from __future__ import annotations

import pytest

from benchmarks.scale import homeservers
from benchmarks.transfers import whole
from bridge.cluster.local import LocalCluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_each_kind_of_work_is_done_on_a_cluster(own_cluster: LocalCluster) -> None:
    """R0-43."""
    measured = await homeservers(own_cluster, rounds=1, seconds=0.2, calls=128)
    assert measured.keys() == {"puts", "gets", "transfers"}
    assert min(measured.values()) > 0
    assert await whole(own_cluster, turns=1, servers=3) > 0

"""Members die under concurrent writers; nothing acknowledged is lost, nothing is applied twice."""

from __future__ import annotations

import pytest

from bridge.cluster.local import LocalCluster
from tests.support.cluster import hidden_node
from tests.support.kills import run_kills

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_three_kills_under_64_writers_lose_nothing_and_double_nothing(
    own_cluster: LocalCluster,
) -> None:
    """``scripts/bench kills`` does it with 24."""
    async with hidden_node(own_cluster) as node:
        toll = await run_kills(own_cluster, node, kills=3, writers=64)
    assert (toll.kills, toll.lost, toll.doubled) == (3, 0, 0)
    assert toll.leaders
    assert toll.connected
    assert toll.writes > 64

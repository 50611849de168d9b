"""Case 1 as ``khepri-bridge trace`` performs it: see ``test_trace.py`` for its counts."""

from __future__ import annotations

import pytest

from bridge.authority import CASES, transfers
from bridge.cli.abroad import AbroadCase, can_perform, second_instance
from bridge.cluster.local import LocalCluster
from tests.support.cluster import fresh
from tests.support.simulation import simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_an_entity_goes_to_another_instance_and_back_so_often(cluster: LocalCluster) -> None:
    """R0-28."""
    assert can_perform()
    case = AbroadCase()
    with second_instance() as other:
        async with simulation(cluster, fresh("sim")) as giver:
            await case.perform(cluster.directory, giver.server, other, 2)
            crossed = transfers(case.messages + giver.server.transfers.messages)
    moved = [transfer for transfer in crossed if transfer.case == "push_abroad"]
    assert [len(transfer.messages) for transfer in moved] == [6] * 4
    assert {transfer.critical_path for transfer in moved} == {CASES["push_abroad"].path} == {3}
    assert len(case.took_ms) == 2

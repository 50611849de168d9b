"""A short run on processes of this host: kills and stops only, no containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from tests.nemesis.run import Run
from tests.nemesis.schedule import make_schedule
from tests.nemesis.stages import LocalStage

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(240)]

SEED = 172
SECONDS = 25.0


async def test_killed_and_stopped_processes_break_no_promise(tmp_path: Path) -> None:
    """R0-41, R0-45, R0-48: homeservers, control planes and data planes, one at a time and all at once."""
    with LocalCluster(LocalClusterConfig(nodes=3)) as cluster:
        stage = LocalStage(cluster, tmp_path)
        schedule = make_schedule(SEED, SECONDS, stage.kinds)
        outcome = await Run(stage, schedule, print).play()
    assert outcome.violations == []
    assert outcome.undecided == []
    assert outcome.granted > 20
    assert outcome.acts > 20
    assert outcome.deleted > 0

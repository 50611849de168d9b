"""A short run of the nemesis on containers, with every kind of fault; hours of it are `scripts/nemesis`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nemesis.containers import ContainerStage
from tests.nemesis.run import Run
from tests.nemesis.schedule import make_schedule
from tests.support.docker import docker_client, homeserver_image, simulation_image

__all__ = ["docker_client", "homeserver_image", "simulation_image"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(420)]

SEED = 1
SECONDS = 60.0


async def test_no_fault_breaks_a_promise(
    docker_client: Any, homeserver_image: str, simulation_image: str, tmp_path: Path
) -> None:
    """R0-41, R0-45, R0-48: kills, stops, cuts whole, one way and partial, a full disk, a clock that jumps."""
    with ContainerStage(docker_client, homeserver_image, simulation_image, tmp_path) as stage:
        outcome = await Run(stage, make_schedule(SEED, SECONDS), print).play()
        stage.keep_logs(tmp_path)
    assert outcome.violations == []
    assert outcome.undecided == []
    assert outcome.granted > 50
    assert outcome.acts > 50

"""``khepri-bridge homeserver``."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli.app import build_app
from bridge.cluster.local import LocalCluster
from tests.support.cluster import erlang
from tests.support.service import service_process


def test_beyond_this_machine_the_service_wants_tls_before_it_looks_for_a_cluster() -> None:
    result = CliRunner().invoke(build_app(), ["homeserver", "serve", "--listen", "0.0.0.0:8080"])
    assert result.exit_code == 1
    assert "--https-cert" in str(result.exception)


@erlang
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_in_order(
    cluster: LocalCluster, tmp_path: Path, number: signal.Signals
) -> None:
    async with service_process(cluster, tmp_path) as (url, process):
        assert url.startswith("http://127.0.0.1:")
        process.send_signal(number)
        async with asyncio.timeout(30):
            assert await process.wait() == 0

"""Service processes as an operator starts them, and tokens that they believe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.cluster.local import LocalCluster
from bridge.khepri import Khepri
from bridge.registry import Credentials, KeyState
from tests.support.credentials import ISSUER

ROOT = Path(__file__).parents[2]


async def believe_test_issuer(store: Khepri) -> None:
    """Publish the key of the tests' issuer as one of the instance's."""
    await Credentials(store).publish_key(ISSUER.public(), KeyState.CURRENT)


@contextlib.asynccontextmanager
async def service_process(
    cluster: LocalCluster, directory: Path, *options: str
) -> AsyncIterator[tuple[str, Process]]:
    """``khepri-bridge homeserver serve`` at a free port; killed at last. Yields its URL, and the process."""
    directory.mkdir(exist_ok=True)
    cookie = directory / "cookie"
    cookie.write_text(cluster.cookie)
    members = [word for member in cluster.members for word in ("--member", member)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bridge.cli", "homeserver", "serve", "--listen", "127.0.0.1:0", "--json", *members),
        *("--cookie-file", str(cookie), "--store", cluster.store, "--epmd-port", str(cluster.epmd_port)),
        *options,
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(directory)},
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        yield json.loads(line)["url"], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

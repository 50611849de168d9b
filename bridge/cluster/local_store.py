"""The store of a cluster that runs on this machine (``khepri-bridge up``), with nothing to look up for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.cluster.directory import read_cookie
from bridge.cluster.epmd import HOST
from bridge.cluster.running import running_cluster
from bridge.cluster.state import default_directory
from bridge.khepri import Khepri, KhepriConfig
from bridge.node import Gateway, HiddenNode, NodeConfig


@asynccontextmanager
async def local_store(
    name: str, *, cluster: str | Path = "local", config: KhepriConfig | None = None
) -> AsyncIterator[Khepri]:
    """A client of a cluster of this machine, whose cookie and port mapper its state tells.

    ::

        async with local_store("shop@127.0.0.1") as store:
            await store.put("/:stock/wood", 3)

    Without asyncio: ``blocking(lambda: local_store("shop@127.0.0.1"))`` (``bridge.khepri.sync``).

    Args:
        name: of this program's hidden node, ``name@127.0.0.1``. Keep it from run to run, and let no two
            programs have the same at once: each new one is an atom in every member for ever.
        cluster: name that it was started with, or its directory (``up --name``, ``up --dir``).
        config: deadlines.

    Raises:
        InvalidStateError: no such cluster runs.
        HandshakeError, ConnectionLostError, DeadlineError: each member was tried once, and none was reached.
    """
    directory = default_directory(cluster) if isinstance(cluster, str) else cluster
    state = running_cluster(directory)
    deadlines = config or KhepriConfig()
    node_config = NodeConfig(epmd_host=HOST, epmd_port=state.epmd_port, register=False)
    async with (
        HiddenNode(name, cookie=read_cookie(directory, state), config=node_config) as node,
        Gateway(node, [member.name for member in state.nodes]) as gateway,
    ):
        await gateway.connect(timeout=deadlines.timeout, rounds=1)
        async with Khepri.connect(node, gateway, store=state.store, config=deadlines) as store:
            yield store

"""What a simulation server is to know to join a cluster of this machine (``khepri-bridge up``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from bridge.cluster.directory import read_cookie
from bridge.cluster.running import running_cluster
from bridge.cluster.state import default_directory
from bridge.sim.config import SimulationConfig


def local_config(name: str, *, cluster: str | Path = "local") -> SimulationConfig:
    """Configuration of a server in a cluster of this machine, whose cookie and port mapper its state tells.

    ::

        async with SimulationServer(local_config("north"), heard) as north: ...
        replace(local_config("north"), capacity=10_000)  # of dataclasses: with other values

    Its node is ``name@127.0.0.1``. Its key is kept beside the state of the cluster, where that of
    ``khepri-bridge sim`` is: it is the same server when it starts again, from Python or not.

    Args:
        name: of the server, as other servers see it.
        cluster: name that it was started with, or its directory (``up --name``, ``up --dir``).

    Raises:
        InvalidStateError: no such cluster runs.
        ConfigurationError: no server can have that name.
    """
    directory = default_directory(cluster) if isinstance(cluster, str) else cluster
    state = running_cluster(directory)
    config = SimulationConfig(
        name=name,
        node=f"{name}@127.0.0.1",
        members=tuple(member.name for member in state.nodes),
        cookie=read_cookie(directory, state),
        epmd_port=state.epmd_port,
        store=state.store,
    )
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    return replace(config, key_file=str(keys / f"{quote(name, safe='')}.pem"))

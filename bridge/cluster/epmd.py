"""The port mapper of a cluster: its own, on its own port of 127.0.0.1.

The automatic one of Erlang listens on every interface, is shared with whatever else runs on the machine, and
outlives all nodes.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Final

from bridge.cluster.processes import (
    ProcessIdentity,
    end_processes,
    identify,
    is_running,
    plain_environment,
    reap,
    spawn,
)

HOST: Final = "127.0.0.1"
"""where the port mapper and all members of a local cluster listen"""
_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.03


def start_epmd(port: int, *, directory: Path, tied: bool) -> ProcessIdentity | None:
    """Start a port mapper and wait until it answers; ``None`` when the port is taken.

    Args:
        port: where it listens.
        directory: of its cluster.
        tied: whether the kernel kills it when the thread that starts it ends.

    Raises:
        ConfigurationError: there is no such program.
    """
    child = spawn(
        ["epmd", "-port", str(port), "-address", HOST],
        directory=directory,
        environment=environment(port),
        log=directory / "epmd.log",
        tied=tied,
    )
    process = identify(child)
    deadline = time.monotonic() + _SECONDS
    while process is not None and is_running(process) and time.monotonic() < deadline:
        # Something answers on a taken port too, so the child must still be there after the connection.
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            time.sleep(_POLL_SECONDS)
            if is_running(process):
                return process
        time.sleep(_POLL_SECONDS)
    end_processes([process] if process else [], grace=0.0)
    reap(child)
    return None


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens now; another program may be faster to take it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int) -> dict[str, str]:
    """The environment of a process that uses the port mapper at ``port``, without settings of its own."""
    return {**plain_environment(), "ERL_EPMD_PORT": str(port), "ERL_EPMD_ADDRESS": HOST}

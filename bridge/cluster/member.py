"""One member of a local cluster: how its node is started, what it was started with, and when it is ready."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.cluster.directory import log_file
from bridge.cluster.epmd import HOST, environment
from bridge.cluster.processes import MARKER, ProcessIdentity, identify, is_running, spawn
from bridge.cluster.state import ClusterState, NodeRecord
from bridge.errors import ConfigurationError

_POLL_SECONDS: Final = 0.03
_OWN: Final = {"KB_NODE", "KB_DATA_DIR", "KB_SEED", "KB_TYPE", "KB_INSTANCE", "KB_STORE", "KB_LISTEN", MARKER}
"""variables that every member is given, whatever its cluster was started with"""
_NODE_LINE: Final = re.compile(r"^khepri_bridge: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedMember:
    """A node that was started, and may not be ready yet.

    Attributes:
        name: full node name.
        process: its process; ``None`` when it ended at once.
        log: where it writes what it says.
        offset: how long the log was before, in bytes.
    """

    name: str
    process: ProcessIdentity | None
    log: Path
    offset: int


def start_member(
    node: NodeRecord,
    cluster: ClusterState,
    *,
    directory: Path,
    release: Path,
    seed: str,
    settings: Mapping[str, str],
    tied: bool,
) -> StartedMember:
    """Start the node of one member; it is waited for with `await_ready`.

    Args:
        node: which one.
        cluster: what it is a member of, with the port of a running port mapper.
        directory: of the cluster.
        release: the built release to run.
        seed: full name of the member that it joins through; empty: it founds the cluster.
        settings: more variables, which all members share.
        tied: whether the kernel kills it when the thread that starts it ends.

    Raises:
        ConfigurationError: the release cannot be run.
    """
    data = directory / node.short
    log = log_file(directory, node.name)
    offset = log.stat().st_size if log.exists() else 0
    child = spawn(
        [str(release / "bin" / "khepri_bridge"), "foreground"],
        directory=directory,
        environment={
            **environment(cluster.epmd_port),
            **settings,
            "HOME": str(data),
            "KB_NODE": node.name,
            "KB_DATA_DIR": str(data),
            "KB_SEED": seed,
            "KB_TYPE": "homeserver",
            "KB_INSTANCE": cluster.instance,
            "KB_STORE": cluster.store,
            "KB_LISTEN": HOST,
        },
        log=log,
        tied=tied,
    )
    return StartedMember(name=node.name, process=identify(child), log=log, offset=offset)


def await_ready(member: StartedMember, deadline: float) -> None:
    """Wait until a started node says that it is a member of a cluster with a known leader.

    Args:
        member: as `start_member` returned it.
        deadline: by `time.monotonic`, seconds.

    Raises:
        ConfigurationError: it ended, or was not ready in time (with what it said last, and its log).
    """
    while True:
        # Looked at before the log is read, so that the last words of a node that ended are not missed.
        alive = member.process is not None and is_running(member.process)
        said = _NODE_LINE.findall(_read_from(member.log, member.offset))
        if any(line.startswith("ready") for line in said):
            return
        reason = said[-1] if said else "it said nothing"
        if not alive:
            raise ConfigurationError(f"node {member.name} ended while starting: {reason} (log: {member.log})")
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"node {member.name} did not get ready in time: {reason} (log: {member.log})"
            )
        time.sleep(_POLL_SECONDS)


def settings_of(node: NodeRecord) -> dict[str, str]:
    """Variables that a running member was started with and that all members share.

    Raises:
        ConfigurationError: it does not run, or is another user's.
    """
    if node.process is None:
        raise ConfigurationError(f"how {node.name} was started cannot be read: it does not run")
    try:
        variables = Path(f"/proc/{node.process.pid}/environ").read_bytes().decode(errors="replace")
    except OSError as error:
        raise ConfigurationError(f"how {node.name} was started cannot be read: {error.strerror}") from None
    pairs = (line.partition("=") for line in variables.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("KB_") and name not in _OWN}


def _read_from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", errors="replace")

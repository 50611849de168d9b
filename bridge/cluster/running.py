"""Which cluster runs in a directory, and which of its members: as recorded, and as the kernel agrees."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bridge.cluster.processes import is_running
from bridge.cluster.state import ClusterState, NodeRecord, cluster_options, load_state
from bridge.errors import ConfigurationError, InvalidStateError


def running_cluster(directory: Path) -> ClusterState:
    """State of the cluster in ``directory``.

    Raises:
        InvalidStateError: none runs there.
        ConfigurationError: its state cannot be read.
    """
    state = load_state(directory)
    if state is None or not any(is_running(process) for process in state.processes):
        which = cluster_options(directory)
        raise InvalidStateError(f"no cluster runs in {directory}: start one with `khepri-bridge up{which}`")
    return state


def missing_members(directory: Path) -> tuple[str, ...]:
    """Members of the cluster in ``directory`` that do not run while others do; none where none or all do."""
    with contextlib.suppress(ConfigurationError):
        state = load_state(directory)
        if state is not None and any(member_runs(node) for node in state.nodes):
            return tuple(node.name for node in state.nodes if not member_runs(node))
    return ()


def member_runs(node: NodeRecord) -> bool:
    """Whether the recorded process of a node still runs."""
    return node.process is not None and is_running(node.process)

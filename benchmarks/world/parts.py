"""Each part of the benchmark, as numbers by name."""

from __future__ import annotations

from typing import Any, Final

import uvloop

from benchmarks.udp.processes import in_fresh_process
from benchmarks.world.balance import measure_balance
from benchmarks.world.crowd import measure_crowd
from benchmarks.world.edit import measure_edit
from benchmarks.world.load import measure_load
from bridge.cluster.local import LocalCluster, LocalClusterConfig

_LEASE_MS: Final = 10_000
"""Longer than the default, so that other work on the machine does not end sessions in the middle of a run."""


def _cluster() -> LocalCluster:
    return LocalCluster(LocalClusterConfig(nodes=3, environment={"KB_LEASE_MS": str(_LEASE_MS)}))


def load(entities: int) -> dict[str, Any]:
    """On a cluster of its own."""
    with _cluster() as cluster:
        return uvloop.run(measure_load(cluster, entities))


def edit(edits: int) -> dict[str, Any]:
    """On a cluster of its own."""
    with _cluster() as cluster:
        return uvloop.run(measure_edit(cluster, edits))


def balance(limit: int) -> dict[str, Any]:
    """On a cluster of its own."""
    with _cluster() as cluster:
        return uvloop.run(measure_balance(cluster, limit))


def crowd(options: dict[str, int]) -> dict[str, Any]:
    """In a process of its own, on a core of its own."""
    return in_fresh_process(crowd_here, options)


def crowd_here(options: dict[str, int]) -> dict[str, Any]:
    """In this process."""
    return measure_crowd(**options)

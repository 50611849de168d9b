"""A real homeserver cluster for tests: one for the whole session, or one for a test that kills nodes.

Registered as a plugin by ``tests/conftest.py``. The shared cluster is never harmed, so tests may run in any
order; each writes below its own ``root`` and under names from ``fresh``.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig
from tests.support.target import target

Test = TypeVar("Test", bound=Callable[..., Any])
_numbers = itertools.count(1)
FUNCTIONS = ("add/2", "read/1", "change/2", "is_even/2", "double/2", "sum/3", "index/2", "words/4")
"""of ``kb_demo_functions``: what clusters of tests let run inside their store"""


def erlang(test: Test) -> Test:
    """Mark a test that needs the shared cluster, in a module whose other tests need nothing."""
    marked: Test = pytest.mark.erlang(pytest.mark.slow(test))
    return marked


def fresh(prefix: str) -> str:
    """A name that no other test of this run uses."""
    return f"{prefix}{next(_numbers)}"


def hidden_node(cluster: LocalCluster) -> HiddenNode:
    """A node of a name of its own in the cluster's namespace, not yet open."""
    config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
    return HiddenNode(f"{fresh('test')}@127.0.0.1", cookie=cluster.cookie, config=config)


def started_by_up(cluster: LocalCluster, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cluster be the one that ``khepri-bridge up`` is taken to have started.

    Args:
        cluster: runs.
        state: directory to be made, for ``XDG_STATE_HOME``.
        monkeypatch: undoes it.
    """
    (state / "khepri-bridge").mkdir(parents=True)
    (state / "khepri-bridge" / "local").symlink_to(cluster.directory)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))


def local_cluster(
    *, nodes: int = 3, lease_ms: int = 3_600_000, environment: Mapping[str, str] | None = None
) -> LocalCluster:
    """A cluster, not yet started, of what this test run is about (`tests.support.target`).

    Sessions of most tests are opened and never renewed; tests of leases have clusters of their own.
    """
    allowed = ",".join(f"kb_demo_functions:{function}" for function in FUNCTIONS)
    return LocalCluster(
        LocalClusterConfig(
            nodes=nodes,
            release=target().release,
            environment={
                "KB_FUNCTIONS": allowed,
                "KB_LEASE_MS": str(lease_ms),
                **(environment or {}),
            },
        )
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Three nodes that live as long as the test session; not to be harmed."""
    with local_cluster() as running:
        yield running


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    """Three nodes for one test, which may kill them."""
    with local_cluster() as running:
        yield running


@pytest.fixture
async def node(cluster: LocalCluster) -> AsyncIterator[HiddenNode]:
    """A hidden node beside the shared cluster."""
    async with hidden_node(cluster) as opened:
        yield opened


@pytest.fixture
async def store(cluster: LocalCluster, node: HiddenNode) -> AsyncIterator[Khepri]:
    """A client of the shared cluster."""
    async with Khepri.connect(node, cluster.members, store=cluster.store) as client:
        yield client


@pytest.fixture
def root() -> str:
    """A path of the test's own, without a slash at its end."""
    return f"/:test/{secrets.token_hex(8)}"

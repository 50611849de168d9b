"""An Elixir program beside the shared cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.cluster.local import LocalCluster
from tests.parity.elixir import Elixir, running_elixir


@pytest.fixture(scope="package")
def elixir(cluster: LocalCluster) -> Iterator[Elixir]:
    with running_elixir(cluster) as running:
        yield running

"""The commands on an entity against a real cluster of one node."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.khepri import Khepri
from bridge.registry import QuotaError, Rule
from tests.support.authority import Server
from tests.support.cluster import hidden_node

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
# Its server renews nothing.
ENVIRONMENT = {"KB_LEASE_MS": "3600000", "KB_MAX_ENTITIES": "3", "KB_MAX_ENTITIES_PER_MASTER": "2"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A cluster with room for three entities, in which ``sim1`` simulates Ann's ball and sack, and a cone."""
    with LocalCluster(LocalClusterConfig(nodes=1, environment=ENVIRONMENT)) as cluster:

        async def spawn() -> None:
            async with (
                hidden_node(cluster) as node,
                Khepri.connect(node, cluster.members, store=cluster.store) as store,
            ):
                server = Server(store, "sim1")
                await server.open()
                made = [
                    ("ball", "Ann"),
                    ("sack", "Ann"),
                    ("third", "Ann"),
                    ("cone", "Eve"),
                    ("fourth", "Eve"),
                ]
                refused = {}
                for entity, master in made:
                    try:
                        await server.home.create_entity(
                            entity=entity, owner=master, master=master, rule=Rule.ALLOW
                        )
                    except QuotaError as error:
                        refused[entity] = (error.limit, error.maximum)
                assert refused == {"third": ("master", 2), "fourth": ("instance", 3)}

        asyncio.run(spawn())
        yield cluster.directory


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", "entity", *arguments, "--dir", str(place)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def told(place: Path, *arguments: str) -> Any:
    done = run(place, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_owner_master_and_authority_are_told_by_name_and_changed_by_who_may(place: Path) -> None:
    """R0-7, R0-9, R0-42."""
    shown = told(place, "show", "ball")
    assert (shown["owner"], shown["master"], shown["server"]) == ("Ann", "Ann", "sim1")
    assert "sim1" in run(place, "show", "ball").stdout
    assert told(place, "rule", "ball", "ask", "--by", "Ann")["rule"] == "ask"
    assert told(place, "transfer", "ball", "Bob", "--by", "Ann")["owner"] == "Bob"
    assert told(place, "master", "ball", "Cid")["master"] == "Cid"
    assert told(place, "revoke", "ball", "--by", "Cid")["owner"] == "Cid"
    refused = run(place, "rule", "ball", "deny", "--by", "Bob", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout.splitlines()[-1])["error"]["type"] == "NotMasterError"


def test_who_masters_an_entity_deletes_it(place: Path) -> None:
    refused = run(place, "delete", "cone", "--by", "Ann", "--json")
    assert json.loads(refused.stdout.splitlines()[-1])["error"]["type"] == "NotMasterError"
    gone = told(place, "delete", "cone", "--by", "Eve")
    assert (gone["entity"], gone["server"]) == ("cone", None)
    done = run(place, "show", "cone")
    assert (done.returncode, "cone" in done.stderr) == (1, True)


def test_an_entity_that_is_not_there_is_said(place: Path) -> None:
    done = run(place, "show", "hat")
    assert done.returncode == 1
    assert "none is called hat" in done.stderr

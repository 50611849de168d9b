"""The store of a cluster that ``khepri-bridge up`` started, as the README shows it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster
from bridge.cluster.local_store import local_store
from bridge.errors import InvalidStateError
from tests.support.cluster import erlang, fresh, started_by_up

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@erlang
async def test_what_the_readme_shows_runs_as_it_stands(
    cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started_by_up(cluster, tmp_path, monkeypatch)
    told = []
    for program in [code for code in PROGRAMS if "local_store" in code]:
        await asyncio.to_thread(exec, compile(program, str(README), "exec"), {})
        told.append(capsys.readouterr().out)
    snapshot, got = told
    assert snapshot.startswith("Snapshot(")
    assert got == "{b'count': 2}\n"


@erlang
async def test_a_cluster_may_be_named_by_its_directory(cluster: LocalCluster, root: str) -> None:
    name = f"{fresh('local')}@127.0.0.1"
    async with local_store(name, cluster=cluster.directory) as store:
        await store.put(f"{root}/a", 1)
        assert await store.get(f"{root}/a") == 1


async def test_where_none_runs_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(InvalidStateError, match="start one with `khepri-bridge up --name two`"):
        async with local_store("shop@127.0.0.1", cluster="two"):
            pass

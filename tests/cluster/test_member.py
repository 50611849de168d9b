"""One member, with a stand-in for its node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.cluster.member import StartedMember, await_ready, settings_of, start_member
from bridge.cluster.processes import end_processes, marked_processes
from bridge.cluster.state import ClusterState, NodeRecord
from bridge.errors import ConfigurationError
from tests.support.fake_release import READY, fake_release

NODE = NodeRecord(name="hs1@127.0.0.1")
CLUSTER = ClusterState(instance="emerald", store="shop", epmd_port=4370, epmd=None, nodes=(NODE,))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "hs1").mkdir()
    yield tmp_path
    end_processes(marked_processes(tmp_path), grace=0.0)


def start(
    place: Path, script: str, *, seed: str = "", settings: dict[str, str] | None = None
) -> StartedMember:
    release = fake_release(place / "release", script)
    return start_member(
        NODE, CLUSTER, directory=place, release=release, seed=seed, settings=settings or {}, tied=True
    )


def soon() -> float:
    return time.monotonic() + 20.0


def test_it_is_told_who_it_is_and_where_its_data_lie(place: Path) -> None:
    member = start(
        place, f'env >"$KB_DATA_DIR/seen"\n{READY}', seed="hs2@127.0.0.1", settings={"KB_LEASE_MS": "2000"}
    )
    await_ready(member, soon())
    assert {
        "KB_NODE=hs1@127.0.0.1",
        f"KB_DATA_DIR={place / 'hs1'}",
        f"HOME={place / 'hs1'}",
        "KB_SEED=hs2@127.0.0.1",
        "KB_INSTANCE=emerald",
        "KB_STORE=shop",
        "KB_LISTEN=127.0.0.1",
        "KB_LEASE_MS=2000",
        "ERL_EPMD_PORT=4370",
    } <= set((place / "hs1" / "seen").read_text().splitlines())


def test_what_it_said_in_an_earlier_run_does_not_count(place: Path) -> None:
    (place / "hs1.log").write_text("khepri_bridge: ready\n")
    member = start(place, 'echo "khepri_bridge: no room"; exit 1')
    with pytest.raises(ConfigurationError, match=r"hs1@127\.0\.0\.1 ended while starting: no room"):
        await_ready(member, soon())


def test_a_node_that_says_nothing_is_given_up_in_time(place: Path) -> None:
    member = start(place, "exec sleep 1000")
    with pytest.raises(ConfigurationError, match=r"did not get ready in time: it said nothing .*hs1\.log"):
        await_ready(member, time.monotonic())


def test_what_all_members_share_is_read_from_one_that_runs(place: Path) -> None:
    member = start(place, READY, settings={"KB_LEASE_MS": "2000"})
    await_ready(member, soon())
    shared = settings_of(replace(NODE, process=member.process))
    assert shared == {"KB_LEASE_MS": "2000"}


def test_nothing_is_read_from_one_that_does_not_run(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="it does not run"):
        settings_of(NODE)
    member = start(place, READY)
    assert member.process is not None
    end_processes([member.process], grace=0.0)
    with pytest.raises(ConfigurationError, match=r"how hs1@127\.0\.0\.1 was started cannot be read"):
        settings_of(replace(NODE, process=member.process))

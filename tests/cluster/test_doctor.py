from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cluster.doctor import Finding, examine
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.cluster.state import STATE_FILE
from tests.support.fake_release import fake_release


def finding(check: str) -> Finding:
    return next(each for each in examine() if each.check == check)


def remedies(place: Path) -> list[str]:
    """What is said of leftovers in one place; other tests of this machine may have some of their own."""
    return [each.remedy for each in examine() if each.check == "leftovers" and str(place) in each.text]


def test_everything_that_is_not_good_has_a_remedy() -> None:
    for each in examine():
        assert (each.verdict == "good") == (each.remedy == ""), each


def test_a_machine_without_erlang_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert finding("Erlang").verdict == "bad"
    assert "apt-get install" in finding("rebar3").remedy


@pytest.mark.erlang
def test_a_running_cluster_is_no_leftover_and_an_interrupted_one_is(tmp_path: Path) -> None:
    place = tmp_path / "cluster"
    config = LocalClusterConfig(nodes=1, directory=place, release=fake_release(tmp_path / "release"))
    with LocalCluster(config):
        assert remedies(place) in ([], [""])
        (place / STATE_FILE).rename(place / "aside")
        assert remedies(place) == [f"khepri-bridge down --dir {place}"]
        (place / "aside").rename(place / STATE_FILE)

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cluster.sources import APPLICATIONS, fetch_sources, missing_sources
from bridge.errors import ConfigurationError


def lay_out(checkouts: Path) -> None:
    for name in APPLICATIONS:
        (checkouts / name / "src").mkdir(parents=True)
        (checkouts / name / "src" / f"{name}.app.src").touch()


def test_nothing_is_fetched_when_all_is_there(tmp_path: Path) -> None:
    lay_out(tmp_path)
    said: list[str] = []
    fetch_sources(tmp_path, said.append)
    assert said == []


def test_an_application_without_its_sources_is_missing(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "ra" / "src" / "ra.app.src").unlink()
    assert missing_sources(tmp_path) == ["ra"]


def test_an_unknown_origin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="use hex, debian or any"):
        fetch_sources(tmp_path, print, origin="cvs")


def test_what_each_origin_said_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigurationError, match=r"hex: rebar3 is not installed; debian: this machine has no apt-get"
    ):
        fetch_sources(tmp_path / "checkouts", lambda _line: None)
    assert list((tmp_path / "checkouts").iterdir()) == []


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "rebar3"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '\\033[31m===> Package not found in any repo\\033[0m\\n'; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    with pytest.raises(ConfigurationError, match="rebar3 failed: ===> Package not found in any repo"):
        fetch_sources(tmp_path / "checkouts", lambda _line: None, origin="hex")


@pytest.mark.erlang
@pytest.mark.slow
def test_debian_gives_complete_sources_to_any_user(tmp_path: Path) -> None:
    fetch_sources(tmp_path, lambda _line: None, origin="debian")
    assert missing_sources(tmp_path) == []
    assert '{vsn,"0.16.0"}' in (tmp_path / "khepri/src/khepri.app.src").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(APPLICATIONS)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))

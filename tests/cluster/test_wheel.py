"""A wheel made from the clone works alone: it holds the Erlang sources and builds them in a cache."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def checked(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    checked(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, ".", cwd=ROOT)
    return next(out.glob("khepri_bridge-*.whl"))


def test_the_wheel_holds_sources_and_no_build(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "bridge/cluster/_erlang/rebar.config" in names
    assert any(name.startswith("bridge/cluster/_erlang/erlang/src/") for name in names)
    assert "bridge/py.typed" in names
    assert not any("_build" in name or "_checkouts" in name or name.endswith(".beam") for name in names)


def test_a_cluster_runs_from_an_installed_wheel_in_any_folder(wheel: Path, tmp_path: Path) -> None:
    checked(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    checked(tmp_path / "venv/bin/pip", "install", "--quiet", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "LANG": "C.UTF-8",
    }

    def bridge(*arguments: str) -> dict[str, Any]:
        said = checked(
            tmp_path / "venv/bin/khepri-bridge", *arguments, "--json", cwd=elsewhere, env=environment
        )
        result: dict[str, Any] = json.loads(said.splitlines()[-1])
        return result

    try:
        assert len(bridge("up", "--nodes", "2")["nodes"]) == 2
        status = bridge("status")
        assert status["ok"] is True
        assert status["khepri"] == "0.16.0"
        bridge("put", "/:stock/wood", '{"count":3}')
        assert bridge("get", "/:stock/wood")["data"] == {"count": 3}
    finally:
        assert bridge("down", "--erase")["ended"] is True
    assert list(elsewhere.iterdir()) == []

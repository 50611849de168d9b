"""Commands reach a cluster of this machine by its directory, and any other by its members."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cli.target import Target
from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError, InvalidStateError
from tests.support.certificates import Authority
from tests.support.cluster import erlang

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cookie_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "cookie"
    file.write_text("secret\n")
    return file


def test_a_cluster_elsewhere_is_named_by_its_members(cookie_file: Path) -> None:
    way = Target(
        member=["a@rabbit1", "b@rabbit1"], cookie_file=cookie_file, store="shop", epmd_port=4370
    ).way()
    assert (way.members, way.store, way.cookie) == (("a@rabbit1", "b@rabbit1"), "shop", "secret")
    assert (way.config.epmd_port, way.config.register, way.config.tls) == (4370, False, None)


def test_the_environment_may_name_the_cookie_file(cookie_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_COOKIE_FILE", str(cookie_file))
    assert Target(member=["a@h"]).way().cookie == "secret"


def test_fixed_ports_need_no_port_mapper(cookie_file: Path) -> None:
    assert Target(member=["a@h"], cookie_file=cookie_file, port=9100).way().config.port_of("a@h") == 9100


def test_where_no_cluster_runs_both_ways_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidStateError, match=r"khepri-bridge up.*--member"):
        Target(directory=tmp_path).way()


def test_no_cookie_is_said(cookie_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KB_COOKIE_FILE", raising=False)
    monkeypatch.setenv("HOME", str(cookie_file.parent))
    with pytest.raises(ConfigurationError, match="--cookie-file"):
        Target(member=["a@h"]).way()
    (cookie_file.parent / ".erlang.cookie").write_text("secret")
    assert Target(member=["a@h"]).way().cookie is None, "the node reads it"


def test_certificates_make_the_connection_tls(cookie_file: Path, tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("node")
    target = Target(
        member=["a@h"],
        cookie_file=cookie_file,
        tls_certificate=issued.certificate,
        tls_key=issued.key,
        tls_authority=issued.authority,
    )
    assert target.way().config.tls == issued.config()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target(cookie_file=Path("c")), "--cookie-file goes with --member"),
        (Target(port=4370), "--port goes with --member"),
        (Target(tls_key=Path("k")), "--tls-key goes with --member"),
        (Target(member=["a@h"], name="other"), "leave --name and --dir out"),
        (Target(member=["a@h"], cookie_file=Path(__file__), tls_key=Path("k")), "all three"),
        (Target(member=["a@h"], cookie_file=Path("none")), "cannot read the cookie file"),
    ],
)
def test_options_that_do_not_fit_together_are_said(target: Target, text: str, cookie_file: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        target.way()


@erlang
def test_a_command_reaches_a_cluster_by_a_member_and_tells_a_wrong_cookie_at_once(
    cluster: LocalCluster, cookie_file: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bridge.cli", *arguments, "--member", cluster.members[0]],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
            env={**os.environ, "KB_COOKIE_FILE": str(cookie_file)},
        )

    options = ("--epmd-port", str(cluster.epmd_port), "--store", cluster.store)
    refused = run("get", "/:stock", *options)
    assert refused.returncode == 1
    assert "cookie" in refused.stderr
    cookie_file.write_text(cluster.cookie)
    info = run("info", "--json", *options)
    assert info.returncode == 0, info.stderr
    assert set(json.loads(info.stdout)["members"]) == set(cluster.members)

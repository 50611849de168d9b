"""docs/rest.md does what it says: its lines run against a service as the guide starts it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from bridge.cli.app import build_app
from bridge.cluster.local import LocalCluster
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose import Jwk
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from bridge.registry import Rule
from tests.support.authority import Server
from tests.support.cluster import hidden_node, local_cluster
from tests.support.rest import bearer
from tests.support.service import ROOT, believe_test_issuer, service_process

GUIDE = (ROOT / "docs" / "rest.md").read_text()
START, *ASKED = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)

_SHELL = """
set -eu
curl() { command curl --fail-with-body "$@" || { status=$?; echo " <- curl $*" >&2; return $status; }; echo; }
until curl -s --oauth2-bearer $PLAYER1 $URL/v1/servers 2>&1 >/dev/null; do sleep 0.1; done
"""


@pytest.fixture
def guide_cluster() -> Iterator[LocalCluster]:
    with local_cluster(nodes=1) as running:
        yield running


@pytest.mark.erlang
@pytest.mark.slow
async def test_every_line_of_curl_is_answered(guide_cluster: LocalCluster, tmp_path: Path) -> None:
    """R0-13: every kind of control operation works with curl."""
    async with (
        hidden_node(guide_cluster) as node,
        Khepri.connect(node, guide_cluster.members, store=guide_cluster.store) as store,
        service_process(guide_cluster, tmp_path) as (url, _),
    ):
        await believe_test_issuer(store)
        server = Server(store, "sim1")
        await server.open()
        await server.home.create_entity(entity="ball", owner="Player1", master="Player1", rule=Rule.DENY)
        key = Jwk.generate()
        tokens = {
            "PLAYER1": bearer("local", "Player1"),
            "PLAYER2": bearer("local", "Player2"),
            "SERVER": bearer("local", "home1", Role.SERVER, key=key),
            "KEY": key.public().to_json(),
            "SESSION": base64url_encode(bytes(range(16))),
            "OPERATOR": bearer("local", "ops", Role.OPERATOR),
        }
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", _SHELL + "".join(ASKED)),
            env={"PATH": os.environ["PATH"], "URL": url, **tokens},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        assert '"outcome":"granted"' in said
        assert "event: complete" in said
        assert (await server.home.entity("ball")).owner == "Player1"


def test_the_guide_starts_the_service_with_options_that_there_are() -> None:
    command = get_command(build_app()).commands["homeserver"].commands["serve"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    text = START + GUIDE.partition("## Ask")[0]
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", text)) <= known


def test_the_limits_that_the_guide_names_are_those_of_the_service() -> None:
    limits = RestSettings()
    assert f"{limits.max_body_bytes // 1024} KiB; {limits.address_rate:.0f} requests a second" in GUIDE
    assert (
        f"{limits.caller_rate:.0f} of one caller, twice that at once; {limits.keyed_rate:.0f} keyed" in GUIDE
    )
    assert (limits.address_burst, limits.caller_burst) == (2 * limits.address_rate, 2 * limits.caller_rate)
    assert f"{limits.max_feeds} feeds, {limits.max_feeds_of_one} of one caller" in GUIDE
    assert f"within {limits.feed_heartbeat:.0f} seconds of a revocation" in GUIDE
    assert f"within {limits.body_seconds:.0f} seconds a body" in GUIDE

"""The commands of federation against a real cluster of one node, and their homeserver's service."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.homeserver.federation.documents import Offer
from bridge.homeserver.rest.app import create_app
from bridge.homeserver.rest.serve import Listening, serving, store_context
from bridge.homeserver.signer.policy import SigningPolicy
from bridge.homeserver.signer.server import serving_signer
from bridge.jose import Jwk
from bridge.registry.trust import FixedTrust
from tests.support.cluster import fresh
from tests.support.credentials import KEYS
from tests.support.federation import Federation, instance_cluster

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
KEY = Jwk.generate()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    cluster: LocalCluster
    with instance_cluster("emerald") as cluster:
        yield cluster.directory


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", "federation", *arguments, "--dir", str(place)],
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


def test_an_instance_is_trusted_listed_and_trusted_no_more(place: Path, tmp_path: Path) -> None:
    key = tmp_path / "ruby.jwk"
    key.write_text(KEY.public().to_json())
    url = "https://ruby.example:8443"
    added = told(place, "peer", "add", "ruby", "--url", url, "--key", str(key))
    assert added == {"instance": "ruby", "urls": [url], "keys": [KEY.thumbprint()]}
    assert told(place, "peer", "list") == {"peers": [added]}
    assert KEY.thumbprint() in run(place, "peer", "list").stdout
    assert told(place, "peer", "remove", "ruby") == {"instance": "ruby"}
    assert run(place, "peer", "list").stdout == "no instance is trusted\n"


def test_what_cannot_be_trusted_is_refused_with_what_to_do(place: Path, tmp_path: Path) -> None:
    key = tmp_path / "ruby.jwk"
    key.write_text(KEY.public().to_json())
    for arguments, words in (
        (("ruby", "--url", "https://ruby.example"), "--thumbprint"),
        (("ruby", "--url", "http://ruby.example", "--key", str(key)), "takes https"),
        (("emerald", "--url", "https://ruby.example", "--key", str(key)), "itself"),
        (("r@by", "--url", "https://ruby.example", "--key", str(key)), "no @"),
    ):
        done = run(place, "peer", "add", *arguments)
        assert done.returncode == 1
        assert words in done.stderr


def test_what_is_in_escrow_is_listed_and_cancelled(place: Path) -> None:
    assert told(place, "escrow", "list") == {"escrows": []}
    assert run(place, "escrow", "list").stdout == "nothing is in escrow\n"
    assert told(place, "escrow", "cancel", "7") == {"transfer": "7", "state": "closed"}
    assert "no number" in run(place, "escrow", "cancel", "seven").stderr


async def command(federation: Federation, *arguments: str) -> tuple[int, str, str]:
    """A command of X's operator, while this process serves Y."""
    directory = str(federation.x.cluster.directory)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.cli", "federation", "escrow", *arguments, "--dir", directory),
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


@pytest.fixture
async def socket(federation: Federation, tmp_path: Path) -> AsyncIterator[str]:
    """X's signer; and Y's service runs where X has it pinned."""
    x, y = federation.x, federation.y
    context = await store_context(y.store, trust=FixedTrust(KEYS))
    policy = SigningPolicy(instance=x.name, current=x.key)
    async with (
        serving(create_app(replace(context, desk=y.desk)), Listening()) as (url, _),
        serving_signer(policy, tmp_path / "signer"),
    ):
        await x.escrows.pin(y.as_peer(urls=(url,)))
        yield str(tmp_path / "signer")
    await x.escrows.pin(y.as_peer())


async def test_an_operator_resolves_what_is_stuck_and_doubles_nothing(
    federation: Federation, socket: str
) -> None:
    x, y = federation.x, federation.y
    a, b = x.server(), y.server()
    await a.open()
    await b.open()
    spawned = await a.spawn(ball := fresh("ball"))
    await x.push_abroad(spawned, a, y, b)
    (escrow,) = [one for one in await x.escrows.escrows() if one.entity == ball]
    number = str(escrow.transfer)
    assert isinstance(escrow.question, Offer)
    await y.escrows.accept(x.name, escrow.question)
    await y.escrows.settle(x.name, number)
    await x.escrows.cancel(escrow.transfer)
    await x.store.fence()

    # It says what both sides know, and does nothing.
    code, out, _ = await command(federation, "resolve", number, "--signer", socket)
    assert code == 0
    assert out.splitlines()[0] == f"emerald has {ball} (home emerald) in escrow for ruby: cancelling"
    assert f"ruby has the entity, at epoch {(await y.entity(ball)).epoch} (home emerald)" in out
    assert [one.entity for one in await x.escrows.escrows()].count(ball) == 1

    # Nothing without a reason, never what doubles it, and unheard only where one insists.
    code, _, error = await command(federation, "resolve", number, "--signer", socket, "--as", "back")
    assert (code, "--reason" in error) == (1, True)
    for insisting in ((), ("--anyway",)):
        back = ("--signer", socket, "--as", "back", "--reason", "mine", *insisting)
        code, _, error = await command(federation, "resolve", number, *back)
        assert (code, "it would be in two places: ruby has the entity" in error) == (1, True)
    code, _, error = await command(federation, "resolve", number, "--as", "back", "--reason", "mine")
    assert (code, "it was not asked" in error, "--anyway" in error) == (1, True, True)
    assert (await x.entity(ball)).away is not None

    gone = ("--signer", socket, "--as", "gone", "--reason", "emerald was restored", "--json")
    code, out, error = await command(federation, "resolve", number, *gone)
    assert (code, json.loads(out or "{}").get("resolved")) == (0, "gone"), error
    assert await federation.places(ball) == ["ruby"]
    code, out, _ = await command(federation, "resolved", "--json")
    (kept,) = [one for one in json.loads(out)["resolved"] if one["transfer"] == number]
    assert (kept["choice"], kept["reason"], kept["at"]) == ("gone", "emerald was restored", "ruby")
    assert "ruby has the entity" in json.loads(kept["said"])["ruby"]
    code, _, error = await command(federation, "resolve", number)
    assert (code, "nothing is in escrow" in error) == (1, True)
    await a.home.close_session()
    await b.home.close_session()


async def test_with_an_instance_that_is_no_more_its_operator_insists(federation: Federation) -> None:
    x, y = federation.x, federation.y
    a, b = x.server(), y.server()
    await a.open()
    spawned = await a.spawn(ball := fresh("ball"))
    await x.push_abroad(spawned, a, y, b)
    (escrow,) = [one for one in await x.escrows.escrows() if one.entity == ball]
    number = str(escrow.transfer)
    back = ("resolve", number, "--as", "back", "--reason", "ruby was given up", "--anyway")
    await x.store.fence()
    code, _, error = await command(federation, *back)
    assert (code, "escrow cancel` first" in error) == (1, True)
    await x.escrows.cancel(escrow.transfer)
    await x.store.fence()
    code, out, error = await command(federation, *back)
    assert (code, out.splitlines()[-1:]) == (0, ["resolved: back"]), error
    assert (await x.entity(ball)).server == a.name
    await a.home.close_session()

"""R1-1, R3-10: a stock nginx over two service processes, with the configuration of docs/rest.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bridge.cluster.local import LocalCluster
from bridge.khepri import Khepri
from bridge.node import HiddenNode
from bridge.registry import Rule
from tests.support.authority import Server
from tests.support.cluster import fresh, hidden_node
from tests.support.rest import bearer
from tests.support.service import ROOT, believe_test_issuer, service_process

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

_AROUND = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ }}
http {{
    access_log off; add_header Served-By $upstream_addr always;
    {temporary}
{servers}
}}
"""
"""what Debian has in nginx.conf, but for a user and at another place"""


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(
            "NGINX IS MISSING, so the service is not shown behind a balancer: scripts/setup --dev has it"
        )
    return found


def _configuration(directory: Path, port: int, urls: list[str]) -> str:
    text = (ROOT / "docs" / "rest.md").read_text()
    found = re.search(r"^```nginx\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    servers = found[1].replace("listen 127.0.0.1:8080", f"listen 127.0.0.1:{port}")
    for number, url in enumerate(urls):
        assert f"127.0.0.1:808{number + 1}" in servers
        servers = servers.replace(f"127.0.0.1:808{number + 1}", url.removeprefix("http://"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    return _AROUND.format(directory=directory, temporary=temporary, servers=servers)


@contextlib.asynccontextmanager
async def _balancer(directory: Path, urls: list[str]) -> AsyncIterator[str]:
    program = _nginx()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    file = directory / "nginx.conf"
    file.write_text(_configuration(directory, port, urls))
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(directory), "-c", str(file), "-e", str(directory / "error.log")
    )
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                assert process.returncode is None, (directory / "error.log").read_text()
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass
class Client:
    """One caller behind the balancer, who repeats what failed."""

    http: httpx.AsyncClient
    served_by: set[str]

    async def ask(self, method: str, path: str, **options: object) -> httpx.Response:
        key = {"Idempotency-Key": fresh("key")} if method != "GET" else {}
        for _ in range(50):
            try:
                response = await self.http.request(method, path, headers=key, **options)  # type: ignore[arg-type]
            except httpx.RemoteProtocolError:
                # The process died while its answer was passed on; what was applied, the key tells.
                continue
            if response.status_code not in (429, 502, 503, 504):
                self.served_by.add(response.headers["Served-By"].split(", ")[-1])
                return response
            await asyncio.sleep(0.05)
        raise AssertionError(f"no answer to {method} {path}")


@pytest.fixture
async def own_node(own_cluster: LocalCluster) -> AsyncIterator[HiddenNode]:
    async with hidden_node(own_cluster) as opened:
        yield opened


async def test_a_killed_process_behind_nginx_loses_no_write_and_doubles_none(
    own_cluster: LocalCluster, own_node: HiddenNode, tmp_path: Path
) -> None:
    _nginx()
    async with (
        Khepri.connect(own_node, own_cluster.members, store=own_cluster.store) as store,
        service_process(own_cluster, tmp_path / "first", "--proxy", "127.0.0.1") as (first, killed),
        service_process(own_cluster, tmp_path / "second", "--proxy", "127.0.0.1") as (second, _),
        _balancer(tmp_path, [first, second]) as url,
    ):
        await believe_test_issuer(store)
        server = Server(store, fresh("sim"))
        await server.open()
        things = [fresh("thing") for _ in range(4)]
        for thing in things:
            await server.home.create_entity(entity=thing, owner="0", master="m", rule=Rule.DENY)

        async def pass_on(thing: str, client: Client) -> None:
            """A chain of transfers by the master: each is refused unless the one before it was applied."""
            for number in range(1, 41):
                if number == 15 and thing == things[0]:
                    killed.kill()
                given = await client.ask("POST", f"/v1/entities/{thing}/transfer", json={"to": str(number)})
                assert given.json()["owner"] == str(number), given.text
                read = await client.ask("GET", f"/v1/entities/{thing}", params={"fresh": True})
                assert read.json()["owner"] == str(number), "read what was written, at whichever process"

        async def follow(http: httpx.AsyncClient) -> None:
            """A feed that is cut off and comes back: it ends with what the last transfer made."""
            owner, last = "", ""
            while owner != "40":
                back = {"Last-Event-ID": last} if last else {}
                query = {"entity": things[0]}
                with contextlib.suppress(httpx.TransportError):
                    async with http.stream("GET", "/v1/feed", params=query, headers=back) as response:
                        async for line in response.aiter_lines():
                            last = line.removeprefix("id: ") if line.startswith("id: ") else last
                            if line.startswith("data: ") and "owner" in (told := json.loads(line[6:])):
                                owner = told["owner"]
                            if owner == "40":
                                break

        headers = {"Authorization": f"Bearer {bearer('local', 'm')}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
            clients = [Client(http, set()) for _ in things]
            # Both know the key of the issuer once their feeds have told them.
            for _ in range(20):
                await clients[0].ask("GET", f"/v1/entities/{things[0]}")
            await asyncio.gather(follow(http), *map(pass_on, things, clients))
        records = [await server.home.entity(thing) for thing in things]
        # Made, then changed forty times each: nothing was applied twice, or not at all.
        made = (await server.spawn(fresh("thing"))).version
        assert [record.version - made for record in records] == [40] * len(things)
        served = set().union(*(client.served_by for client in clients))
        assert served == {first.removeprefix("http://"), second.removeprefix("http://")}, "nothing is sticky"

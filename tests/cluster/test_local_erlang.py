"""The launcher with real nodes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.cluster.processes import marked_processes
from bridge.errors import ConfigurationError, HandshakeError, KhepriError
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.node import HiddenNode, NodeConfig
from tests.support.certificates import Authority

pytestmark = [pytest.mark.erlang, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_member_that_was_killed_comes_back_with_its_data(tmp_path: Path) -> None:
    with LocalCluster(LocalClusterConfig(nodes=3, directory=tmp_path / "cluster")) as cluster:
        config = NodeConfig(epmd_port=cluster.epmd_port, register=False)
        node = HiddenNode("test1@127.0.0.1", cookie=cluster.cookie, config=config)
        async with node, Khepri.connect(node, cluster.members, store=cluster.store) as store:
            await store.put_once("/:stock/wood", 1)
            await _until_read(node, cluster, "hs3@127.0.0.1", 1)
            cluster.kill_node("hs3")
            await store.put_once("/:stock/wood", 2)
            cluster.start_node("hs3")
        node = HiddenNode("test2@127.0.0.1", cookie=cluster.cookie, config=config)
        async with node:
            await _until_read(node, cluster, "hs3@127.0.0.1", 2)
    assert marked_processes(tmp_path / "cluster") == {}


async def _until_read(node: HiddenNode, cluster: LocalCluster, member: str, value: int) -> None:
    """Wait until one member itself has applied a write; one that has just started still replays its log."""
    async with Khepri.connect(node, member, store=cluster.store) as store, asyncio.timeout(20):
        read = None
        while read != value:
            with suppress(KhepriError):
                read = await store.get("/:stock/wood")
            await asyncio.sleep(0.02)


def test_nodes_listen_on_loopback_only(tmp_path: Path) -> None:
    with LocalCluster(LocalClusterConfig(nodes=1, directory=tmp_path / "cluster")) as cluster:
        own = {process.pid for process in cluster.state.processes}
        sockets = {
            os.readlink(link)
            for pid in own
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if link.is_symlink()
        }
        listening = [
            line.split()
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
            if line.split()[3] == "0A"
        ]
        addresses = {
            fields[1].partition(":")[0] for fields in listening if f"socket:[{fields[9]}]" in sockets
        }
    assert addresses <= {"0100007F", "00000000000000000000000001000000"}
    assert "0100007F" in addresses


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], check=True)
    try:
        (disk / "filler").write_bytes(bytes(4096))
        with pytest.raises(ConfigurationError) as caught:
            LocalCluster(LocalClusterConfig(nodes=1, directory=disk / "cluster")).start()
        assert str(caught.value) == f"{disk / 'cluster'} cannot be used: No space left on device"
        assert marked_processes(disk / "cluster") == {}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_members_and_a_hidden_node_meet_over_tls_alone(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("every")
    environment = {"KB_TLS_OPTFILE": str(certificate.option_file())}
    with LocalCluster(LocalClusterConfig(nodes=2, environment=environment)) as cluster:
        config = NodeConfig(epmd_port=cluster.epmd_port, register=False, tls=certificate.config())
        async with HiddenNode("test1@127.0.0.1", cookie=cluster.cookie, config=config) as node:
            for member in cluster.members:
                store = Atom(cluster.store)
                answer = await node.call(member, "kb_api", "health", [store])
                assert answer[0] == Atom("ok")
                assert len(answer[1][Atom("members")]) == 2
        plain = NodeConfig(epmd_port=cluster.epmd_port, register=False)
        async with HiddenNode("test2@127.0.0.1", cookie=cluster.cookie, config=plain) as node:
            with pytest.raises(HandshakeError, match="speaks TLS"):
                await node.connect(cluster.members[0])


def test_an_option_file_that_is_not_there_is_named() -> None:
    environment = {"KB_TLS_OPTFILE": "/nowhere/optfile"}
    with pytest.raises(ConfigurationError, match="KB_TLS_OPTFILE /nowhere/optfile cannot be read"):
        LocalCluster(LocalClusterConfig(nodes=1, environment=environment)).start()

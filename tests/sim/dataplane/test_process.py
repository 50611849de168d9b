"""The data plane's process as the kernel sees it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.jose import Jwk
from bridge.sim.dataplane.messages import FirstAccepted, Hold, PeerDown, PeerUp, RaiseFence, RemovePeer
from tests.support.cluster import fresh
from tests.support.data_plane import running
from tests.support.simulation import children, simulation

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

PARENT = """
import asyncio, sys
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import Start
from tests.support.simulation import children

async def main():
    client = DataPlaneClient(lambda event: None)
    start = Start(server="sim1", run=bytes(16), host="127.0.0.1", port=0, capacity=8, rate_hz=60.0)
    await client.start(start)
    print(*children(), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def open_files(pid: int) -> list[str]:
    """What a process's descriptors beyond the standard streams are."""
    files = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        # The descriptor that lists the directory is gone by now.
        with contextlib.suppress(FileNotFoundError):
            if int(name) > 2:
                files.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return files


def sockets(pid: int) -> set[str]:
    """Inode numbers of a process's sockets."""
    return {match[1] for target in open_files(pid) if (match := re.fullmatch(r"socket:\[(\d+)\]", target))}


def table(name: str) -> set[str]:
    """Inode numbers of the sockets of one protocol."""
    return {line.split()[9] for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]}


@pytest.mark.erlang
async def test_the_child_has_no_cookie_and_no_way_to_the_cluster(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone reads strangers' bytes, so what it does not have cannot be taken from it."""
    monkeypatch.setenv("KB_COOKIE", cluster.cookie)
    monkeypatch.setenv("ERL_FLAGS", f"-setcookie {cluster.cookie}")
    cookie = cluster.cookie.encode()
    async with simulation(cluster, fresh("sim")) as observed:
        child = Path(f"/proc/{observed.data_plane}")
        assert cookie not in (child / "environ").read_bytes()
        assert cookie not in (child / "cmdline").read_bytes()
        environment = dict(
            item.split(b"=", 1) for item in (child / "environ").read_bytes().split(b"\0") if item
        )
        assert environment[b"HOME"] == b"/nonexistent"
        assert not any(name.startswith((b"ERL", b"KB_")) for name in environment)
        assert sockets(os.getpid()) & table("tcp"), "the control plane is connected to the cluster"
        assert not sockets(observed.data_plane) & (table("tcp") | table("tcp6"))
        assert len(sockets(observed.data_plane) & table("udp")) == 1
        files = open_files(observed.data_plane)
        named = {file for file in files if not file.startswith(("socket:", "anon_inode:", "pipe:"))}
        assert named <= {"/memfd:khepri-bridge-world (deleted)", "/dev/null"}


def test_it_imports_nothing_that_speaks_with_a_cluster() -> None:
    """Of rooms it has those that ``docs/design.md`` says, so no fault of another is one of its own."""
    code = "import sys, bridge.sim.dataplane.process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True, check=True
    ).stdout.split()
    parts = [module.split(".") for module in loaded if module.startswith("bridge.")]
    rooms = {"authority", "errors", "files", "jose", "replication", "sim", "udp"}
    assert {part[1] for part in parts} == rooms
    assert {part[2] for part in parts if part[1] == "sim" and len(part) > 2} == {"dataplane"}


def test_it_dies_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        try:
            parent.kill()
            parent.wait()
            ready, _, _ = select.select([handle], [], [], 20)
            assert ready, "the child still runs"
        finally:
            os.close(handle)


async def test_what_it_sends_goes_through_the_network_it_is_told() -> None:
    async with running("sim1", network="delay=400ms") as one, running("sim2") as two:
        began = time.monotonic()
        one.know(two)
        two.know(one)
        await one.told(PeerUp)
        await two.told(PeerUp)
        # Without the delay a handshake takes some milliseconds.
        assert time.monotonic() - began > 0.4


async def test_a_worlds_worth_of_commands_does_not_stop_the_ticks() -> None:
    """R0-52: a server whose data plane makes no turn in a second loses its session."""
    async with running("sim1", capacity=2_048, rate_hz=200.0) as one, running("sim2") as two:
        one.know(two)
        two.know(one)
        await one.told(PeerUp)
        for number in range(2_000):
            one.client.tell(Hold(entity=f"tree{number}", epoch=1, slot=number))
        before = one.client.turns.count()
        # Answered after all of them, each of which costs more than to read it.
        await one.client.report(drain_seconds=0.0)
        assert one.client.turns.count() - before >= 8


async def test_a_peer_that_comes_is_told_of_a_whole_world() -> None:
    """R0-52: names of a megabyte and more, which are bound before any of its states counts."""
    world = [f"tree{number:0200}" for number in range(6_000)]
    async with (
        running("sim1", capacity=8_192, rate_hz=20.0) as one,
        running("sim2", capacity=8_192, rate_hz=20.0) as two,
    ):
        for slot, name in enumerate(world):
            one.client.tell(Hold(entity=name, epoch=1, slot=slot))
        one.know(two)
        two.know(one)
        two.client.tell(RaiseFence(entity=world[-1], epoch=1, server="sim1"))
        assert (await two.told(FirstAccepted)).entity == world[-1]


async def test_ctrl_c_of_the_terminal_is_left_to_the_control_plane() -> None:
    before = children()
    async with running("sim1") as plane:
        (pid,) = children() - before
        os.kill(pid, signal.SIGINT)
        assert (await plane.client.report()).malformed == 0


async def test_a_key_that_the_homeserver_has_no_more_ends_its_session_on_both_sides_at_once() -> None:
    """docs/protocol.md §5, "Revoked and rotated keys"."""
    async with running("sim1") as one, running("sim2") as two:
        one.know(two)
        two.know(one)
        await one.told(PeerUp)
        await two.told(PeerUp)
        one.client.tell(RemovePeer(server="sim2"))
        assert (await one.told(PeerDown)).reason == "peer_removed"
        assert (await two.told(PeerDown)).reason == "peer_removed"


@pytest.mark.parametrize("signed", [(True, False), (False, True), (False, False)])
async def test_sessions_are_signed_when_either_side_wants_it(signed: tuple[bool, bool]) -> None:
    """B-2."""
    async with running("sim1", signed=signed[0]) as one, running("sim2", signed=signed[1]) as two:
        one.know(two)
        two.know(one)
        assert (await one.told(PeerUp)).signed == any(signed)
        assert (await two.told(PeerUp)).signed == any(signed)


@pytest.mark.parametrize(
    "values",
    [
        {"host": "sim9.example"},
        {"host": ""},
        {"port": 0},
        {"key": b"no key"},
        {"key": b"\xff"},
        {"key": Jwk.generate("P-384").public().to_json().encode()},
        {"thumbprint": "A" * 43},
    ],
)
async def test_a_record_that_cannot_be_used_is_told_and_harms_nobody_else(values: dict[str, Any]) -> None:
    async with running("sim1") as one, running("sim2") as two:
        one.know(two, server="sim9", **values)
        down = await one.told(PeerDown)
        assert (down.server, down.reason.split(":")[0]) == ("sim9", "unusable record")
        one.know(two)
        two.know(one)
        assert (await one.told(PeerUp)).server == "sim2"


async def test_another_key_for_a_server_ends_the_session_of_the_old_one_at_once() -> None:
    async with running("sim1") as one, running("sim2") as two:
        one.know(two)
        two.know(one)
        await one.told(PeerUp)
        await two.told(PeerUp)
        key = Jwk.generate("P-256").public()
        one.know(two, key=key.to_json().encode(), thumbprint=key.thumbprint())
        assert (await one.told(PeerDown)).reason == "peer_removed"
        assert (await two.told(PeerDown)).reason == "peer_removed"


async def test_a_server_that_was_removed_is_met_again_once_the_homeserver_knows_it_again() -> None:
    async with running("sim1") as one, running("sim2") as two:
        one.know(two)
        two.know(one)
        await two.told(PeerUp)
        one.client.tell(RemovePeer(server="sim2"))
        await two.told(PeerDown)
        one.events.clear()
        one.know(two)
        await one.told(PeerUp)

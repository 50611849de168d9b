"""Simulation servers on a real cluster, as they start, fail and go on."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
from pathlib import Path

import pytest

from bridge.authority import Granted, decode_entries
from bridge.cluster.certificates import create_authority, issue_certificate
from bridge.cluster.local import LocalCluster, LocalClusterConfig
from bridge.errors import BridgeError, InvalidStateError
from bridge.etf import Atom
from bridge.khepri import Khepri
from bridge.node import HiddenNode, TlsConfig
from bridge.registry import Credentials
from bridge.sim.events import AuthorityGained, FellSilent, PeerSessionChanged, Problem
from bridge.sim.traces import MAX_KEPT
from tests.support.cluster import fresh, local_cluster
from tests.support.simulation import Observed, children, simulation
from tests.support.target import target

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
def ball() -> str:
    return fresh("ball")


async def test_a_second_key_cannot_run_under_a_servers_name(cluster: LocalCluster) -> None:
    async with simulation(cluster, fresh("sim")) as first:
        before = children()
        with pytest.raises(Exception, match="another key holds this name"):
            async with simulation(cluster, first.name):
                pass
        assert children() == before


async def test_the_death_of_the_data_plane_is_fatal_and_told(cluster: LocalCluster) -> None:
    async with simulation(cluster, fresh("sim")) as alone:
        os.kill(alone.data_plane, signal.SIGKILL)
        await alone.told(Problem, fatal=True)
    assert alone.data_plane not in children()


async def test_a_server_that_closes_does_not_say_that_it_fell_silent(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulation(cluster, fresh("sim")) as closing:
        plane = closing.server._plane
        await closing.server.transfers.spawn(fresh("box"), owner="Player1", position=(0, 0, 0))
        end_session = plane.end_session

        async def end_late() -> None:
            # The data plane has seen meanwhile that it may seal nothing more.
            await asyncio.sleep(0.1)
            await end_session()

        monkeypatch.setattr(plane, "end_session", end_late)
        await closing.server.close()
    assert [event for event in closing.events if isinstance(event, FellSilent)] == []


async def test_a_simulation_goes_on_and_is_seen_while_no_homeserver_answers(ball: str) -> None:
    """R4-9: neither the loop nor the data plane waits for the store, though a request to it is under way."""
    with local_cluster(lease_ms=60_000) as own:
        async with simulation(own, fresh("sim")) as holder, simulation(own, fresh("witness")) as witness:
            await holder.meets(witness)
            transfers = holder.server.transfers
            record = await transfers.spawn(ball, owner="Player1", position=(0.0, 0.0, 0.0))
            await witness.sees(ball, record.epoch, holder)
            members = [node.process.pid for node in own.state.nodes if node.process is not None]
            for pid in members:
                os.kill(pid, signal.SIGSTOP)
            try:
                asked = asyncio.create_task(transfers.give(ball, owner="Player2"))
                begun, position = transfers.state(ball), (0.0, 0.0, 0.0)
                seen = witness.server.transfers.state(ball).tick
                for _ in range(60):
                    # What a game does each tick, and finds done: the ticks are a second's at 60 a second.
                    before = transfers.state(ball).tick
                    position = (position[0] + 0.1, 0.0, 0.0)
                    transfers.place(ball, position)
                    async with asyncio.timeout(30):
                        while transfers.state(ball).tick <= before:
                            await asyncio.sleep(0.001)
                async with asyncio.timeout(30):
                    while witness.server.transfers.state(ball).tick < seen + 60:
                        await asyncio.sleep(0.01)
                assert transfers.state(ball).tick >= begun.tick + 60
                assert not asked.done()
            finally:
                for pid in members:
                    os.kill(pid, signal.SIGCONT)
            assert (await asked).owner == "Player2"
            assert transfers.held() == [ball]
            assert not [event for event in holder.events if isinstance(event, FellSilent)]


async def test_a_grant_told_again_after_a_members_death_is_ignored(own_cluster: LocalCluster) -> None:
    """The feed is at least once: another member's snapshot tells the inbox again."""
    first, second, third = own_cluster.members
    async with (
        simulation(own_cluster, "sim1", members=(second, third, first)) as a,
        simulation(own_cluster, "sim2", members=(third, second, first)) as b,
    ):
        await a.meets(b)
        await a.server.transfers.spawn("ball", owner="Player1", position=(0, 0, 0))
        await a.server.transfers.spawn("other", owner="Player1", position=(0, 0, 0))
        epoch = (await a.server.transfers.push("ball", owner="Player2", to="sim2")).epoch
        await b.acts("ball", epoch)
        own_cluster.kill_node(third)
        # Heard through the new member, after its snapshot.
        await b.acts("other", (await a.server.transfers.push("other", owner="Player2", to="sim2")).epoch)
        gained = [e for e in b.events if isinstance(e, AuthorityGained) and e.entity == "ball"]
        assert [e.epoch for e in gained] == [epoch]
        assert b.server.transfers.held() == ["ball", "other"]
        back = await b.server.transfers.push("ball", owner="Player1", to="sim1")
        await a.acts("ball", back.epoch)
        await b.sees("ball", back.epoch, a)
        assert [problem for one in (a, b) for problem in one.problems()] == []


async def take_out(cluster: LocalCluster, node: HiddenNode, kind: str, name: str) -> None:
    """Delete a record as only an operator at a member can."""
    path = [Atom("bridge"), Atom(kind), name.encode()]
    answer = await node.call(cluster.members[0], "khepri", "delete", [Atom(cluster.store), path], timeout=20)
    assert answer == Atom("ok")


async def test_a_server_that_the_operator_takes_out_of_the_tree_loses_its_sessions_at_once(
    cluster: LocalCluster, node: HiddenNode
) -> None:
    """docs/protocol.md §5, "Revoked and rotated keys": told by the feed, not by a time-out."""
    async with simulation(cluster, fresh("sim")) as a, simulation(cluster, fresh("sim")) as revoked:
        await a.meets(revoked)
        await revoked.meets(a)
        await take_out(cluster, node, "servers", revoked.name)
        await a.told(PeerSessionChanged, server=revoked.name, up=False, reason="peer_removed")
        await revoked.told(PeerSessionChanged, server=a.name, up=False, reason="peer_removed")


async def test_a_server_whose_key_is_revoked_loses_its_sessions_with_all_peers(
    cluster: LocalCluster, store: Khepri
) -> None:
    """R0-24: within the feed's time; it is met again once it has another key."""
    async with simulation(cluster, fresh("sim")) as a, simulation(cluster, fresh("sim")) as b:
        await a.meets(b)
        record = await a.server.transfers._home.server(b.name)
        await Credentials(store).revoke(record.thumbprint, reason="stolen")
        await a.told(PeerSessionChanged, server=b.name, up=False, reason="peer_removed")
        assert (await a.server.transfers._home.server(b.name)).revoked


async def test_nothing_grows_with_the_transfers_that_a_server_takes_part_in(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """By counts of what is kept: a server that runs for months holds as much as after its first minutes."""
    async with (
        simulation(cluster, fresh("sim"), keep_history=False, record_dir=str(tmp_path)) as a,
        simulation(cluster, fresh("sim"), keep_history=False, record_dir=str(tmp_path)) as b,
    ):
        await a.meets(b)
        balls = [fresh("ball") for _ in range(3)]
        for ball in balls:
            await a.server.transfers.spawn(ball, owner="Player1", position=(1.0, 2.0, 3.0))

        async def pass_to_and_fro(times: int) -> None:
            for _ in range(times):
                for ball in balls:
                    pushed = await a.server.transfers.push(ball, owner="Player2", to=b.name)
                    await b.acts(ball, pushed.epoch)
                    await a.sees(ball, pushed.epoch, b)
                    pulled = await a.server.transfers.pull(ball, owner="Player1")
                    await b.sees(ball, pulled.epoch, a)

        await pass_to_and_fro(3)
        before = [await _kept(one) for one in (a, b)]
        await pass_to_and_fro(20)
        for one, (control, data) in zip((a, b), before, strict=True):
            # What is under way at this moment is not what grows.
            async with asyncio.timeout(30):
                while (await _kept(one))[0] > control:
                    await asyncio.sleep(0.05)
            assert (await _kept(one))[1] <= data
            assert len(one.server.transfers.messages) <= MAX_KEPT
            assert one.problems() == []
    recorded = [line for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert len([entry for entry in decode_entries(recorded) if isinstance(entry, Granted)]) == 3 + 2 * 3 * 23


async def _kept(one: Observed) -> tuple[int, int]:
    return one.server.kept(), (await one.server.report()).kept


async def test_a_server_has_room_for_as_many_entities_as_it_likes_one_after_another(
    cluster: LocalCluster, node: HiddenNode
) -> None:
    """Slots of entities that are gone are used again, be they deleted or given away."""
    async with (
        simulation(cluster, fresh("sim"), capacity=2, follow=1) as small,
        simulation(cluster, fresh("sim")) as large,
    ):
        await small.meets(large)
        for number in range(6):
            ball = fresh("ball")
            record = await small.server.transfers.spawn(ball, owner="Player1", position=(number, 0.0, 0.0))
            assert small.server.transfers.state(ball).position.tolist() == [number, 0.0, 0.0]
            if number % 2:
                record = await small.server.transfers.push(ball, owner="Player1", to=large.name)
                await small.sees(ball, record.epoch, large)
            else:
                await large.sees(ball, record.epoch, small)
                await take_out(cluster, node, "entities", ball)
                async with asyncio.timeout(30):
                    while ball in small.server.transfers.held():
                        await asyncio.sleep(0.01)
                with pytest.raises(InvalidStateError):
                    small.server.transfers.place(ball, (0.0, 0.0, 0.0))
        assert small.problems() == []


async def test_a_server_and_its_guardian_join_a_cluster_that_speaks_tls_alone(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    create_authority(tmp_path, name="cluster", days=1, now=now)
    issue_certificate(tmp_path, "127.0.0.1", days=1, now=now)
    here = tmp_path / "127.0.0.1"
    tls = TlsConfig(certificate=here / "node.pem", key=here / "node.key", authority=here / "authority.pem")
    environment = {"KB_TLS_OPTFILE": str(here / "node.optfile")}
    config = LocalClusterConfig(nodes=1, environment=environment, release=target().release)
    with LocalCluster(config) as secure:
        async with simulation(secure, "sim1", tls=tls) as server:
            await server.server.transfers.spawn("ball", owner="Player1", position=(0, 0, 0))
            assert server.server.transfers.held() == ["ball"]
        with pytest.raises(BridgeError, match="TLS"):
            async with simulation(secure, "sim2"):
                pass

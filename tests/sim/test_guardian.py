"""Guardians that run, of servers that the test plays."""

from __future__ import annotations

import asyncio
import os

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError
from bridge.khepri import Khepri
from bridge.registry import NameInUseError
from bridge.sim.config import SimulationConfig
from bridge.sim.guardian import Guardian
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.simulation import children, simulation_config

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


def no_problem(_: str) -> None:
    """No problem is expected."""
    raise AssertionError("a guardian ended by itself")


async def is_open(server: Server) -> bool:
    """Whether the session is open: its name is free for another one only if it is not."""
    other = Server(server.store, server.name, server.key)
    try:
        await other.open()
    except NameInUseError:
        return True
    await other.home.close_session()
    return False


async def until_ended(server: Server) -> None:
    async with asyncio.timeout(30):
        while await is_open(server):
            await asyncio.sleep(0.01)


async def test_the_end_of_all_who_hold_the_pipe_ends_the_session_that_was_told_last(
    cluster: LocalCluster, store: Khepri
) -> None:
    problems: list[str] = []
    server = Server(store, fresh("sim"))
    guardian = Guardian(simulation_config(cluster, server.name), problems.append)
    await guardian.__aenter__()
    guardian.watch(b"e" * 16)
    guardian.watch(server.session)
    await server.open()
    data_plane = os.dup(guardian.life)
    await asyncio.sleep(0)
    leaving = asyncio.create_task(guardian.__aexit__(None, None, None))
    try:
        # The control plane is gone, what could seal is not.
        await asyncio.sleep(0.2)
        assert await is_open(server)
    finally:
        os.close(data_plane)
    await until_ended(server)
    await leaving
    assert problems == []


async def test_a_session_that_was_closed_in_order_is_not_ended_again(
    cluster: LocalCluster, store: Khepri
) -> None:
    server = Server(store, fresh("sim"))
    async with Guardian(simulation_config(cluster, server.name), no_problem) as guardian:
        guardian.watch(server.session)
        await server.open()
        guardian.watch(None)
    assert await is_open(server)
    await server.home.close_session()


def test_sessions_that_none_watches_fill_no_pipe() -> None:
    """While no other guardian starts, as in an outage, a server may try for hours to open a session."""
    guardian = Guardian(
        SimulationConfig(name="sim1", node="sim1@127.0.0.1", members=("hs1@127.0.0.1",)), no_problem
    )
    for _ in range(10_000):
        guardian.watch(b"s" * 16)
    guardian._close_pipe()


async def test_a_guardian_that_cannot_reach_the_homeservers_says_why_and_leaves_nothing(
    cluster: LocalCluster,
) -> None:
    before = children()
    config = simulation_config(cluster, fresh("sim"), cookie="wrong")
    with pytest.raises(ConfigurationError, match=r"guardian: .*cookie"):
        async with Guardian(config, no_problem):
            pass
    assert children() == before

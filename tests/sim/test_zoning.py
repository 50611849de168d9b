"""Servers of a mesh on a real cluster: what leaves a zone is handed over, and seen from both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.authority import check, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.errors import InvalidStateError
from bridge.sim.events import AuthorityGained
from bridge.sim.mesh_file import load_mesh
from bridge.sim.zones import Layout, Mesh, ZonePolicy
from tests.support.cluster import fresh
from tests.support.server_process import server_process
from tests.support.simulation import Observed, simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

MARGIN, STRIP = 10.0, 30.0


def row(*servers: str, authority_budget: int | None = None, ghost_budget: int | None = None) -> Layout:
    """Zones of 100 m in a row from west to east, one for each server."""
    return Layout(
        mesh=Mesh(west=0, south=0, east=100.0 * len(servers), north=100, columns=len(servers), rows=1),
        policy=ZonePolicy(
            margin=MARGIN, strip=STRIP, authority_budget=authority_budget, ghost_budget=ghost_budget
        ),
        servers={server: (zone,) for zone, server in enumerate(servers)},
    )


async def eventually(condition: Callable[[], bool]) -> None:
    """Of what no event tells."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def rounds(server: Observed, count: int) -> None:
    """Wait until a server has looked at where its entities are so many times."""
    until = server.server.zoning.rounds + count
    await eventually(lambda: server.server.zoning.rounds >= until)


async def spawned(server: Observed, *easts: float) -> list[str]:
    names = [fresh("crate") for _ in easts]
    for name, east in zip(names, easts, strict=True):
        await server.server.transfers.spawn(name, owner="p", position=(east, 50.0, 0.0))
    return names


def put(server: Observed, entity: str, east: float) -> None:
    server.server.transfers.place(entity, (east, 50.0, 0.0))


def held(server: Observed) -> set[str]:
    return set(server.server.transfers.held())


def ghosts(server: Observed) -> frozenset[str]:
    return server.server.zoning.ghosts


def is_at(server: Observed, entity: str, east: float) -> bool:
    try:
        return bool(server.server.transfers.state(entity).position[0] == east)
    except InvalidStateError:
        return False


def times_gained(server: Observed, entity: str) -> int:
    return sum(isinstance(e, AuthorityGained) and e.entity == entity for e in server.events)


async def check_history(*servers: Observed) -> None:
    reports = [await one.server.report() for one in servers]
    verdict = check(decode_entries(line for report in reports for line in report.history))
    assert verdict.violations == []
    assert [text for one in servers for text in one.problems()] == []


async def test_what_crosses_a_border_is_handed_over_once_however_it_sways_and_seen_from_both_sides(
    cluster: LocalCluster,
) -> None:
    """R0-A5: hysteresis, and ghosts on both sides."""
    west, east = fresh("west"), fresh("east")
    layout = row(west, east)
    # What is far away is followed by nobody: only as a ghost is the crate seen.
    async with (
        simulation(cluster, west, mesh=layout, follow=0) as a,
        simulation(cluster, east, mesh=layout, follow=0) as b,
    ):
        await a.meets(b)
        await b.meets(a)
        crate, far = await spawned(a, 95.0, 50.0)
        await eventually(lambda: ghosts(b) == {crate} and is_at(b, crate, 95.0))
        for where in (105.0, 95.0) * 3:
            put(a, crate, where)
            await rounds(a, 2)
        assert held(a) == {crate, far}
        put(a, crate, 115.0)
        await b.told(AuthorityGained, entity=crate)
        await eventually(lambda: held(a) == {far} and ghosts(a) == {crate} and not ghosts(b))
        for where in (95.0, 105.0) * 3:
            put(b, crate, where)
            await eventually(lambda where=where: is_at(a, crate, where))  # type: ignore[misc]
            await rounds(b, 2)
        assert held(b) == {crate}
        assert ghosts(a) == {crate}
        assert (times_gained(a, crate), times_gained(b, crate)) == (1, 1)
        assert (a.server.zoning.counts.given, b.server.zoning.counts.given) == (1, 0)
        put(b, crate, 150.0)
        await eventually(lambda: not ghosts(a))
        await check_history(a, b)


async def test_a_neighbour_without_room_is_given_nothing_and_asked_again(cluster: LocalCluster) -> None:
    """R0-A5: budgets of authority and of ghosts; two that give at once do not exceed the taker's."""
    names = [fresh("sim") for _ in range(3)]
    layout = row(*names, authority_budget=2, ghost_budget=1)
    async with (
        simulation(cluster, names[0], mesh=layout, follow=0) as a,
        simulation(cluster, names[1], mesh=layout, follow=0) as b,
        simulation(cluster, names[2], mesh=layout, follow=0) as c,
    ):
        for one, other in ((a, b), (b, c), (c, b), (b, a)):
            await one.meets(other)
        crates = {*await spawned(a, 111.0, 112.0), *await spawned(c, 188.0, 189.0)}
        await eventually(lambda: len(held(b)) == 2)
        await eventually(lambda: a.server.zoning.counts.deferred + c.server.zoning.counts.deferred >= 2)
        assert len(held(b)) == 2
        assert held(a) | held(b) | held(c) == crates
        assert max(len(ghosts(one)) for one in (a, b, c)) <= 1
        # Room for one: an entity moves on to where there is some.
        (first, _) = sorted(held(b))
        giver, where = (a, 50.0) if len(held(a)) < 2 else (c, 250.0)
        put(b, first, where)
        await eventually(lambda: first in held(giver))
        await eventually(lambda: len(held(b)) == 2)
        assert held(a) | held(b) | held(c) == crates
        assert max(len(held(one)) for one in (a, b, c)) == 2
        await check_history(a, b, c)


async def test_what_is_in_the_zone_of_a_missing_server_stays_until_that_one_is_there(
    cluster: LocalCluster,
) -> None:
    """R0-A5."""
    west, east = fresh("west"), fresh("east")
    layout = row(west, east)
    async with simulation(cluster, west, mesh=layout) as a:
        (crate,) = await spawned(a, 150.0)
        await rounds(a, 4)
        assert held(a) == {crate}
        async with simulation(cluster, east, mesh=layout) as b:
            await b.told(AuthorityGained, entity=crate)
            await eventually(lambda: not held(a))
            await check_history(a, b)
        # Who ends hands back what it has.
        await eventually(lambda: held(a) == {crate})
        assert a.problems() == []


async def test_a_server_that_stops_in_order_hands_each_entity_to_the_nearest_one_with_room(
    cluster: LocalCluster,
) -> None:
    """R0-A5: drain; the states go on where they were."""
    names = [fresh("sim") for _ in range(3)]
    layout = row(*names, authority_budget=2)
    async with (
        simulation(cluster, names[0], mesh=layout, follow=0) as a,
        simulation(cluster, names[2], mesh=layout, follow=0) as c,
    ):
        async with simulation(cluster, names[1], mesh=layout, follow=0) as b:
            for one, other in ((a, b), (b, c), (c, b), (b, a)):
                await one.meets(other)
            own = await spawned(a, 50.0)
            near_a, full = await spawned(b, 120.0, 140.0)
            await b.server.zoning.drain()
            assert b.server.zoning.counts.drained == 2
            assert not held(b)
        await eventually(lambda: len(held(a)) + len(held(c)) == 3)
        assert held(a) == {*own, near_a} or held(a) == {*own, full}
        for server in (a, c):
            for name, east in ((near_a, 120.0), (full, 140.0)):
                assert name not in held(server) or is_at(server, name, east)
        assert a.problems() == c.problems() == []


async def test_a_neighbour_goes_on_for_a_killed_server_until_that_one_is_there_again(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Also with what was far from every border: that is followed beside the ghosts."""
    west, east = fresh("west"), fresh("east")
    file = tmp_path / "mesh.toml"
    file.write_text(
        "west = 0\neast = 200\nsouth = 0\nnorth = 100\ncolumns = 2\nrows = 1\n"
        f"margin = {MARGIN}\nstrip = {STRIP}\nservers = {{ {west} = [0], {east} = [1] }}\n"
    )
    crate = fresh("crate")
    async with simulation(cluster, west, mesh=load_mesh(file)) as a:
        async with server_process(cluster, east, "--mesh", str(file)) as killed:
            await killed.driver.spawn(crate, owner="p", position=(150.0, 50.0, 0.0))
            await eventually(lambda: is_at(a, crate, 150.0))
            assert not ghosts(a)
            killed.kill(killed.control, killed.data)
            await a.told(AuthorityGained, entity=crate)
            assert is_at(a, crate, 150.0)
        async with server_process(cluster, east, "--mesh", str(file)) as again:
            await again.told(AuthorityGained, entity=crate)
            await eventually(lambda: not held(a))
            assert a.problems() == []


async def test_a_server_of_no_mesh_has_nothing_to_tell_of_one(cluster: LocalCluster) -> None:
    async with simulation(cluster, fresh("sim")) as one:
        with pytest.raises(InvalidStateError, match="is of no mesh"):
            _ = one.server.zoning

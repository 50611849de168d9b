"""Every case on the real parts, counted."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from bridge.authority import CASES, transfers
from bridge.cluster.local import LocalCluster
from bridge.errors import DeadlineError
from bridge.sim.cases import Cases, _round
from bridge.sim.server import SimulationServer
from tests.support.cluster import fresh
from tests.support.simulation import simulation_config


@pytest.mark.erlang
@pytest.mark.slow
async def test_every_case_crosses_in_as_many_messages_as_its_formula_says(cluster: LocalCluster) -> None:
    """R0-8, R0-29, R0-30, R0-33, R0-37."""
    cases = Cases()
    names = [fresh("cases") for _ in range(3)]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                SimulationServer(simulation_config(cluster, name), cases.listener(name))
            )
            for name in names
        ]
        await cases.perform(servers, 2)
        for server in servers:
            await server.report()
        grouped = transfers(cases.messages())
        hops = cases.hops()
    performed = {case for case in CASES if case in {t.case for t in grouped}}
    assert performed == {"push", "pull", "switch", "ask", "update"}
    assert [t for t in grouped if not t.is_whole] == []
    assert {t.case: t.critical_path for t in grouped} == {case: CASES[case].path for case in performed}
    assert {case: len(times) for case, times in cases.took_ms.items()} == dict.fromkeys(performed, 2)
    assert hops == {(one, other): 1.0 for one in names for other in names if one != other}


async def test_servers_that_do_not_meet_end_it_with_what_was_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sim.cases._SECONDS", 0.01)
    cases = Cases()

    class Alone:
        def __init__(self, name: str) -> None:
            self.config = type("Config", (), {"name": name})

    with pytest.raises(DeadlineError, match="no datagram sessions"):
        await cases.perform([Alone("a"), Alone("b"), Alone("c")], 1)  # type: ignore[list-item]


def test_the_round_meets_every_ordered_pair() -> None:
    for count in range(2, 6):
        servers = [object() for _ in range(count)]
        route = [servers[0], *_round(servers)]  # type: ignore[arg-type]
        pairs = Counter((id(one), id(other)) for one, other in itertools.pairwise(route))
        assert len(pairs) == count * (count - 1)

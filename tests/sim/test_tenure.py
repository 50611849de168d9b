"""Sessions of a server that end, and what comes after them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ConfigurationError, HandshakeError, InvalidStateError
from bridge.registry import EndReason, Homeserver, OpenedSession
from bridge.sim import server, tenure
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.events import SessionLost, SessionOpened
from tests.support.cluster import fresh, local_cluster
from tests.support.simulation import simulation

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture(scope="module")
def leased() -> Iterator[LocalCluster]:
    with local_cluster(lease_ms=1_500) as running:
        yield running


async def test_a_server_whose_session_ended_stops_says_so_and_opens_another_one(leased: LocalCluster) -> None:
    async with simulation(leased, fresh("sim")) as one:
        earlier, transfers = one.server.session, one.server.transfers
        ball, player = fresh("ball"), fresh("Player")
        record = await transfers.spawn(ball, owner=player, position=(1.0, 2.0, 3.0))
        await transfers.enter(player)
        await Homeserver(one.server._store, earlier).end_session(EndReason.DRAINED)
        await one.told(SessionLost, entities=(ball,))
        await one.told(SessionOpened, lease_ms=1_500)
        assert one.server.session != earlier
        assert one.server.transfers.held() == []
        with pytest.raises(InvalidStateError, match="is over"):
            await transfers.give(ball, owner="Player2")
        # The player is here still, and the entity is anybody's to take.
        again = await one.server.transfers.spawn(ball, owner=player, position=(0.0, 0.0, 0.0))
        assert again.epoch > record.epoch
        assert again.session == one.server.session
        await one.server.transfers.leave(player)
        assert one.problems() == []


class OpenedInVain(Homeserver):
    """Sessions that end as soon as they are open, so many of them."""

    left = 0

    async def open_session(self, **values: Any) -> OpenedSession:
        opened = await super().open_session(**values)
        if OpenedInVain.left > 0:
            OpenedInVain.left -= 1
            await self.end_session(EndReason.DRAINED)
        return opened


async def test_what_comes_for_a_session_that_is_over_is_no_problem_of_its_server(
    leased: LocalCluster,
) -> None:
    """Of two servers that end together, what one leaves may be granted to the other, which has stopped."""
    async with simulation(leased, fresh("sim")) as one:
        tenure = one.server._present
        tenure.fence()
        gained = asyncio.Event()

        async def gain() -> None:
            gained.set()
            await tenure._standing.gain(fresh("ball"), 1 << 48, None)

        tenure.spawn(gain())
        await gained.wait()
    assert one.problems() == []


async def test_a_session_that_is_lost_while_it_begins_is_followed_by_another_one(
    leased: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Noting(DataPlaneClient):
        def begin_session(self, session: bytes) -> None:
            told.append("begin")
            super().begin_session(session)

        async def end_session(self) -> None:
            await super().end_session()
            told.append("end")

    monkeypatch.setattr(tenure, "Homeserver", OpenedInVain)
    monkeypatch.setattr(server, "DataPlaneClient", Noting)
    async with simulation(leased, fresh("sim")) as one:
        player = fresh("Player")
        await one.server.transfers.enter(player)
        OpenedInVain.left = 2
        await Homeserver(one.server._store, one.server.session).end_session(EndReason.DRAINED)
        await one.told(SessionOpened)
        assert OpenedInVain.left == 0
        await one.server.transfers.leave(player)
        assert one.problems() == []
        # What one of them held would be sealed on under the deadline of the next.
        assert told == ["begin", "end", "begin", "end", "begin", "end", "begin"]


class CutOff(Homeserver):
    """No member is reached, for so many sessions: the network is cut, and the name server with it."""

    left = 0

    async def open_session(self, **values: Any) -> OpenedSession:
        if CutOff.left > 0:
            CutOff.left -= 1
            raise HandshakeError("the host 'hs1' does not resolve")
        return await super().open_session(**values)


async def test_a_server_that_loses_its_session_while_no_member_is_reached_opens_one_once_one_is(
    leased: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "Homeserver", CutOff)
    monkeypatch.setattr(server, "_AGAIN_SECONDS", 0.05)
    async with simulation(leased, fresh("sim")) as one:
        CutOff.left = 2
        await Homeserver(one.server._store, one.server.session).end_session(EndReason.DRAINED)
        await one.told(SessionOpened)
        assert CutOff.left == 0
        assert one.problems() == []


async def test_a_lease_shorter_than_echoes_may_be_old_is_refused() -> None:
    with (
        local_cluster(nodes=1, lease_ms=500) as short,
        pytest.raises(ConfigurationError, match="KB_LEASE_MS"),
    ):
        async with simulation(short, fresh("sim")):
            pass

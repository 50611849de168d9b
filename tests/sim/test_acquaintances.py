from dataclasses import replace
from typing import cast

import pytest

from bridge.errors import InvalidStateError
from bridge.registry import Homeserver
from bridge.sim.acquaintances import Acquaintances
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import AddPeer, RemovePeer
from tests.support.sealing import Known, NotingPlane


@pytest.fixture
def plane() -> NotingPlane:
    return NotingPlane()


@pytest.fixture
def servers(plane: NotingPlane) -> Acquaintances:
    return Acquaintances("sim1", home=cast(Homeserver, Known()), plane=cast(DataPlaneClient, plane))


async def test_a_server_is_known_from_the_feed_or_looked_up_and_never_itself(servers: Acquaintances) -> None:
    assert servers.session_of("sim2") is None
    await servers.know("sim2")
    assert servers.session_of("sim2") == b"o" * 16
    with pytest.raises(InvalidStateError, match="is this server"):
        await servers.know("sim1")
    servers.forget("sim2")
    assert servers.session_of("sim2") is None


async def test_the_data_plane_hears_of_each_change_once(servers: Acquaintances, plane: NotingPlane) -> None:
    record = await Known().server("sim2")
    for told in (record, record, replace(record, session=None), replace(record, server="sim1")):
        servers.learn(told)
    assert [(c.server, c.session) for c in plane.told if isinstance(c, AddPeer)] == [
        ("sim2", b"o" * 16),
        ("sim2", None),
    ]
    assert ("sim2" in servers, servers.in_session()) == (True, [])


async def test_one_whose_key_was_revoked_is_known_no_more(servers: Acquaintances, plane: NotingPlane) -> None:
    record = await Known().server("sim2")
    servers.learn(record)
    assert servers.in_session() == ["sim2"]
    for _ in range(2):
        servers.learn(replace(record, revoked=True))
    assert "sim2" not in servers
    assert plane.told[1:] == [RemovePeer(server="sim2")]

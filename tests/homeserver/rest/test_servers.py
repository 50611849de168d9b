from __future__ import annotations

from bridge.jose.credentials import Role
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind, whole_list


@erlang
async def test_a_server_is_told_with_key_and_address_and_no_session(rest: Rest, server: Server) -> None:
    """R0-15, R0-16."""
    reader = await rest.client("reader")
    told = await reader.get(f"/v1/servers/{server.name}", params={"fresh": True})
    assert told.json() == {
        "server": server.name,
        "online": True,
        "key": server.key.public().to_dict(),
        "thumbprint": server.key.thumbprint(),
        "address": {"host": "127.0.0.1", "port": 4000},
    }
    listed = await whole_list(reader, "/v1/servers", "servers")
    assert told.json() in listed
    assert [one["server"] for one in listed] == sorted(one["server"] for one in listed)
    assert kind(await reader.get(f"/v1/servers/{fresh('nowhere')}")) == "no_server"


@erlang
async def test_a_scene_hides_the_addresses_of_its_servers(rest: Rest, server: Server) -> None:
    operator = await rest.client("ops", Role.OPERATOR)
    scene = f"/v1/scenes/{fresh('scene')}"
    await operator.put(scene, json={"servers": [server.name], "hand_out": False})
    reader = await rest.client("reader")
    path = f"/v1/servers/{server.name}"
    assert (await reader.get(path, params={"fresh": True})).json()["address"] is None
    await operator.delete(scene)
    assert (await reader.get(path, params={"fresh": True})).json()["address"] is not None

from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom
from bridge.jose.credentials import Role
from bridge.khepri import Khepri
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


@erlang
async def test_a_page_of_servers_reads_those_scenes_alone_that_hide_addresses(
    rest: Rest, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await rest.client("ops", Role.OPERATOR)
    told, hiding = fresh("scene"), fresh("scene")
    for scene, hand_out in ((told, True), (hiding, False)):
        await operator.put(f"/v1/scenes/{scene}", json={"servers": [server.name], "hand_out": hand_out})
    read: set[bytes] = set()
    get_many = Khepri.get_many

    async def noted(self: Khepri, *arguments: Any, **options: Any) -> Any:
        found = await get_many(self, *arguments, **options)
        read.update(record[Atom("scene")] for record in found.values() if Atom("scene") in record)
        return found

    monkeypatch.setattr(Khepri, "get_many", noted)
    reader = await rest.client("reader")
    listed = await whole_list(reader, "/v1/servers", "servers", limit=100, fresh=True)
    assert [one["address"] for one in listed if one["server"] == server.name] == [None]
    assert hiding.encode() in read
    assert told.encode() not in read
    for scene in (told, hiding):
        await operator.delete(f"/v1/scenes/{scene}")

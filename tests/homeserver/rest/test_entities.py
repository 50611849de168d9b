from __future__ import annotations

from bridge.homeserver.rest.entities import etag
from bridge.jose.credentials import Role
from bridge.registry import Rule
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind, problem, whole_list


@erlang
async def test_master_owner_and_operator_change_what_is_theirs(rest: Rest, server: Server) -> None:
    """R0-6, R0-7."""
    master, owner, heir, thing = fresh("Master"), fresh("Owner"), fresh("Heir"), fresh("thing")
    await server.home.create_entity(entity=thing, owner=owner, master=master, rule=Rule.DENY)
    path = f"/v1/entities/{thing}"
    of_master, of_owner = await rest.client(master), await rest.client(owner)
    operator = await rest.client("ops", Role.OPERATOR)

    assert (await of_master.put(f"{path}/rule", json={"rule": "ask"})).json()["rule"] == "ask"
    default = await of_master.put(f"{path}/default-owner", json={"default_owner": heir})
    assert default.json()["default_owner"] == heir
    given = await of_owner.post(f"{path}/transfer", json={"to": fresh("Player")})
    assert given.json()["server"] == server.name
    assert (await operator.post(f"{path}/revoke")).json()["owner"] == heir
    assert (await of_master.put(f"{path}/master", json={"master": heir})).json()["master"] == heir

    refused = await of_master.put(f"{path}/rule", json={"rule": "deny"})
    assert (kind(refused), problem(refused)["master"], refused.status_code) == ("not_master", heir, 403)
    nobody = await of_owner.post(f"{path}/transfer", json={"to": owner})
    assert (kind(nobody), problem(nobody)["owner"]) == ("not_owner", heir)


@erlang
async def test_a_name_in_the_body_is_nobodys_authority(rest: Rest, server: Server) -> None:
    master, thing = fresh("Master"), fresh("thing")
    await server.home.create_entity(entity=thing, owner=master, master=master, rule=Rule.DENY)
    rival = await rest.client(fresh("Rival"))
    body = {"rule": "allow", "by": master, "player": master, "role": "operator"}
    assert kind(await rival.put(f"/v1/entities/{thing}/rule", json=body)) == "not_master"


@erlang
async def test_an_entity_is_told_once_for_each_version(rest: Rest, server: Server) -> None:
    record = await server.spawn(fresh("thing"))
    reader = await rest.client("reader")
    path = f"/v1/entities/{record.entity}"
    told = await reader.get(path)
    assert (told.json()["server"], told.json()["epoch"]) == (server.name, str(record.epoch))
    assert told.headers["ETag"] == etag(record)
    for known in (etag(record), f'W/{etag(record)}, "7000"', "*"):
        same = await reader.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content) == (304, b"")
    assert (await reader.get(path, headers={"If-None-Match": '"0"'})).status_code == 200
    assert kind(await reader.get(f"/v1/entities/{fresh('nothing')}")) == "no_entity"


@erlang
async def test_entities_are_listed_by_owner_and_by_server_in_pages(rest: Rest, server: Server) -> None:
    owner, things = fresh("Owner"), sorted(fresh("thing") for _ in range(5))
    for thing in things:
        await server.home.create_entity(entity=thing, owner=owner, master=owner, rule=Rule.DENY)
    reader = await rest.client("reader")
    for path in (f"/v1/players/{owner}/entities", f"/v1/servers/{server.name}/entities"):
        found = await whole_list(reader, path, "entities", fresh=True)
        assert [entity["entity"] for entity in found] == things
    assert (await reader.get(f"/v1/players/{fresh('Nobody')}/entities")).json()["entities"] == []
    assert kind(await reader.get(f"/v1/servers/{fresh('nowhere')}/entities")) == "no_server"
    await server.home.close_session()
    gone = await reader.get(f"/v1/servers/{server.name}/entities", params={"fresh": True})
    assert gone.json() == {"entities": [], "next": None}
    await server.open()
    assert kind(await reader.get(f"/v1/players/{owner}/entities", params={"limit": 201})) == "invalid_request"

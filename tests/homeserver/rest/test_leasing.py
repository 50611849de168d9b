from __future__ import annotations

from typing import Any

from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.registry import EntityRecord, Rule
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind


async def renew(rest: Rest, server: Server, number: int = 1, **said: Any) -> None:
    """One renewal of a server that has no cookie."""
    machine = await rest.client(server.name, Role.SERVER, key=server.key)
    path = f"/v1/sessions/{base64url_encode(server.session)}/renewals"
    body = {"number": number, "tick": number, "load": 0, **said}
    assert kind(await machine.post(path, json=body)) == "200"


async def spawn(server: Server, owner: str, master: str) -> EntityRecord:
    """An entity that nobody but these two may take."""
    return await server.home.create_entity(entity=fresh("thing"), owner=owner, master=master, rule=Rule.DENY)


@erlang
async def test_what_a_server_streams_for_players_who_are_there_passes_to_it_when_its_holder_ends(
    rest: Rest, server: Server
) -> None:
    """R0-A5, without a cookie; nothing else does, whatever the server says."""
    holder = Server(server.store, fresh("sim"))
    await holder.open()
    here, elsewhere = fresh("Player"), fresh("Player")
    player = await rest.client(here)
    assert kind(await player.put(f"/v1/players/{here}/presence", json={"server": server.name})) == "200"
    owned, mastered = await spawn(holder, here, elsewhere), await spawn(holder, elsewhere, here)
    unseen, foreign = await spawn(holder, here, here), await spawn(holder, elsewhere, elsewhere)
    await renew(rest, server, streamed=[record.entity for record in (owned, mastered, foreign)])
    await holder.home.close_session()
    now = [(await server.home.entity(record.entity)).server for record in (owned, mastered, unseen, foreign)]
    assert now == [server.name, server.name, None, None]


@erlang
async def test_who_has_released_an_entity_gets_it_back_from_a_taker_that_ends(
    rest: Rest, server: Server
) -> None:
    player = fresh("Player")
    client = await rest.client(player)
    await client.put(f"/v1/players/{player}/presence", json={"server": server.name})
    kept, released = await spawn(server, player, player), await spawn(server, player, player)
    taker = Server(server.store, fresh("sim"))
    await taker.open()
    for record in (kept, released):
        await taker.pull(record, owner=player)
    await renew(
        rest,
        server,
        streamed=[kept.entity, released.entity],
        released=[{"entity": released.entity, "epoch": str(released.epoch)}],
    )
    await taker.home.close_session()
    now = [await server.home.entity(record.entity) for record in (kept, released)]
    assert [record.server for record in now] == [None, server.name]
    assert now[1].awaiting is None, "nothing is due to it"

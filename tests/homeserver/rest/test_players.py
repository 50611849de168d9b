from __future__ import annotations

import pytest

from bridge.errors import AuthorityError
from bridge.jose.credentials import Role
from bridge.khepri import Khepri
from bridge.registry import NotHereError, Ownership, Rule
from tests.support.authority import STEP, Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind


@erlang
async def test_a_player_enters_is_found_and_leaves_what_it_owns_to_the_master(
    rest: Rest, server: Server
) -> None:
    """R0-8."""
    name, master, thing = fresh("Player"), fresh("Master"), fresh("thing")
    player = await rest.client(name)
    place = f"/v1/players/{name}/presence"
    entered = await player.put(place, json={"server": server.name, "a member of tomorrow": 1})
    assert entered.json() == {"player": name, "server": server.name}
    found = await (await rest.client(master)).get(place, params={"fresh": True})
    assert found.json() == entered.json()
    await server.home.create_entity(entity=thing, owner=name, master=master, rule=Rule.DENY)
    left = await player.delete(place)
    assert left.json() == {"player": name, "passed": [thing]}
    assert kind(await player.get(place, params={"fresh": True})) == "no_player"


@erlang
async def test_nobody_enters_or_leaves_for_another_but_an_operator(rest: Rest, server: Server) -> None:
    name = fresh("Player")
    place = f"/v1/players/{name}/presence"
    body = {"server": server.name}
    rival, machine = await rest.client(fresh("Rival")), await rest.client(name, Role.SERVER)
    operator = await rest.client("ops", Role.OPERATOR)
    assert kind(await rival.put(place, json=body)) == "other_name"
    assert kind(await machine.put(place, json=body)) == "role"
    assert kind(await operator.put(place, json=body)) == "200"
    assert kind(await rival.delete(place)) == "other_name"
    assert kind(await operator.delete(place)) == "200"


@erlang
async def test_one_enters_only_where_a_server_is(rest: Rest, server: Server) -> None:
    name = fresh("Player")
    player = await rest.client(name)
    place = f"/v1/players/{name}/presence"
    assert kind(await player.put(place, json={"server": fresh("nowhere")})) == "no_server"
    await server.home.close_session()
    assert kind(await player.put(place, json={"server": server.name})) == "server_away"
    await server.open()


@erlang
async def test_what_the_service_read_of_a_player_is_decided_anew_with_what_it_asks(
    store: Khepri, server: Server
) -> None:
    """A session that ended, or that the player left, since it was read: refused, and nothing is done."""
    player, ownership, other = fresh("Player"), Ownership(store), Server(store, fresh("sim"))
    await other.open()
    await ownership.enter(player, server.session)
    thing = await other.spawn(fresh("thing"))
    await ownership.enter(player, other.session)
    with pytest.raises(NotHereError):
        await ownership.leave(player, server.session)
    with pytest.raises(NotHereError):
        # Read while the player was nowhere.
        await ownership.leave(player, bytes(16))
    with pytest.raises(NotHereError):
        await ownership.request(
            thing, player=player, session=server.session, authority=False, seconds=1.0, step=STEP
        )
    await other.home.close_session()
    with pytest.raises(AuthorityError, match="no_session"):
        await ownership.enter(player, other.session)

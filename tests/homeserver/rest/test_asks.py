from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from bridge.jose.credentials import Role
from bridge.registry import EntityRecord, Rule
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind, problem


@dataclass
class Place:
    """A master and a guest at one server, as clients, and a thing under the rule ``ask``."""

    server: Server
    master: str
    guest: str
    of_master: httpx.AsyncClient
    of_guest: httpx.AsyncClient
    record: EntityRecord

    @property
    def path(self) -> str:
        return f"/v1/entities/{self.record.entity}/requests"

    async def ask(self, **changes: object) -> httpx.Response:
        body = {"known_owner": self.record.owner, "known_epoch": str(self.record.epoch), **changes}
        return await self.of_guest.post(self.path, json=body)

    async def answer(self, *, grant: bool) -> httpx.Response:
        return await self.of_master.post(f"{self.path}/{self.guest}/answer", json={"grant": grant})


@pytest.fixture
async def place(rest: Rest, server: Server) -> Place:
    master, guest = fresh("Master"), fresh("Guest")
    made = Place(
        server,
        master,
        guest,
        await rest.client(master),
        await rest.client(guest),
        await server.home.create_entity(entity=fresh("thing"), owner=master, master=master, rule=Rule.ASK),
    )
    for player, client in ((master, made.of_master), (guest, made.of_guest)):
        assert (await client.put(f"/v1/players/{player}/presence", json={"server": server.name})).is_success
    return made


@erlang
async def test_a_request_waits_where_its_location_says_until_the_master_answers(place: Place) -> None:
    """R0-8."""
    asked = await place.ask()
    assert (asked.status_code, asked.json()["outcome"]) == (202, "pending")
    where = asked.headers["Location"]
    assert where == f"{place.path}/{place.guest}"
    fresh_read = {"fresh": True}
    assert (await place.of_guest.get(where, params=fresh_read)).json()["expires"] == asked.json()["expires"]

    questions = await place.of_master.get(f"/v1/players/{place.master}/asks", params=fresh_read)
    (question,) = questions.json()["asks"]
    assert (question["player"], question["server"]) == (place.guest, place.server.name)
    assert (await place.of_guest.get(place.path, params=fresh_read)).json() == questions.json()

    granted = await place.answer(grant=True)
    assert (granted.json()["outcome"], granted.json()["record"]["owner"]) == ("granted", place.guest)
    told = (await place.of_guest.get(where, params=fresh_read)).json()
    assert (told["outcome"], told["record"]["owner"]) == ("granted", place.guest)
    assert kind(await place.answer(grant=True)) == "no_ask"


@erlang
async def test_a_request_is_refused_withdrawn_or_expires(place: Place) -> None:
    await place.ask()
    again = await place.ask()
    assert (kind(again), problem(again)["expires"] > 0) == ("pending", True)
    assert (await place.answer(grant=False)).json()["outcome"] == "refused"
    where = f"{place.path}/{place.guest}"
    assert (await place.of_guest.get(where, params={"fresh": True})).json()["outcome"] == "refused"

    await place.ask()
    assert kind(await place.of_master.delete(where)) == "other_name"
    assert (await place.of_guest.delete(where)).json()["owner"] == place.master
    assert kind(await place.of_guest.delete(where)) == "no_ask"

    await place.ask(seconds=0.001)
    await asyncio.sleep(0.005)
    assert (await place.of_guest.get(where, params={"fresh": True})).json()["outcome"] == "expired"


@erlang
async def test_under_allow_it_is_granted_at_once_and_who_comes_second_hears_the_winner(place: Place) -> None:
    """R0-8, the double grab."""
    await place.of_master.put(f"/v1/entities/{place.record.entity}/rule", json={"rule": "allow"})
    won = await place.ask()
    assert (won.status_code, won.json()["record"]["owner"]) == (200, place.guest)
    assert kind(await place.ask()) == "already_owner"
    lost = await place.of_master.post(place.path, json={"known_owner": place.master})
    assert (kind(lost), problem(lost)["winner"]) == ("conflict", place.guest)


@erlang
async def test_nobody_asks_in_anothers_name_but_an_operator_who_says_whose(place: Place, rest: Rest) -> None:
    assert kind(await place.ask(player=place.master)) == "other_name"
    operator = await rest.client("ops", Role.OPERATOR)
    body = {"known_owner": place.master, "known_epoch": str(place.record.epoch)}
    assert kind(await operator.post(place.path, json=body)) == "invalid_request"
    asked = await operator.post(place.path, json={**body, "player": place.guest})
    assert (asked.status_code, asked.json()["player"]) == (202, place.guest)
    assert kind(await place.of_guest.get(f"/v1/players/{place.master}/asks")) == "other_name"


@erlang
async def test_who_is_nowhere_asks_for_nothing(place: Place, rest: Rest) -> None:
    ghost = await rest.client(fresh("Ghost"))
    assert kind(await ghost.post(place.path, json={"known_owner": place.master})) == "no_player"
    assert kind(await ghost.get(f"{place.path}/{fresh('Ghost')}")) == "no_ask"

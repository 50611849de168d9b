from __future__ import annotations

import secrets
from dataclasses import dataclass

import httpx
import pytest

from bridge.jose import Jwk
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_decode_untrusted, base64url_encode
from bridge.registry import Homeserver, NotHereError, Rule, Step
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind, problem


@dataclass
class Machine:
    """A server that a player runs: it has a key, a token, and no cookie."""

    name: str
    key: Jwk
    client: httpx.AsyncClient
    session: str

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session}"

    async def open(self, **changes: object) -> httpx.Response:
        body = {
            "session": self.session,
            "key": self.key.public().to_dict(),
            "address": {"host": "127.0.0.1", "port": 4000},
            **changes,
        }
        return await self.client.post("/v1/sessions", json=body)

    async def does(self, what: str, entity: str, **body: object) -> httpx.Response:
        return await self.client.post(f"{self.path}/entities/{entity}/{what}", json=body)


async def machine(rest: Rest, key: Jwk | None = None, name: str = "") -> Machine:
    name, key = name or fresh("home"), key or Jwk.generate()
    client = await rest.client(name, Role.SERVER, key=key)
    return Machine(name, key, client, base64url_encode(secrets.token_bytes(16)))


@pytest.fixture
async def home(rest: Rest) -> Machine:
    made = await machine(rest)
    assert (await made.open()).status_code == 201
    return made


async def _enter(rest: Rest, at: str) -> str:
    player = fresh("Player")
    client = await rest.client(player)
    assert (await client.put(f"/v1/players/{player}/presence", json={"server": at})).is_success
    return player


@erlang
async def test_a_server_without_a_cookie_opens_makes_gives_releases_takes_and_closes(
    rest: Rest, home: Machine
) -> None:
    player, thing = await _enter(rest, home.name), fresh("thing")
    body = {"entity": thing, "owner": player, "master": player, "rule": "deny"}
    made = await home.client.post(f"{home.path}/entities", json=body)
    assert (made.status_code, made.json()["server"]) == (201, home.name)
    assert kind(await home.client.post(f"{home.path}/entities", json=body)) == "entity_exists"
    again = await home.open()
    assert [entity["entity"] for entity in again.json()["held"]] == [thing], "a repeat is told what it holds"

    epoch = made.json()["epoch"]
    given = await home.does("give", thing, epoch=epoch, owner=fresh("Player"))
    assert given.json()["server"] == home.name
    released = await home.does("release", thing, epoch=epoch)
    assert (released.json()["server"], released.json()["epoch"]) == (None, epoch)
    assert kind(await home.does("release", thing, epoch=epoch)) == "not_holder"
    # Under `deny` the master may: who is here, so that this server may speak for them.
    pulled = await home.does("pull", thing, epoch=epoch, owner=player)
    assert (pulled.json()["server"], int(pulled.json()["epoch"]) > int(epoch)) == (home.name, True)
    assert (await home.client.delete(home.path)).status_code == 204
    assert kind(await home.client.delete(home.path)) == "no_session"


@erlang
async def test_an_entity_is_pushed_and_claimed_with_the_releases_of_servers(
    rest: Rest, home: Machine, server: Server
) -> None:
    player, thing = await _enter(rest, home.name), fresh("thing")
    record = await server.home.create_entity(entity=thing, owner=player, master=player, rule=Rule.DENY)
    taker = Server(server.store, home.name, home.key)
    forged = server.release(record, taker, key=Jwk.generate())
    assert kind(await home.does("claim", thing, owner=player, box=forged)) == "bad_release"
    claimed = await home.does("claim", thing, owner=player, box=server.release(record, taker))
    assert claimed.json()["server"] == home.name
    body = {"epoch": claimed.json()["epoch"], "owner": player, "to": server.name, "box": "a.b"}
    pushed = await home.does("push", thing, **body)
    assert pushed.json()["server"] == server.name
    assert (await server.inbox(thing)).giver == home.name


@erlang
async def test_a_server_speaks_for_nobody_who_has_not_entered_there(
    rest: Rest, home: Machine, server: Server
) -> None:
    """Else any player's machine could take what is under `deny`, in its master's name."""
    master, thing = await _enter(rest, server.name), fresh("thing")
    record = await server.home.create_entity(entity=thing, owner=master, master=master, rule=Rule.DENY)
    taken = await home.does("pull", thing, epoch=str(record.epoch), owner=master)
    assert kind(taken) == "no_player"
    body = {"entity": fresh("thing"), "owner": master, "master": master}
    assert kind(await home.client.post(f"{home.path}/entities", json=body)) == "no_player"
    box = server.release(record, Server(server.store, home.name, home.key))
    assert kind(await home.does("claim", thing, owner=fresh("Ghost"), box=box)) == "no_player"


@erlang
async def test_that_a_player_is_here_is_decided_where_the_entity_is_taken(
    rest: Rest, home: Machine, server: Server
) -> None:
    """What a service process read before may be over: who left in between is spoken for by nobody."""
    player, thing = await _enter(rest, home.name), fresh("thing")
    record = await server.home.create_entity(entity=thing, owner=player, master=player, rule=Rule.DENY)
    at_home = Homeserver(server.store, base64url_decode_untrusted(home.session))
    assert (await (await rest.client(player)).delete(f"/v1/players/{player}/presence")).is_success
    step = Step(trace=bytes(16), hop=0)
    with pytest.raises(NotHereError):
        await at_home.pull(entity=thing, epoch=record.epoch, owner=player, step=step, present=[player])
    with pytest.raises(NotHereError):
        await at_home.create_entity(
            entity=fresh("thing"), owner=player, master=player, rule=Rule.DENY, present=[player, player]
        )
    assert (await server.home.entity(thing)).server == server.name
    box = server.release(record, Server(server.store, home.name, home.key))
    with pytest.raises(NotHereError):
        await at_home.claim(entity=thing, owner="Ghost", box=box, step=step, present=["Ghost"])
    claimed = await at_home.claim(entity=thing, owner=player, box=box, step=step, present=[player])
    assert claimed.server == home.name, "it stays its owner's, who may be anywhere"


@erlang
async def test_a_session_is_of_the_server_and_the_key_that_opened_it(rest: Rest, home: Machine) -> None:
    thief = await machine(rest)
    thief.session = home.session
    other_key = await machine(rest, name=home.name)
    other_key.session = home.session
    for one in (thief, other_key):
        assert kind(await one.client.delete(one.path)) == "no_session"
    player = await rest.client(home.name)
    assert kind(await player.delete(home.path)) == "role"
    assert problem(await player.delete(home.path))["roles"] == ["server"]


@erlang
async def test_the_key_of_a_session_is_that_of_the_token(rest: Rest) -> None:
    made = await machine(rest)
    assert kind(await made.open(key=Jwk.generate().public().to_dict())) == "invalid_key"
    assert kind(await made.open(key={"kty": "EC"})) == "invalid_key"
    # The last character has bits beyond 16 bytes.
    assert kind(await made.open(session="AAECAwQFBgcICQoLDA0ODx")) == "invalid_request"
    assert kind(await made.open(address={"host": "a b", "port": 1})) == "invalid_request"
    assert kind(await made.open(key=made.key.to_dict())) == "201"
    told = await made.client.get(f"/v1/servers/{made.name}", params={"fresh": True})
    assert told.json()["key"] == made.key.public().to_dict(), "a private half that was sent goes no further"


@erlang
async def test_the_trace_of_a_request_is_the_one_that_servers_see(
    rest: Rest, home: Machine, server: Server
) -> None:
    player = await _enter(rest, home.name)
    record = await server.home.create_entity(
        entity=fresh("thing"), owner=player, master=player, rule=Rule.ALLOW
    )
    pulled = await home.does("pull", record.entity, epoch=str(record.epoch), owner=player)
    assert (await server.inbox(record.entity)).step.trace.hex() == pulled.headers["Khepri-Trace"]

"""Who may do what by REST: the table of docs/rest.md, cell by cell (R0-42)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.homeserver.rest import asks, entities, feed, players, renewals, scenes, servers, sessions
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.registry import EntityRecord, Rule
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.rest import Rest, kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

ROUTERS = (asks, entities, feed, players, renewals, scenes, servers, sessions)
COLUMNS = ["nobody", "anyone", "owner", "master", "server", "holder", "operator"]


def rows() -> list[list[str]]:
    text = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()
    section = text.partition("## Who may do what")[2]
    lines = [line.strip("|\n ").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


CELLS = [
    (row[0].replace("`", ""), column, cell.strip("`"))
    for row in rows()
    for column, cell in zip(COLUMNS, row[1:], strict=True)
]


def test_the_table_covers_every_operation() -> None:
    routes: list[Any] = [route for module in ROUTERS for route in module.router.routes]
    operations = {f"{method} {route.path}" for route in routes for method in route.methods}
    assert {" ".join(row[0].replace("`", "").split()[:2]) for row in rows()} == operations


@dataclass
class Place:
    """One server that holds a thing, another one, and everybody who may ask."""

    rest: Rest
    holder: Server
    other: Server
    thing: str
    owner: str
    master: str
    guest: str
    asker: str
    record: EntityRecord

    async def client(self, column: str) -> httpx.AsyncClient:
        match column:
            case "nobody":
                return await self.rest.client()
            case "operator":
                return await self.rest.client("ops", Role.OPERATOR)
            case "server" | "holder":
                machine = self.machine(column)
                return await self.rest.client(machine.name, Role.SERVER, key=machine.key)
        return await self.rest.client({"anyone": self.guest, "owner": self.owner}.get(column, self.master))

    def machine(self, column: str) -> Server:
        return self.holder if column == "holder" else self.other


@pytest.fixture
async def place(rest: Rest, server: Server) -> AsyncIterator[Place]:
    other = Server(server.store, fresh("sim"))
    await other.open()
    owner, master, guest, asker = (fresh(name) for name in ("Owner", "Master", "Guest", "Asker"))
    thing = fresh("thing")
    record = await server.home.create_entity(entity=thing, owner=owner, master=master, rule=Rule.ASK)
    for name in (owner, master, guest, asker):
        await rest.context.ownership.enter(name, other.session)
    yield Place(rest, server, other, thing, owner, master, guest, asker, record)
    await other.home.close_session()


async def _request(place: Place, operation: str, column: str) -> httpx.Response:
    method, template, *about = operation.split()
    said = " ".join(about)
    ownership, machine = place.rest.context.ownership, place.machine(column)
    scene = fresh("scene")
    player, session = place.asker, machine.session
    if said == "of the holder":
        session = place.holder.session
    if template.endswith("/asks"):
        player = place.master
    if said.startswith("under "):
        await ownership.set_rule(place.thing, Rule(about[1]), by=place.master)
    if ("/requests" in template and method != "POST") or template.endswith("/answer"):
        await ownership.request(place.record, player=place.asker, session=place.other.session)
    if template == "/v1/scenes/{scene}" and method != "PUT":
        operator = await place.rest.client("ops", Role.OPERATOR)
        assert (await operator.put(f"/v1/scenes/{scene}", json={"servers": []})).is_success
    guest = place.guest
    if (template.endswith("/entities") and method == "POST") or template.endswith("/pull"):
        at = place.holder if column == "holder" else place.other
        elsewhere = place.other if column == "holder" else place.holder
        await ownership.enter(guest, (elsewhere if said == "for who is elsewhere" else at).session)
    epoch = str(place.record.epoch)
    bodies: dict[str, dict[str, Any]] = {
        "rule": {"rule": "allow"},
        "master": {"master": guest},
        "default-owner": {"default_owner": guest},
        "transfer": {"to": guest},
        "requests": {
            "known_owner": place.owner,
            "known_epoch": epoch,
            **({"player": guest} if column == "operator" else {}),
        },
        "answer": {"grant": True},
        "presence": {"server": place.holder.name},
        "{scene}": {"servers": [place.holder.name]},
        "sessions": {
            "session": base64url_encode(machine.session),
            "key": machine.key.public().to_dict(),
            "address": {"host": "127.0.0.1", "port": 4000},
        },
        "renewals": {"number": 1, "tick": 1, "load": 1, "obeyed": []},
        "entities": {"entity": fresh("thing"), "owner": guest, "master": guest, "rule": "deny"},
        "give": {"epoch": epoch, "owner": guest},
        "push": {"epoch": epoch, "owner": guest, "to": place.other.name, "box": "a.b"},
        "release": {"epoch": epoch},
        "pull": {"epoch": epoch, "owner": guest},
        "claim": {"owner": place.owner, "box": "a.b"},
    }
    path = template.format(
        entity=place.thing,
        player=player,
        server=place.holder.name,
        scene=scene,
        session=base64url_encode(session),
    )
    last = template.rpartition("/")[2]
    client = await place.client(column)
    body = bodies.get(last) if method in ("PUT", "POST") else None
    return await client.request(method, path, json=body, params={"fresh": True} if method == "GET" else {})


@pytest.mark.parametrize(("operation", "column", "cell"), CELLS)
async def test_each_may_do_what_the_table_says(place: Place, operation: str, column: str, cell: str) -> None:
    """R0-42, R0-6."""
    if operation == "GET /v1/feed":
        # What is asked for there is nothing, which is refused only after who asks was looked at.
        cell = "invalid_request" if cell == "yes" else cell
    known = place.record
    before = (known.owner, known.master, known.server, known.epoch)
    response = await _request(place, operation, column)
    if cell == "yes":
        assert response.is_success, response.text
        assert response.status_code != 202
    elif cell == "asks":
        assert response.status_code == 202
    else:
        assert kind(response) == cell
        now = await place.holder.home.entity(place.thing)
        assert (now.owner, now.master, now.server, now.epoch) == before

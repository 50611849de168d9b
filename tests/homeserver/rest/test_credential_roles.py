"""Who may have what signed and revoked: the table of docs/guide-credentials.md, cell by cell (R0-42)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.homeserver.rest import certificates, grants, keys, tickets
from bridge.jose import Jwk
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from bridge.registry import Credentials, Rule
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.credentials import KeySigner, certificate, enrolment, issued, new_id, proof
from tests.support.rest import Rest, kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

COLUMNS: list[Role | None] = [None, Role.PLAYER, Role.SERVER, Role.OPERATOR]
GUIDE = Path(__file__).parents[3] / "docs" / "guide-credentials.md"


def rows() -> list[list[str]]:
    section = GUIDE.read_text().partition("## Who may do what")[2]
    lines = [line.strip("|\n ").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


CELLS = [
    (row[0].replace("`", ""), role, cell.strip("`"))
    for row in rows()
    for role, cell in zip(COLUMNS, row[1:], strict=True)
]


def test_the_table_covers_every_operation() -> None:
    routes: list[Any] = [r for module in (certificates, grants, keys, tickets) for r in module.router.routes]
    operations = {f"{method} {route.path}" for route in routes for method in route.methods}
    assert {" ".join(row[0].replace("`", "").split()[:2]) for row in rows()} == operations


@dataclass
class Place:
    """Everybody who may ask, each enrolled with a key, and two servers of which each holds a thing."""

    rest: Rest
    own: Server
    other: Server
    things: dict[str, str]
    names: dict[Role, str]
    keys: dict[Role, Jwk] = field(default_factory=lambda: {role: Jwk.generate() for role in Role})

    async def client(self, role: Role | None) -> httpx.AsyncClient:
        if role is None:
            return await self.rest.client()
        return await self.rest.client(self.names[role], role, key=self.keys[role])


@pytest.fixture
async def place(store: Khepri) -> AsyncIterator[Place]:
    async with await Rest.over(store, signer=KeySigner()) as rest:
        own, other = Server(store, fresh("own")), Server(store, fresh("other"))
        things = {}
        for server in (own, other):
            await server.open()
            record = await server.home.create_entity(
                entity=fresh("thing"), owner="p", master="p", rule=Rule.ALLOW
            )
            things[server.name] = record.entity
        names = {Role.PLAYER: fresh("Alice"), Role.SERVER: own.name, Role.OPERATOR: fresh("ops")}
        made = Place(rest, own, other, things, names)
        made.keys[Role.SERVER] = own.key
        for role in (Role.PLAYER, Role.SERVER):
            await enrol(made, names[role], role, made.keys[role])
        yield made
        await own.home.close_session()
        await other.home.close_session()


async def enrol(place: Place, name: str, role: Role, key: Jwk) -> None:
    now = int(time.time())
    await Credentials(place.own.store).enrol(
        certificate(key, subject=name, role=role, id=new_id(), issued_at=now, expires_at=now + 60)
    )


def _handing_over(place: Place, role: Role, other: Jwk) -> str:
    """By the key of one's own name: another one may have it."""
    now, key = int(time.time()), place.keys[role]
    mine = certificate(
        key,
        subject=place.names[role],
        role=role,
        instance=place.rest.context.instance,
        id=new_id(),
        issued_at=now,
        expires_at=now + 60,
    )
    instance = place.rest.context.instance
    made = proof(
        issued(mine), use="key", peer=other.thumbprint(), instance=instance, issued_at=now, id=new_id()
    )
    return made.signed(key)


async def _request(place: Place, operation: str, role: Role | None) -> httpx.Response:
    method, template, *said = operation.split()
    about = said[0] if said else ""
    http = await place.client(role)
    player = place.names[Role.PLAYER] if about == "own" else fresh("Bob")
    body: dict[str, Any] | None = None
    match template:
        case "/v1/revocations" if method == "POST":
            key = place.keys[role or Role.PLAYER] if about == "own" else Jwk.generate()
            body = {"id": key.thumbprint()}
        case "/v1/certificates":
            as_role = role or Role.PLAYER
            name = place.names[as_role] if about == "own" else fresh("Carol")
            # Another key for one's own name; a stranger's for another's.
            asked = enrolment(
                key := Jwk.generate(),
                subject=name,
                role=as_role if about == "own" else Role.PLAYER,
                instance=place.rest.context.instance,
                issued_at=int(time.time()),
                id=new_id(),
            )
            body = {"enrolment": asked.signed(key)}
            if about == "own" and role is not None:
                body["proof"] = _handing_over(place, role, key)
        case "/v1/tickets":
            if about == "other":
                await enrol(place, player, Role.PLAYER, Jwk.generate())
            body = {"server": place.own.name, "room": "tavern"}
            body |= {"player": player} if about == "other" else {}
        case "/v1/players/{player}/data" if method == "PUT":
            body = {"data": {"gold": 1}}
            if about == "here":
                await place.rest.context.ownership.enter(player, place.own.session)
    machine = place.own if about == "own" else place.other
    path = template.format(
        player=player, session=base64url_encode(machine.session), entity=place.things[machine.name]
    )
    return await http.request(method, path, json=body)


@pytest.mark.parametrize(("operation", "role", "cell"), CELLS)
async def test_every_cell_of_the_table_is_so(
    place: Place, operation: str, role: Role | None, cell: str
) -> None:
    """R0-42."""
    answer = await _request(place, operation, role)
    assert (kind(answer) if not answer.is_success else "yes") == cell

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from bridge.errors import SignatureError
from bridge.homeserver.issuing import IssuingSettings
from bridge.jose import Jwk, verify
from bridge.jose.credentials import Admitted, Awaited, Role, TicketDesk
from bridge.jose.encoding import base64url_encode, json_object_untrusted
from bridge.khepri import Khepri
from bridge.registry import Credentials, Ownership
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.credentials import ISSUER, KEYS, KeySigner
from tests.support.members import Member
from tests.support.rest import Rest, bearer, kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
async def opened(store: Khepri) -> AsyncIterator[Rest]:
    settings = IssuingSettings(open_registration=True)
    async with await Rest.over(store, signer=KeySigner(), issuing=settings) as made:
        yield made


@pytest.fixture
async def alice(opened: Rest) -> Member:
    made = Member.of(opened.context, await opened.client(), fresh("Alice"))
    await made.enrol()
    return made


def operator(rest: Rest) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer(rest.context.instance, 'root', Role.OPERATOR)}"}


async def test_a_players_data_arrives_with_the_player_and_is_believed_offline(
    opened: Rest, alice: Member, server: Server
) -> None:
    """R4-1…R4-8: the whole way, from the homeserver's tree to a desk that asks nobody."""
    data = {"gold": 7, "bag": ["sword"]}
    path = f"/v1/players/{alice.name}/data"
    assert kind(await alice.http.put(path, json={"data": data}, headers=operator(opened))) == "200"
    asked = {"server": server.name, "room": "tavern"}
    answer = await alice.http.post("/v1/tickets", json=asked, headers=await alice.bearer())
    assert answer.status_code == 201
    given = answer.json()
    assert (given["server"]["host"], given["server"]["port"]) == ("127.0.0.1", 4000)
    # R4-3: the player reads it.
    assert json_object_untrusted(verify(given["ticket"], ISSUER.public()))["data"] == data
    desk = TicketDesk(
        server=server.name,
        session=base64url_encode(server.session),
        instance=opened.context.instance,
        keys=KEYS,
        rooms={"tavern"},
    )
    assert isinstance(desk.present_untrusted(given["ticket"], now=time.time()), Awaited)
    admitted = desk.connect(alice.key.thumbprint(), 1, now=time.time())
    assert isinstance(admitted, Admitted)
    assert (admitted.ticket.subject, admitted.ticket.data) == (alice.name, data)
    with pytest.raises(SignatureError, match="used before"):
        desk.present_untrusted(given["ticket"], now=time.time())


async def test_a_ticket_is_for_the_servers_present_run(opened: Rest, alice: Member, server: Server) -> None:
    """R4-8."""
    asked = {"server": server.name, "room": "tavern"}
    given = (await alice.http.post("/v1/tickets", json=asked, headers=await alice.bearer())).json()
    desk = TicketDesk(
        server=server.name,
        session=base64url_encode(bytes(16)),
        instance=opened.context.instance,
        keys=KEYS,
        rooms={"tavern"},
    )
    with pytest.raises(SignatureError, match="another run"):
        desk.present_untrusted(given["ticket"], now=time.time())


async def test_a_ticket_is_given_to_its_player_or_to_an_operator(
    opened: Rest, alice: Member, server: Server
) -> None:
    asked = {"server": server.name, "room": "tavern", "player": alice.name}
    bob = Member.of(opened.context, alice.http, fresh("Bob"))
    await bob.enrol()
    assert kind(await bob.http.post("/v1/tickets", json=asked, headers=await bob.bearer())) == "other_name"
    assert kind(await bob.http.post("/v1/tickets", json=asked, headers=operator(opened))) == "201"
    nobody = {**asked, "player": fresh("Nobody")}
    assert kind(await bob.http.post("/v1/tickets", json=nobody, headers=operator(opened))) == "not_enrolled"
    assert kind(await bob.http.post("/v1/tickets", json=asked)) == "unauthenticated"


async def test_no_ticket_to_a_server_that_is_away_or_unknown(
    opened: Rest, alice: Member, store: Khepri
) -> None:
    away = Server(store, fresh("away"))
    await away.open()
    await away.home.close_session()
    for name, refused in ((away.name, "server_away"), (fresh("nobody"), "no_server")):
        asked = {"server": name, "room": "tavern"}
        answer = await alice.http.post("/v1/tickets", json=asked, headers=await alice.bearer())
        assert kind(answer) == refused


async def test_a_revoked_player_gets_no_ticket(
    opened: Rest, alice: Member, server: Server, store: Khepri
) -> None:
    """R0-24."""
    headers = await alice.bearer()
    await Credentials(store).revoke(alice.key.thumbprint(), reason="stolen")
    asked = {"server": server.name, "room": "tavern"}
    assert kind(await alice.http.post("/v1/tickets", json=asked, headers=headers)) == "not_enrolled"


async def test_data_is_written_by_the_server_where_the_player_is_and_read_by_the_player(
    opened: Rest, alice: Member, server: Server, store: Khepri
) -> None:
    """R4-1, R0-42."""
    path, body = f"/v1/players/{alice.name}/data", {"data": {"gold": 9}}
    by_server = bearer(opened.context.instance, server.name, Role.SERVER, key=Jwk.generate())
    headers = {"Authorization": f"Bearer {by_server}"}
    assert kind(await alice.http.put(path, json=body, headers=headers)) == "not_here"
    await Ownership(store).enter(alice.name, server.session)
    assert kind(await alice.http.put(path, json=body, headers=headers)) == "200"
    mine = await alice.bearer()
    assert kind(await alice.http.put(path, json=body, headers=mine)) == "role"
    assert (await alice.http.get(path, headers=mine)).json() == body
    bob = Member.of(opened.context, alice.http, fresh("Bob"))
    await bob.enrol()
    assert kind(await bob.http.get(path, headers=await bob.bearer())) == "other_name"
    large = {"data": {"a": "x" * 9000}}
    assert kind(await alice.http.put(path, json=large, headers=headers)) == "invalid_request"

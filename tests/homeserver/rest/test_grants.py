from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest

from bridge.errors import SignatureError
from bridge.jose.credentials import (
    Role,
    check_standing,
    read_grant_untrusted,
    read_session_ticket_untrusted,
)
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from bridge.registry import Credentials, Rule
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.credentials import KEYS, KeySigner
from tests.support.rest import Rest, kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
async def signing(store: Khepri) -> AsyncIterator[Rest]:
    async with await Rest.over(store, signer=KeySigner()) as made:
        yield made


@pytest.fixture
async def http(signing: Rest, server: Server) -> httpx.AsyncClient:
    return await signing.client(server.name, Role.SERVER, key=server.key)


def path(server: Server, rest: str) -> str:
    return f"/v1/sessions/{base64url_encode(server.session)}/{rest}"


async def test_a_grant_and_a_session_ticket_together_say_who_acts(
    signing: Rest, http: httpx.AsyncClient, server: Server
) -> None:
    """docs/protocol.md §10: a third party believes it offline, as long as the ticket lasts."""
    record = await server.spawn(fresh("gun"))
    given = (await http.post(path(server, f"entities/{record.entity}/grant"))).json()
    here, now = signing.context.instance, time.time()
    grant = read_grant_untrusted(given["grant"], keys=KEYS, instance=here)
    assert (grant.entity, grant.epoch, given["epoch"]) == (record.entity, record.epoch, str(record.epoch))
    shown = (await http.post(path(server, "ticket"))).json()
    ticket = read_session_ticket_untrusted(shown["ticket"], keys=KEYS, instance=here, now=now)
    check_standing(grant, ticket, now=now)
    assert shown["expires"] <= now + 5
    with pytest.raises(SignatureError, match="expired"):
        check_standing(grant, ticket, now=now + 5)


async def test_nothing_is_signed_for_what_is_not_so(
    signing: Rest, http: httpx.AsyncClient, server: Server, store: Khepri
) -> None:
    """R0-41, R0-42."""
    record = await server.spawn(fresh("gun"))
    other = Server(store, fresh("other"))
    await other.open()
    theirs = await other.home.create_entity(entity=fresh("hat"), owner="p", master="p", rule=Rule.ALLOW)
    assert kind(await http.post(path(server, f"entities/{theirs.entity}/grant"))) == "not_holder"
    assert kind(await http.post(path(server, f"entities/{fresh('nothing')}/grant"))) == "no_entity"
    for asked in ("ticket", f"entities/{theirs.entity}/grant"):
        assert kind(await http.post(path(other, asked))) == "no_session"
        thief = await signing.client(server.name, Role.SERVER)
        assert kind(await thief.post(path(server, asked))) == "no_session", "a token of another key"
        player = await signing.client("p")
        assert kind(await player.post(path(server, asked))) == "role"
    await server.home.release(entity=record.entity, epoch=record.epoch)
    assert kind(await http.post(path(server, f"entities/{record.entity}/grant"))) == "not_holder"
    await other.home.close_session()


async def test_a_session_that_ended_or_whose_key_was_revoked_gets_no_ticket(
    signing: Rest, store: Khepri
) -> None:
    """R0-24."""
    for end in ("close", "revoke"):
        gone = Server(store, fresh("gone"))
        await gone.open()
        http = await signing.client(gone.name, Role.SERVER, key=gone.key)
        assert kind(await http.post(path(gone, "ticket"))) == "200"
        if end == "close":
            await gone.home.close_session()
        else:
            await Credentials(store).revoke(gone.key.thumbprint(), reason="stolen")
        refused = kind(await http.post(path(gone, "ticket")))
        assert refused == {"close": "no_session", "revoke": "revoked"}[end]

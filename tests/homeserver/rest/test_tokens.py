from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bridge.homeserver.issuing import IssuingSettings
from bridge.jose import Jwk
from bridge.jose.credentials import (
    Certificate,
    Role,
    read_access_untrusted,
    read_certificate_untrusted,
    read_peer_untrusted,
)
from bridge.khepri import Khepri
from bridge.registry import Credentials
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.credentials import KEYS, KeySigner, certificate, issued, new_id
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
    assert kind(await made.enrol()) == "201"
    return made


async def test_an_access_token_for_a_proof_and_the_service_takes_it(opened: Rest, alice: Member) -> None:
    """R0-32."""
    response = await alice.access()
    now = time.time()
    made = read_access_untrusted(
        response.json()["token"], keys=KEYS, instance=opened.context.instance, now=now
    )
    assert (made.subject, made.role, made.thumbprint) == (alice.name, Role.PLAYER, alice.key.thumbprint())
    assert response.json()["expires"] == made.expires_at <= now + 300
    mine = await alice.http.get(f"/v1/players/{alice.name}/data", headers=await alice.bearer())
    assert mine.json() == {"data": {}}


async def test_a_proof_is_good_once(opened: Rest, alice: Member, store: Khepri) -> None:
    """R0-24: also at another process of the service, in the same moment."""
    async with await Rest.over(store, signer=KeySigner()) as other:
        text = alice.proof()
        elsewhere = Member.of(other.context, await other.client(), alice.name)
        both = await asyncio.gather(alice.access(text), elsewhere.access(text))
        assert sorted(map(kind, both)) == ["200", "replayed"]
        assert kind(await alice.access(text)) == "replayed"


async def test_no_valid_certificate_no_token(opened: Rest, alice: Member) -> None:
    """R0-32: none, expired, foreign."""
    now, here = int(time.time()), opened.context.instance
    genuine = alice.certificate
    times = {"subject": alice.name, "instance": here, "issued_at": now, "expires_at": now + 60}
    for why, text in {
        "none": "",
        "expired": issued(certificate(alice.key, **{**times, "issued_at": now - 60, "expires_at": now - 1})),
        "of another instance": issued(certificate(alice.key, **{**times, "instance": "ruby"})),
        "by another issuer": issued(certificate(alice.key, **times), Jwk.generate()),
        "by its own key": issued(certificate(alice.key, **times), alice.key),
    }.items():
        alice.certificate = text
        assert kind(await alice.access()) == "bad_proof", why
        assert kind(await alice.introduced("B")) == "bad_proof", why
    alice.certificate = issued(
        certificate(alice.key, **{**times, "subject": fresh("Nobody"), "id": new_id()})
    )
    assert kind(await alice.access()) == "not_enrolled"
    alice.certificate = genuine
    assert kind(await alice.access()) == "200"


async def test_a_certificate_without_its_key_is_worth_nothing(alice: Member) -> None:
    """R0-32."""
    alice.key = Jwk.generate()
    assert kind(await alice.access()) == "bad_proof"


async def test_a_proof_for_one_use_is_none_for_another(alice: Member) -> None:
    asked = {"proof": alice.proof()}
    assert kind(await alice.http.post("/v1/tokens/peer", json=asked)) == "bad_proof"
    assert kind(await alice.access(alice.proof(use="peer", peer="B"))) == "bad_proof"


async def test_a_token_never_outlives_its_certificate(opened: Rest, alice: Member) -> None:
    now = int(time.time())
    made = read_certificate_untrusted(alice.certificate, keys=KEYS, instance=opened.context.instance, now=now)
    alice.certificate = issued(
        Certificate(
            subject=made.subject,
            role=made.role,
            key=made.key,
            instance=made.instance,
            issued_at=now,
            expires_at=now + 20,
            id=made.id,
        )
    )
    assert (await alice.access()).json()["expires"] == now + 20


async def test_one_question_and_one_answer_introduce_a_peer(
    opened: Rest, alice: Member, server: Server
) -> None:
    """R0-32: two hops, and B believes it without asking anybody; R0-15, R0-16."""
    answer = (await alice.introduced(server.name)).json()
    assert answer["peer"]["server"] == server.name
    assert Jwk.from_dict(answer["peer"]["key"]) == server.key.public()
    assert (answer["peer"]["host"], answer["peer"]["port"]) == ("127.0.0.1", 4000)
    token = read_peer_untrusted(
        answer["token"],
        keys=KEYS,
        instance=opened.context.instance,
        peer=server.name,
        thumbprint=alice.key.thumbprint(),
        now=time.time(),
    )
    assert (token.subject, token.expires_at) == (alice.name, answer["expires"])


async def test_both_certificates_may_be_shown_and_the_peers_must_be_its_own(
    opened: Rest, alice: Member, server: Server, store: Khepri
) -> None:
    """R0-32: with both certificates."""
    operator = bearer(opened.context.instance, "root", Role.OPERATOR)
    peer = Member.of(opened.context, alice.http, server.name, Role.SERVER)
    peer.key = server.key
    assert kind(await peer.enrol(operator)) == "201"
    shown = {"peer_certificate": peer.certificate}
    assert kind(await alice.introduced(server.name, **shown)) == "200"
    other = Member.of(opened.context, alice.http, fresh("other"), Role.SERVER)
    assert kind(await other.enrol(operator)) == "201"
    for wrong in (other.certificate, alice.certificate, "x"):
        assert kind(await alice.introduced(server.name, peer_certificate=wrong)) == "bad_proof"
    now = int(time.time())
    forged = certificate(
        Jwk.generate(),
        subject=server.name,
        role=Role.SERVER,
        instance=opened.context.instance,
        issued_at=now,
        expires_at=now + 60,
    )
    assert kind(await alice.introduced(server.name, peer_certificate=issued(forged))) == "bad_proof"


async def test_nobody_is_introduced_to_a_server_that_is_not_there(alice: Member) -> None:
    assert kind(await alice.introduced(fresh("nobody"))) == "no_server"


async def test_a_revoked_key_gets_no_token(alice: Member, store: Khepri) -> None:
    """R0-24."""
    assert kind(await alice.access()) == "200"
    await Credentials(store).revoke(alice.key.thumbprint(), reason="stolen")
    assert kind(await alice.access()) == "revoked"
    assert kind(await alice.enrol()) == "revoked"

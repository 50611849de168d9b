from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.homeserver.issuing import IssuingSettings
from bridge.jose import Jwk
from bridge.jose.credentials import Role, read_certificate_untrusted
from bridge.khepri import Khepri
from tests.support.cluster import fresh
from tests.support.credentials import KEYS, KeySigner
from tests.support.members import Member
from tests.support.rest import Rest, bearer, kind

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
async def closed(store: Khepri) -> AsyncIterator[Rest]:
    async with await Rest.over(store, signer=KeySigner()) as made:
        yield made


@pytest.fixture
async def opened(store: Khepri) -> AsyncIterator[Rest]:
    settings = IssuingSettings(open_registration=True)
    async with await Rest.over(store, signer=KeySigner(), issuing=settings) as made:
        yield made


async def member(rest: Rest, role: Role = Role.PLAYER) -> Member:
    return Member.of(rest.context, await rest.client(), fresh("Member"), role)


async def test_where_registration_is_open_a_player_gets_a_name_that_nobody_has(opened: Rest) -> None:
    """R0-32."""
    alice, mallory = await member(opened), await member(opened)
    response = await alice.enrol()
    assert response.status_code == 201
    made = read_certificate_untrusted(
        alice.certificate, keys=KEYS, instance=opened.context.instance, now=time.time()
    )
    assert (made.subject, made.role, made.key) == (alice.name, Role.PLAYER, alice.key.public())
    assert response.json()["expires"] == made.expires_at
    mallory.name = alice.name
    assert kind(await mallory.enrol()) == "name_taken"
    mallory.name, mallory.key = fresh("Member"), alice.key
    assert kind(await mallory.enrol()) == "key_taken"


async def test_servers_and_operators_do_not_register_themselves(opened: Rest) -> None:
    for role in (Role.SERVER, Role.OPERATOR):
        assert kind(await (await member(opened, role)).enrol()) == "registration_closed"


async def test_where_it_is_closed_an_operator_enrols(closed: Rest) -> None:
    alice = await member(closed)
    assert kind(await alice.enrol()) == "registration_closed"
    here = closed.context.instance
    assert kind(await alice.enrol(bearer(here, "root", Role.OPERATOR))) == "201"
    assert kind(await alice.enrol(bearer(here, "bob"))) == "201", "a renewal, whoever carries it"
    server = await member(closed, Role.SERVER)
    assert kind(await server.enrol(bearer(here, "bob"))) == "registration_closed"
    assert kind(await server.enrol(bearer(here, "root", Role.OPERATOR))) == "201"
    boss = await member(closed, Role.OPERATOR)
    assert kind(await boss.enrol(bearer(here, "root", Role.OPERATOR))) == "registration_closed"


async def test_a_holder_renews_and_changes_its_key(closed: Rest) -> None:
    """R0-24: rotation of a player's key."""
    alice = await member(closed)
    await alice.enrol(bearer(closed.context.instance, "root", Role.OPERATOR))
    first = alice.certificate
    assert kind(await alice.enrol()) == "201"
    assert alice.certificate != first
    token = (await alice.access()).json()["token"]
    other = Jwk.generate()
    proof = alice.proof(use="key", peer=other.thumbprint())
    old, alice.key = alice.key, other
    assert kind(await alice.enrol()) == "registration_closed"
    assert kind(await alice.enrol(token)) == "registration_closed", "who reads a token off has no name by it"
    assert kind(await alice.enrol(proof=proof)) == "201"
    assert kind(await alice.enrol(proof=proof)) == "not_enrolled"
    assert kind(await alice.access()) == "200"
    alice.key = old
    alice.certificate = first
    assert kind(await alice.access()) == "not_enrolled"


async def test_a_key_hands_its_own_name_over_and_to_the_key_that_it_names(closed: Rest) -> None:
    alice, bob = await member(closed), await member(closed)
    for one in (alice, bob):
        await one.enrol(bearer(closed.context.instance, "root", Role.OPERATOR))
    other = Jwk.generate()
    proofs = [
        bob.proof(use="key", peer=other.thumbprint()),
        alice.proof(use="key", peer=Jwk.generate().thumbprint()),
        alice.proof(),
        alice.proof(use="peer", peer=other.thumbprint()),
        "a.b.c",
    ]
    alice.key = other
    assert [kind(await alice.enrol(proof=proof)) for proof in proofs] == ["bad_proof"] * len(proofs)


@pytest.mark.parametrize(
    "change", [{"instance": "elsewhere"}, {"issued_at": 1}, {"key": Jwk.generate().public()}]
)
async def test_an_enrolment_that_does_not_hold_is_refused(opened: Rest, change: dict[str, Any]) -> None:
    alice = await member(opened)
    assert kind(await alice.enrol(**change)) == "bad_enrolment"


async def test_a_token_that_does_not_hold_is_no_help(opened: Rest) -> None:
    alice = await member(opened)
    assert kind(await alice.enrol("a.b.c")) == "unauthenticated"


async def test_one_address_does_not_take_all_names(store: Khepri) -> None:
    settings = IssuingSettings(open_registration=True, enrolment_burst=2, enrolment_rate=1e-3)
    async with await Rest.over(store, signer=KeySigner(), issuing=settings) as rest:
        results = [kind(await (await member(rest)).enrol()) for _ in range(3)]
        assert results == ["201", "201", "too_many_requests"]
        operator = bearer(rest.context.instance, "root", Role.OPERATOR)
        assert kind(await (await member(rest)).enrol(operator)) == "201"


async def test_without_a_signer_nothing_is_given(rest: Rest) -> None:
    alice = await member(rest)
    assert kind(await alice.enrol()) == "no_signer"
    body = {"enrolment": "x" * 5000}
    assert kind(await alice.http.post("/v1/certificates", json=body)) in ("invalid_request", "no_signer")

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from bridge.homeserver.issuing import IssuingSettings
from bridge.homeserver.rest.keys import CACHE_SECONDS
from bridge.jose import Jwk
from bridge.jose.credentials import Role, keyring, read_access_untrusted
from bridge.khepri import Khepri
from bridge.registry import Credentials, KeyState
from bridge.registry.trust import Trust
from tests.support.cluster import fresh
from tests.support.credentials import KeySigner
from tests.support.members import Member
from tests.support.rest import Rest, bearer, kind, whole_list

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


@pytest.fixture
async def trust(store: Khepri) -> AsyncIterator[Trust]:
    async with Trust(store) as made:
        yield made


@pytest.fixture
async def opened(store: Khepri, trust: Trust) -> AsyncIterator[Rest]:
    """The service as it is run, but for its signer."""
    settings = IssuingSettings(open_registration=True)
    async with await Rest.over(
        store, trust=trust, signer=KeySigner(Jwk.generate()), issuing=settings
    ) as made:
        yield made


async def eventually(what: Callable[[], bool]) -> None:
    while not what():
        await asyncio.sleep(0.01)


async def test_everybody_can_check_by_the_published_keys(opened: Rest) -> None:
    """R0-24, R0-15."""
    alice = Member.of(opened.context, await opened.client(), fresh("Alice"))
    await alice.enrol()
    response = await alice.http.get("/v1/jwks.json")
    assert response.headers["Cache-Control"] == f"public, max-age={CACHE_SECONDS}"
    keys = response.json()["keys"]
    assert all(key["use"] == "sig" and key["alg"] == "ES256" and "d" not in key for key in keys)
    ring = keyring(map(Jwk.from_dict, keys))
    token = (await alice.access()).json()["token"]
    now = time.time()
    assert read_access_untrusted(token, keys=ring, instance=opened.context.instance, now=now)


async def test_a_rotation_overlaps_so_that_nothing_given_before_stops_to_hold(
    store: Khepri, trust: Trust
) -> None:
    """R0-24: next, current, retired."""
    first, second = Jwk.generate(), Jwk.generate()
    settings = IssuingSettings(open_registration=True)
    async with await Rest.over(
        store, trust=trust, signer=KeySigner(first, second), issuing=settings
    ) as before:
        alice = Member.of(before.context, await before.client(), fresh("Alice"))
        await alice.enrol()
        old = await alice.bearer()
        states = await whole_list(alice.http, "/v1/keys", "keys")
        told = {key["kid"]: key["state"] for key in states}
        assert (told[first.thumbprint()], told[second.thumbprint()]) == ("current", "next")
    async with await Rest.over(store, trust=trust, signer=KeySigner(second), issuing=settings) as after:
        signs = second.public()
        await eventually(lambda: (signs, KeyState.CURRENT) in [(k.key, k.state) for k in trust.published()])
        alice.http = await after.client()
        # Certificate and token of the old key, then a new token of the new one.
        path = f"/v1/players/{alice.name}/data"
        assert kind(await alice.http.get(path, headers=old)) == "200"
        new = await alice.bearer()
        assert kind(await alice.http.get(path, headers=new)) == "200"
        states = await whole_list(alice.http, "/v1/keys", "keys")
        retired = next(key for key in states if key["kid"] == first.thumbprint())
        assert retired["state"] == "retired"
        assert retired["until"] > time.time() + 89 * 86_400
        # The old key was stolen: at once nothing of it holds, wherever it is shown.
        await Credentials(store).revoke(first.thumbprint(), reason="stolen")
        await eventually(lambda: first.thumbprint() not in trust.keys(time.time()))
        assert kind(await alice.http.get(path, headers=old)) == "unauthenticated"
        assert kind(await alice.http.get(path, headers=new)) == "200"
        assert kind(await alice.access()) == "bad_proof"
        assert kind(await alice.enrol()) == "201", "a certificate by the new key, for the same one"
        assert kind(await alice.access()) == "200"


async def test_a_revoked_key_ends_the_tokens_that_were_got_with_it(opened: Rest, trust: Trust) -> None:
    """R0-24: within the feed's time, not only the token's."""
    http = await opened.client()
    alice, bob = (Member.of(opened.context, http, fresh(name)) for name in ("Alice", "Bob"))
    for one in (alice, bob):
        await one.enrol()
    headers = await alice.bearer()
    theirs = {"id": bob.key.thumbprint(), "reason": "envy"}
    assert kind(await http.post("/v1/revocations", json=theirs, headers=headers)) == "other_name"
    mine = {"id": alice.key.thumbprint(), "reason": "lost my machine"}
    done = await http.post("/v1/revocations", json=mine, headers=headers)
    assert done.json()["reason"] == "lost my machine"
    await eventually(lambda: trust.is_revoked(alice.key.thumbprint()))
    path = f"/v1/players/{alice.name}/data"
    assert kind(await http.get(path, headers=headers)) == "unauthenticated"
    listed = await whole_list(http, "/v1/revocations", "revoked", limit=3)
    assert done.json() in listed
    assert kind(await http.get(f"/v1/players/{bob.name}/data", headers=await bob.bearer())) == "200"


async def test_what_was_revoked_is_told_in_pages_the_newest_first(rest: Rest, store: Khepri) -> None:
    http, credentials = await rest.client(), Credentials(store)
    ids = [Jwk.generate().thumbprint() for _ in range(5)]
    for credential in ids:
        await credentials.revoke(credential, reason="a page")
    await store.fence()
    listed = await whole_list(http, "/v1/revocations", "revoked", limit=2)
    assert [one["at"] for one in listed] == sorted((one["at"] for one in listed), reverse=True)
    told = [one["id"] for one in listed]
    assert len(told) == len(set(told)), "nothing is on two pages"
    assert set(ids) <= set(told)


async def test_an_operator_revokes_whatever_it_is(rest: Rest) -> None:
    http = await rest.client()
    headers = {"Authorization": f"Bearer {bearer(rest.context.instance, 'root', Role.OPERATOR)}"}
    for credential in (Jwk.generate().thumbprint(), "AAECAwQFBgcICQoLDA0ODw"):
        answer = await http.post("/v1/revocations", json={"id": credential}, headers=headers)
        assert answer.json()["id"] == credential
    assert kind(await http.post("/v1/revocations", json={"id": "x"}, headers=headers)) == "invalid_request"


async def test_a_key_that_has_retired_is_not_made_current_by_an_old_signer(store: Khepri) -> None:
    credentials, late = Credentials(store), Jwk.generate()
    await credentials.publish_key(late, KeyState.CURRENT)
    async with await Rest.over(store, signer=KeySigner(Jwk.generate())):
        pass
    async with await Rest.over(store, signer=KeySigner(late)):
        states = {key.key.thumbprint(): key.state for key in await credentials.keys()}
    assert states[late.thumbprint()] is KeyState.RETIRED

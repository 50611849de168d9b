"""Credentials in the tree of a real cluster."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import AuthorityError, DecodeError, SignatureError
from bridge.etf import Atom
from bridge.jose import Jwk
from bridge.jose.credentials import Certificate, Proof, Role
from bridge.khepri import InvalidRequestError, Khepri
from bridge.node import HiddenNode
from bridge.registry import (
    OPERATOR,
    Credentials,
    InstanceKey,
    KeyState,
    NameTakenError,
    NotEnrolledError,
    NotHereError,
    Ownership,
    ReplayedError,
    RevokedError,
    Subject,
    UnknownServerError,
    ring_at,
)
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.credentials import certificate, new_id, proof


def enrolled(name: str, key: Jwk, **changes: Any) -> Certificate:
    now = int(time.time())
    times = {"issued_at": now, "expires_at": now + 3600, "id": new_id()}
    return certificate(key, **{"subject": name, **times, **changes})


def shown(**changes: Any) -> Proof:
    return proof("a certificate", **{"issued_at": int(time.time()), "id": new_id(), **changes})


@erlang
async def test_a_name_belongs_to_the_key_that_had_it_first(store: Khepri) -> None:
    credentials, name, key, other = Credentials(store), fresh("player"), Jwk.generate(), Jwk.generate()
    mine = enrolled(name, key)
    await credentials.enrol(mine)
    await credentials.enrol(enrolled(name, key))
    with pytest.raises(NameTakenError):
        await credentials.enrol(enrolled(name, other))
    with pytest.raises(NameTakenError):
        await credentials.enrol(enrolled(fresh("player"), key))
    await credentials.enrol(enrolled(name, other), previous=key.thumbprint())
    with pytest.raises(NotEnrolledError):
        await credentials.authenticate(shown(), mine)
    found = await credentials.subject(Role.PLAYER, name)
    assert found is not None
    assert found.key == other.public()
    assert await credentials.subject(Role.PLAYER, fresh("player")) is None


@erlang
async def test_nobody_is_enrolled_as_another_instances_player(store: Khepri) -> None:
    """docs/protocol.md §11: whoever has that name speaks for what such players own here."""
    with pytest.raises(InvalidRequestError):
        await Credentials(store).enrol(enrolled(f"{fresh('player')}@ruby", Jwk.generate()), operator=True)


@erlang
async def test_a_proof_is_good_once_whichever_member_is_asked(
    store: Khepri, node: HiddenNode, cluster: LocalCluster
) -> None:
    """R0-24."""
    made, once = enrolled(fresh("player"), Jwk.generate()), shown()
    await Credentials(store).enrol(made)
    assert await Credentials(store).authenticate(once, made) is None
    for member in cluster.members:
        async with Khepri.connect(node, [member], store=cluster.store) as other:
            with pytest.raises(ReplayedError):
                await Credentials(other).authenticate(once, made)
    await Credentials(store).authenticate(shown(), made)


@erlang
async def test_a_peer_is_introduced_with_its_key_and_address(store: Khepri) -> None:
    """R0-32, R0-15."""
    credentials, made, b = (
        Credentials(store),
        enrolled(fresh("player"), Jwk.generate()),
        Server(store, fresh("B")),
    )
    await credentials.enrol(made)
    with pytest.raises(UnknownServerError):
        await credentials.authenticate(shown(use="peer", peer=b.name), made)
    await b.open()
    peer = await credentials.authenticate(shown(use="peer", peer=b.name), made)
    assert peer is not None
    assert (peer.thumbprint, peer.session) == (b.key.thumbprint(), b.session)


@erlang
async def test_a_revoked_key_and_a_revoked_certificate_get_nothing(store: Khepri) -> None:
    """R0-24."""
    credentials, name, key = Credentials(store), fresh("player"), Jwk.generate()
    first, second = enrolled(name, key), enrolled(name, key)
    await credentials.enrol(first)
    await credentials.revoke(first.id, reason="lost")
    with pytest.raises(RevokedError):
        await credentials.authenticate(shown(), first)
    await credentials.authenticate(shown(), second)
    await credentials.revoke(key.thumbprint(), reason="stolen")
    assert await credentials.is_revoked(key.thumbprint())
    assert not await credentials.is_revoked(second.id)
    with pytest.raises(RevokedError):
        await credentials.authenticate(shown(), second)
    with pytest.raises(RevokedError):
        await credentials.enrol(enrolled(name, key))


@erlang
async def test_a_server_whose_key_was_revoked_opens_no_session(store: Khepri) -> None:
    server = Server(store, fresh("server"))
    await server.open()
    await Credentials(store).revoke(server.key.thumbprint(), reason="stolen")
    again = Server(store, server.name, server.key)
    with pytest.raises(AuthorityError, match="revoked"):
        await again.open()


@erlang
async def test_keys_of_the_instance_go_forward_and_retired_ones_verify_on(store: Khepri) -> None:
    """R0-24: rotation."""
    credentials, one, two = Credentials(store), Jwk.generate(), Jwk.generate()
    assert (await credentials.publish_key(one, KeyState.CURRENT)).state is KeyState.CURRENT
    await credentials.publish_key(two, KeyState.NEXT)
    await credentials.publish_key(two, KeyState.CURRENT)
    assert (await credentials.publish_key(one, KeyState.CURRENT)).state is KeyState.RETIRED
    keys = {key.key.thumbprint(): key for key in await credentials.keys()}
    retired = keys[one.thumbprint()]
    assert retired.until is not None
    assert retired.until - time.time() > Certificate.MAX_LIFETIME_S - 60
    assert {one.thumbprint(), two.thumbprint()} <= set(ring_at(keys.values(), time.time()))
    assert one.thumbprint() not in ring_at(keys.values(), retired.until)
    await credentials.revoke(one.thumbprint(), reason="stolen")
    now = ring_at(await credentials.keys(), time.time())
    assert one.thumbprint() not in now
    assert two.thumbprint() in now


@erlang
async def test_a_players_data_is_written_where_the_player_is(store: Khepri) -> None:
    """R4-1."""
    credentials, player, server = Credentials(store), fresh("player"), Server(store, fresh("server"))
    assert await credentials.player_data(player) == {}
    data = {"gold": 7, "name": "éclair", "bag": [{"sword": True}]}
    assert await credentials.set_player_data(player, data, by=OPERATOR) == 1
    with pytest.raises(NotHereError):
        await credentials.set_player_data(player, {}, by=server.name)
    await server.open()
    await Ownership(store).enter(player, server.session)
    assert await credentials.set_player_data(player, {**data, "gold": 8}, by=server.name) == 2
    assert await credentials.player_data(player) == {**data, "gold": 8}
    for bad in ({"a": float("inf")}, {"a": "x" * 9000}):
        with pytest.raises(SignatureError):
            await credentials.set_player_data(player, bad, by=OPERATOR)


def test_when_a_key_verifies() -> None:
    key = InstanceKey(key=Jwk.generate().public(), state=KeyState.CURRENT, since=10, until=None)
    retired = replace(key, state=KeyState.RETIRED, until=20)
    assert key.verifies(1e12)
    assert retired.verifies(19.9)
    assert not retired.verifies(20)
    assert not replace(retired, state=KeyState.REVOKED).verifies(15)


@pytest.mark.parametrize("kind", [InstanceKey, Subject])
@pytest.mark.parametrize(
    "term",
    [b"", {}, {Atom("state"): Atom("lost"), Atom("role"): Atom("king"), Atom("key"): b"{}"},
     {Atom("state"): Atom("next"), Atom("role"): Atom("player"), Atom("key"): b"{}"}],
)  # fmt: skip
def test_a_record_of_another_form_is_no_record(kind: type[InstanceKey | Subject], term: object) -> None:
    with pytest.raises(DecodeError):
        kind.from_term(term)

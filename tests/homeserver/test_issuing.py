"""Who gets what signed; with the real tree in ``rest/test_tokens.py`` and its neighbours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.errors import ConfigurationError, SignatureError
from bridge.homeserver.issuing import Issuing, IssuingSettings
from bridge.jose import Jwk
from bridge.jose.credentials import Role, Ticket, read_access_untrusted, read_untrusted
from bridge.registry import InstanceKey, KeyState, NotEnrolledError, ServerRecord, Subject, UnknownServerError
from bridge.registry.trust import FixedTrust
from tests.support.credentials import (
    INSTANCE,
    KEYS,
    NOW,
    KeySigner,
    certificate,
    enrolment,
    issued,
    proof,
)

ALICE = Jwk.generate()
SERVER = Jwk.generate()


def server(session: bytes | None = bytes(16)) -> ServerRecord:
    return ServerRecord(
        server="B",
        session=session,
        key=SERVER.public().to_json().encode(),
        thumbprint=SERVER.thumbprint(),
        host="127.0.0.1",
        port=4000,
    )


@dataclass
class Tree:
    """What the tree would say."""

    peer: ServerRecord | None = None
    known: Subject | None = None
    revoked: bool = False
    published: list[tuple[Jwk, KeyState]] = field(default_factory=list)
    enrolled: list[Any] = field(default_factory=list)

    async def publish_key(self, key: Jwk, state: KeyState) -> InstanceKey:
        self.published.append((key, state))
        state = KeyState.REVOKED if self.revoked else state
        return InstanceKey(key=key, state=state, since=NOW, until=None)

    async def enrol(self, made: Any, **how: Any) -> None:
        self.enrolled.append((made, how))

    async def authenticate(self, *_: Any) -> ServerRecord | None:
        return self.peer

    async def subject(self, role: Role, name: str) -> Subject | None:
        del role, name
        return self.known

    async def is_revoked(self, _: str) -> bool:
        return self.revoked

    async def player_data(self, _: str) -> dict[str, Any]:
        return {"gold": 7}


def issuing(tree: Tree, signer: KeySigner | None = None, revoked: frozenset[str] = frozenset()) -> Issuing:
    return Issuing(
        credentials=tree,  # type: ignore[arg-type]
        signer=signer or KeySigner(),
        trust=FixedTrust(KEYS, revoked),
        instance=INSTANCE,
        clock=lambda: NOW + 0.5,
        random=lambda size: bytes(size),
    )


async def test_what_the_signer_has_is_published() -> None:
    one, two = Jwk.generate(), Jwk.generate()
    tree = Tree()
    await issuing(tree, KeySigner(one, two)).publish()
    assert tree.published == [(one.public(), KeyState.CURRENT), (two.public(), KeyState.NEXT)]


async def test_a_signer_whose_key_was_revoked_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="another one"):
        await issuing(Tree(revoked=True), KeySigner(Jwk.generate())).publish()


async def test_a_signer_that_was_restarted_with_other_keys_is_published_again() -> None:
    """R0-24."""
    tree, key = Tree(), Jwk.generate()
    signer = KeySigner(key)
    issues = issuing(tree, signer)
    async with issues.publishing(every=0.0):
        while not tree.published:
            await asyncio.sleep(0)
        tree.published = []
        signer.fail = True
        for _ in range(10):
            await asyncio.sleep(0)
        signer.fail = False
        while not tree.published:
            await asyncio.sleep(0)
    assert tree.published[0] == (key.public(), KeyState.CURRENT)


async def test_nothing_outlives_the_certificate_that_was_shown() -> None:
    short = certificate(ALICE, expires_at=NOW + 20)
    shown = proof(issued(short))
    made = await issuing(Tree()).access(shown, short)
    token = read_access_untrusted(made.token, keys=KEYS, instance=INSTANCE, now=NOW)
    assert token.expires_at == made.expires_at == NOW + 20
    introduced = await issuing(Tree(peer=server())).introduce(
        proof(issued(short), use="peer", peer="B"), short
    )
    assert introduced.issued.expires_at == NOW + 20


async def test_a_proof_is_for_one_use() -> None:
    mine = certificate(ALICE)
    access, peer = proof(issued(mine)), proof(issued(mine), use="peer", peer="B")
    with pytest.raises(SignatureError, match="no access token"):
        await issuing(Tree()).access(peer, mine)
    with pytest.raises(SignatureError, match="no peer token"):
        await issuing(Tree(peer=server())).introduce(access, mine)


async def test_a_peers_certificate_that_was_revoked_is_none() -> None:
    mine, asked = certificate(ALICE), proof("", use="peer", peer="B")
    theirs = certificate(SERVER, subject="B", role=Role.SERVER)
    for revoked in (SERVER.thumbprint(), theirs.id):
        with pytest.raises(SignatureError, match="revoked"):
            await issuing(Tree(peer=server()), revoked=frozenset({revoked})).introduce(
                asked, mine, peer_certificate=issued(theirs)
            )


async def test_an_operators_certificate_is_not_given_by_a_service() -> None:
    tree = Tree()
    with pytest.raises(SignatureError, match="homeserver certify"):
        await issuing(tree).certify(enrolment(ALICE, role=Role.OPERATOR), operator=True)
    assert tree.enrolled == []


async def test_a_renewal_is_by_the_very_key_that_is_enrolled() -> None:
    known = Subject(name="alice", role=Role.PLAYER, key=ALICE.public(), certificate="c", expires_at=NOW)
    assert await issuing(Tree(known=known)).is_holder(enrolment(ALICE))
    assert not await issuing(Tree(known=known)).is_holder(enrolment(Jwk.generate()))
    assert not await issuing(Tree()).is_holder(enrolment(ALICE))


async def test_a_ticket_has_the_players_key_data_and_the_servers_run() -> None:
    """R4-1, R4-8."""
    known = Subject(name="alice", role=Role.PLAYER, key=ALICE.public(), certificate="c", expires_at=NOW)
    made = await issuing(Tree(known=known)).ticket("alice", server=server(), room="tavern")
    ticket = read_untrusted(Ticket, made.token, keys=KEYS, instance=INSTANCE, now=NOW)
    assert (ticket.key, ticket.data, ticket.session) == (ALICE.public(), {"gold": 7}, "A" * 22)
    for tree, at, error in (
        (Tree(known=known), server(None), UnknownServerError),
        (Tree(), server(), NotEnrolledError),
        (Tree(known=known, revoked=True), server(), NotEnrolledError),
    ):
        with pytest.raises(error):
            await issuing(tree).ticket("alice", server=at, room="tavern")


@pytest.mark.parametrize("name", ["certificate", "access", "peer", "ticket"])
@pytest.mark.parametrize("seconds", [0, 10**9])
def test_lifetimes_are_within_what_readers_take(name: str, seconds: int) -> None:
    with pytest.raises(ConfigurationError, match="lasts 1 to"):
        IssuingSettings(**{f"{name}_seconds": seconds})  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"enrolment_rate": 0.0}, {"enrolment_burst": 0}], ids=str)
def test_a_limit_of_nothing_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="enrolment"):
        IssuingSettings(**change)

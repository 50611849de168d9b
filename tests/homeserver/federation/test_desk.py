"""What another instance says counts only where it is trusted, whole, meant for this one, and not over."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bridge.errors import AuthorityError, DecodeError, SignatureError
from bridge.etf import Atom
from bridge.homeserver.federation import Desk, LaterError, Peer, SettledError, UnpinnedError
from bridge.homeserver.federation.documents import (
    Accepted,
    Cancel,
    Document,
    Moved,
    Offer,
    Refused,
    Settle,
    decode_answer_untrusted,
)
from bridge.homeserver.federation.sealing import Sealed, seal_document
from bridge.jose import Jwk
from bridge.registry import EntityRecord
from tests.support.authority import Server
from tests.support.cluster import fresh
from tests.support.credentials import KeySigner
from tests.support.federation import Federation, term

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

MOST = 4_352
"""answers that are kept for one instance: to 4096 offers, and to 256 cancels beyond"""


class Case:
    """An entity in X's escrow for a server of Y, and what X would say of it."""

    def __init__(self, federation: Federation, a: Server, b: Server) -> None:
        self.federation = federation
        self.x, self.y = federation.x, federation.y
        self.a, self.b = a, b

    async def put(self) -> None:
        self.spawned: EntityRecord = await self.a.spawn(fresh("ball"))
        await self.x.push_abroad(self.spawned, self.a, self.y, self.b)
        (escrow,) = [e for e in await self.x.escrows.escrows() if e.entity == self.spawned.entity]
        assert isinstance(escrow.question, Offer)
        self.offer = escrow.question

    def altered(self, **changes: Any) -> Offer:
        return msgspec.structs.replace(self.offer, **changes)

    async def sealed(self, document: Document, **changes: Any) -> Sealed:
        arguments: dict[str, Any] = {
            "signer": self.x.signer,
            "instance": "emerald",
            "audience": "ruby",
            "question": None,
            "now": time.time(),
            "random": secrets.token_bytes(16),
        }
        return await seal_document(document, **{**arguments, **changes})

    async def ask(self, document: Document, **changes: Any) -> Any:
        sealed = await self.sealed(document, **changes)
        return decode_answer_untrusted((await self.y.desk.serve(sealed.body, sealed.seal)).body)

    async def nothing_happened(self) -> None:
        assert await term(self.y, "entities", self.spawned.entity) is None
        assert await self.federation.places(self.spawned.entity) == ["escrow of emerald"]


@pytest.fixture
async def case(federation: Federation) -> AsyncIterator[Case]:
    a, b = federation.x.server(), federation.y.server()
    await a.open()
    await b.open()
    made = Case(federation, a, b)
    await made.put()
    yield made
    async with federation.couriers():
        await federation.settled(made.spawned.entity)
    await a.home.close_session()
    await b.home.close_session()


async def test_asked_again_it_answers_the_same(case: Case) -> None:
    first, again = await case.ask(case.offer), await case.ask(case.offer)
    assert isinstance(first, Accepted)
    assert first == again
    assert (await case.y.entity(case.offer.entity)).version == 1


async def test_what_an_unpinned_instance_says_is_refused(case: Case) -> None:
    stranger = KeySigner(Jwk.generate())
    with pytest.raises(UnpinnedError, match="opal"):
        await case.ask(case.offer, instance="opal", signer=stranger)
    with pytest.raises(SignatureError, match="issuers"):
        await case.ask(case.offer, signer=stranger)
    await case.nothing_happened()


async def test_what_is_for_another_instance_is_refused(case: Case) -> None:
    with pytest.raises(SignatureError, match="for 'opal'"):
        await case.ask(case.offer, audience="opal")
    await case.nothing_happened()


async def test_an_altered_document_is_refused(case: Case) -> None:
    sealed = await case.sealed(case.offer)
    other = await case.sealed(case.altered(to="mine"))
    with pytest.raises(SignatureError, match="sealed"):
        await case.y.desk.serve(other.body, sealed.seal)
    with pytest.raises(SignatureError):
        await case.y.desk.serve(sealed.body, sealed.seal[:-2] + ("AA" if sealed.seal[-2:] != "AA" else "BB"))
    with pytest.raises(DecodeError):
        await case.y.desk.serve(sealed.body + b" " * 60_000, sealed.seal)
    await case.nothing_happened()


async def test_an_old_document_is_refused(case: Case) -> None:
    with pytest.raises(SignatureError, match="expired"):
        await case.ask(case.offer, now=time.time() - 61)
    await case.nothing_happened()


async def test_what_was_sealed_before_it_was_trusted_does_not_count(case: Case) -> None:
    """So a mark that is forgotten with the trust lets nothing in again."""
    old = await case.sealed(case.offer, now=time.time() - 20)
    await case.y.escrows.unpin("emerald", anyway=True)
    await case.y.escrows.pin(case.x.as_peer(since=int(time.time()) - 10))
    with pytest.raises(UnpinnedError, match="before"):
        await case.y.desk.serve(old.body, old.seal)
    await case.nothing_happened()


async def test_an_answer_is_no_question(case: Case) -> None:
    with pytest.raises(SignatureError, match="another question"):
        await case.ask(case.offer, question="A" * 22)
    with pytest.raises(DecodeError):
        await case.ask(Accepted(transfer="1", epoch="2", trace="A" * 22, hop=0))
    await case.nothing_happened()


async def test_a_replayed_offer_changes_nothing_after_its_end(case: Case) -> None:
    """Not even when the entity has gone home again."""
    x, y = case.x, case.y
    offer = await case.sealed(case.offer)
    async with case.federation.couriers():
        await case.federation.settled(case.offer.entity)
        there = await y.entity(case.offer.entity)
        await y.push_abroad(there, case.b, x, case.a)
        await case.federation.settled(case.offer.entity)
    await case.ask(Settle(low=case.offer.transfer))
    with pytest.raises(SettledError):
        await y.desk.serve(offer.body, offer.seal)
    assert await case.federation.places(case.offer.entity) == ["emerald"]


async def test_cancelled_first_a_late_offer_is_refused(case: Case) -> None:
    cancel = Cancel(transfer=case.offer.transfer, low=case.offer.low, trace=case.offer.trace, hop=1)
    for document in (cancel, case.offer, cancel):
        answer = await case.ask(document)
        assert isinstance(answer, Refused)
        assert answer.reason == "cancelled"
    await case.nothing_happened()


async def test_accepted_first_it_cannot_be_cancelled(case: Case) -> None:
    accepted = await case.ask(case.offer)
    cancel = Cancel(transfer=case.offer.transfer, low=case.offer.low, trace=case.offer.trace, hop=1)
    assert await case.ask(cancel) == accepted


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("no_server", {"to": "nobody"}),
        ("bad_release", {"box": "a.b.c.d.e.f.g"}),
        ("no_entity", {"home": "ruby"}),
        ("unknown_home", {"home": "opal"}),
        ("epoch_too_high", {"transfer": str(2**63)}),
    ],
)
async def test_what_does_not_fit_is_refused_for_good(case: Case, reason: str, change: dict[str, str]) -> None:
    altered = case.altered(**change)
    answer = await case.ask(altered)
    assert isinstance(answer, Refused)
    assert answer.reason == reason
    # By its number: the whole offer under the same one comes too late.
    if "transfer" not in change:
        assert await case.ask(case.offer) == answer
    await case.nothing_happened()


async def test_a_release_for_another_server_is_refused(case: Case) -> None:
    other = case.y.server()
    await other.open()
    answer = await case.ask(case.altered(to=other.name))
    assert isinstance(answer, Refused)
    assert answer.reason == "wrong_key"
    await other.home.close_session()


async def test_of_one_name_there_is_one_entity(case: Case) -> None:
    await case.b.spawn(case.offer.entity)
    answer = await case.ask(case.offer)
    assert isinstance(answer, Refused)
    assert answer.reason == "entity_exists"


async def test_of_an_entity_it_is_not_known_to_have_a_peer_says_nothing(case: Case) -> None:
    with pytest.raises(AuthorityError, match="no_entity"):
        await case.ask(Moved(entity=fresh("nothing"), at="opal", epoch="1"))


async def test_what_is_in_its_own_escrow_it_decides_about_later(case: Case) -> None:
    """X has accepted it and gives it again before Y has heard so."""
    await case.ask(case.offer)
    there = await case.y.entity(case.offer.entity)
    await case.y.push_abroad(there, case.b, case.x, case.a)
    again = case.altered(transfer=str(int(case.offer.transfer) + (1 << 40)))
    with pytest.raises(LaterError):
        await case.ask(again)


async def test_a_desk_that_is_told_another_name_takes_nothing(case: Case) -> None:
    desk = Desk(case.y.escrows, instance="opal", signer=case.y.signer)
    sealed = await case.sealed(case.offer)
    with pytest.raises(SignatureError, match="not for opal"):
        await desk.serve(sealed.body, sealed.seal)


async def test_a_peer_that_fills_the_tree_with_cancels_is_heard_no_more_and_others_are(case: Case) -> None:
    y, key = case.y, Jwk.generate()
    mallory = Peer(instance=fresh("mallory"), urls=("https://mallory",), keys=(key.public(),))
    await y.escrows.pin(mallory)

    def cancel(transfer: int, low: int = 0) -> Cancel:
        return Cancel(transfer=str(transfer), low=str(low), trace=case.offer.trace, hop=1)

    async def said(document: Document) -> Sealed:
        return await case.sealed(document, signer=KeySigner(key), instance=mallory.instance)

    for first in range(1, MOST, 128):
        numbers = range(first, min(first + 128, MOST + 1))
        await asyncio.gather(*(y.escrows.refuse(mallory.instance, cancel(number)) for number in numbers))
    attack = await said(cancel(MOST + 1))
    with pytest.raises(AuthorityError, match="too_many_answers"):
        await y.desk.serve(attack.body, attack.seal)
    assert await term(y, "incoming", mallory.instance, str(MOST + 1)) is None
    # Others are answered as before, and so is this one again, once it has said what is closed.
    asked = await case.sealed(case.offer)
    answer = decode_answer_untrusted((await y.desk.serve(asked.body, asked.seal)).body)
    assert isinstance(answer, Accepted)
    again = await said(cancel(MOST + 1, low=MOST))
    answer = decode_answer_untrusted((await y.desk.serve(again.body, again.seal)).body)
    assert isinstance(answer, Refused)
    kept = await term(y, "incoming", mallory.instance)
    assert kept[Atom("answers")] == 1
    assert await term(y, "incoming", mallory.instance, "1") is None
    await y.escrows.unpin(mallory.instance)

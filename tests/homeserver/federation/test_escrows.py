from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import AuthorityError, DecodeError
from bridge.etf import Atom
from bridge.homeserver.federation.documents import Cancel, Moved
from bridge.homeserver.federation.escrows import Outgoing, escrow_from_term
from bridge.khepri import InvalidRequestError
from tests.support.cluster import erlang, fresh
from tests.support.federation import Federation, Instance

STEP: dict[Any, Any] = {Atom("trace"): bytes(16), Atom("hop"): 1}


def test_a_state_says_what_is_to_be_asked_and_of_whom() -> None:
    term = {
        Atom("transfer"): 7,
        Atom("low"): 6,
        Atom("instance"): b"ruby",
        Atom("home"): b"opal",
        Atom("entity"): b"ball",
        Atom("epoch"): 9,
        **STEP,
    }
    cancelling = escrow_from_term({**term, Atom("state"): Atom("cancelling")})
    assert isinstance(cancelling.question, Cancel)
    assert (cancelling.asked, cancelling.question.transfer, cancelling.question.low) == ("ruby", "7", "6")
    notice = escrow_from_term({**term, Atom("state"): Atom("notice")})
    assert notice.asked == "opal"
    assert notice.question == Moved(entity="ball", at="ruby", epoch="9")


@pytest.mark.parametrize("term", [None, {}, {Atom("state"): Atom("lost"), Atom("transfer"): 1}, []])
def test_other_terms_are_no_escrow(term: Any) -> None:
    with pytest.raises(DecodeError):
        escrow_from_term(term)
    with pytest.raises(DecodeError):
        Outgoing.from_term(term)


@erlang
async def test_peers_are_pinned_replaced_and_taken_back(federation: Federation) -> None:
    escrows = federation.x.escrows
    name = fresh("opal")
    opal = Instance(name, federation.x.cluster, federation.x.store).as_peer()
    await escrows.pin(opal)
    await federation.x.store.fence()
    assert await escrows.peer(name) == opal
    moved = Instance(name, federation.x.cluster, federation.x.store).as_peer(urls=("https://opal.example",))
    await escrows.pin(moved)
    await federation.x.store.fence()
    assert moved in await escrows.peers()
    await escrows.unpin(name)
    await federation.x.store.fence()
    assert await escrows.peer(name) is None


@erlang
async def test_an_instance_is_no_peer_of_its_own_and_one_with_escrow_stays(federation: Federation) -> None:
    x, y = federation.x, federation.y
    with pytest.raises(InvalidRequestError, match="itself"):
        await x.escrows.pin(x.as_peer())
    a, b = x.server(), y.server()
    await a.open()
    await b.open()
    spawned = await a.spawn(fresh("ball"))
    transfer = (await x.push_abroad(spawned, a, y, b)).epoch
    with pytest.raises(AuthorityError, match="escrow"):
        await x.escrows.unpin("ruby")
    assert await x.escrows.cancel(transfer) == "cancelling"
    assert await x.escrows.cancel(transfer) == "cancelling"
    async with federation.couriers():
        await federation.settled(spawned.entity)
    assert await x.escrows.cancel(transfer) == "closed"
    assert await federation.places(spawned.entity) == ["emerald"]


@erlang
async def test_nothing_goes_to_an_instance_that_is_not_pinned(federation: Federation) -> None:
    x, y = federation.x, federation.y
    a, b = x.server(), y.server()
    await a.open()
    spawned = await a.spawn(fresh("ball"))
    stranger = Instance("opal", y.cluster, y.store)
    with pytest.raises(AuthorityError, match="no_peer"):
        await x.push_abroad(spawned, a, stranger, b)
    assert (await x.entity(spawned.entity)).session == a.session

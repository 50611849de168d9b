"""The client and the feed over something that is no Erlang node."""

from __future__ import annotations

from bridge.etf import Atom, Reference
from bridge.khepri import Caller, Inbox, Khepri, Snapshot, Updated
from tests.support.scripted_caller import ListInbox, ScriptedCaller, ok


async def test_a_client_asks_whatever_calls_for_it_and_leaves_it_open() -> None:
    caller = ScriptedCaller(ok({Atom("data"): 3}))
    through: Caller = caller
    async with Khepri(through, store="stock") as store:
        assert await store.get("/:wood") == 3
    asked = caller.asked[0]
    assert (asked.function, list(asked.args[:2])) == ("get", [Atom("stock"), b"/:wood"])
    assert not caller.closed


async def test_a_feed_listens_at_the_callers_inbox() -> None:
    reference = Reference(Atom("member"), 1, (1, 2, 3))
    answer = {
        Atom("subscription"): reference,
        Atom("cursor"): (b"run", 0),
        Atom("mode"): Atom("snapshot"),
        Atom("nodes"): [],
    }
    caller = ScriptedCaller(ok(answer))
    inbox: Inbox = caller.inbox
    assert isinstance(inbox, ListInbox)
    async with Khepri(caller).watch("/:wood") as feed:
        changes = aiter(feed)
        assert await anext(changes) == Snapshot({}, "member")
        inbox.put((Atom("kb_feed"), reference, [(1, Atom("created"), [Atom("wood")], 7)]))
        assert await anext(changes) == Updated((Atom("wood"),), 7)

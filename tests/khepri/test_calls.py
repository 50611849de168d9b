"""Deadlines and repeats, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from bridge.errors import (
    ConfigurationError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    KhepriError,
    OutcomeUnknownError,
)
from bridge.etf import Atom
from bridge.khepri import KhepriConfig, NodeNotFoundError, StoreTimeoutError, StoreUnavailableError
from bridge.khepri.calls import StoreCalls, in_turns
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

QUICK = KhepriConfig(timeout=0.05, attempt_timeout=0.02, retry_delay=0.001)


def calls(*answers: Any) -> tuple[StoreCalls, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return StoreCalls(caller, Atom("stock"), None, QUICK), caller


async def repeat(store: StoreCalls, **more: Any) -> Any:
    arguments = {"operation_id": None, "timeout": None, "options": True} | more
    return await store.repeat("kb", "write", 7, **arguments)


async def test_a_read_may_be_repeated_elsewhere_and_ends_at_its_deadline() -> None:
    store, caller = calls(ok(1), refusal("timeout"), DeadlineError("late"))
    assert await store.read("kb", "get", [b"/:a"], {"favor": "consistency", "timeout": 2.0}) == 1
    asked = caller.asked[0]
    assert asked.args == [
        Atom("stock"),
        b"/:a",
        {Atom("favor"): Atom("consistency"), Atom("timeout"): 2000},
    ]
    assert asked.idempotent
    assert 1.9 < asked.timeout <= 2.0
    for _ in range(2):
        with pytest.raises((StoreTimeoutError, DeadlineError)) as caught:
            await store.read("kb", "get", [], {})
        assert not isinstance(caught.value, OutcomeUnknownError), "a read has no outcome"


@pytest.mark.parametrize("reason", ["no_leader", "store_not_running"])
async def test_a_read_that_a_member_cannot_answer_is_asked_again_until_the_deadline(reason: str) -> None:
    store, caller = calls(refusal(reason), refusal(reason), ok(1))
    assert await store.read("kb", "get", [b"/:a"], {}) == 1
    assert caller.suspected == ["member"], "a member that says it twice may be cut off, or stopped"
    assert caller.asked[2].timeout < caller.asked[0].timeout
    store, _ = calls(*[refusal(reason)] * 1000)
    with pytest.raises(StoreUnavailableError):
        await store.read("kb", "get", [b"/:a"], {})


@pytest.mark.parametrize(
    "lost", [DeadlineError("late"), OutcomeUnknownError("lost"), refusal("timeout")], ids=repr
)
async def test_a_plain_write_is_sent_once_and_unknown_without_an_answer(lost: Any) -> None:
    store, caller = calls(lost)
    with pytest.raises(OutcomeUnknownError):
        await store.write("kb", "put", [b"/:a", 1], None)
    assert [asked.idempotent for asked in caller.asked] == [False]


async def test_a_plain_write_that_was_refused_is_known() -> None:
    store, _ = calls(refusal("node_not_found"))
    with pytest.raises(NodeNotFoundError):
        await store.write("kb", "put", [], None)


async def test_a_plain_write_goes_to_another_member_where_the_store_says_that_it_sent_nothing() -> None:
    store, caller = calls(refusal("store_not_running", applied=False), ok({}))
    await store.write("kb", "put", [b"/:a", 1], None)
    assert caller.suspected == ["member"]
    assert caller.asked[1].args[-1][Atom("timeout")] < caller.asked[0].args[-1][Atom("timeout")]
    store, _ = calls(*[refusal("store_not_running", applied=False)] * 1000)
    with pytest.raises(StoreUnavailableError):
        await store.write("kb", "put", [b"/:a", 1], None)


async def test_a_plain_write_whose_store_stopped_meanwhile_is_not_made_again() -> None:
    store, caller = calls(refusal("store_not_running"), ok({}))
    with pytest.raises(StoreUnavailableError):
        await store.write("kb", "put", [b"/:a", 1], None)
    assert len(caller.asked) == 1


async def test_the_homeserver_gives_up_before_this_side_does() -> None:
    store, caller = calls(ok({}))
    await store.write("kb", "put", [], 1.0, {Atom("more"): 1})
    assert caller.asked[0].args[-1] == {Atom("more"): 1, Atom("timeout"): 1000}
    assert caller.asked[0].timeout > 1.0


@pytest.mark.parametrize(
    "lost",
    [refusal("timeout"), refusal("no_leader"), ConnectionLostError("gone"), DeadlineError("late")],
    ids=repr,
)
async def test_a_write_with_an_operation_id_is_repeated_with_the_same_one(lost: Any) -> None:
    store, caller = calls(lost, lost, ok([1]))
    assert await repeat(store) == [1]
    assert len(caller.asked) == 3
    assert len({asked.args[2] for asked in caller.asked}) == 1
    assert caller.asked[0].args[3] == {Atom("timeout"): 20}
    assert caller.suspected == ["member"], "a member that says it twice may be cut off"


async def test_a_repeated_write_ends_at_its_deadline_and_is_unknown() -> None:
    store, _ = calls(*[refusal("no_leader")] * 1000)
    with pytest.raises(OutcomeUnknownError, match="no_leader"):
        await repeat(store)


async def test_a_write_that_was_never_sent_is_not_unknown() -> None:
    store, _ = calls(*[HandshakeError("wrong cookie")] * 1000)
    with pytest.raises(HandshakeError):
        await repeat(store)


async def test_a_write_that_may_have_arrived_stays_unknown_when_nobody_is_there_any_more() -> None:
    store, _ = calls(ConnectionLostError("gone"), *[HandshakeError("refused")] * 1000)
    with pytest.raises(OutcomeUnknownError, match="gone"):
        await repeat(store)


async def test_a_refusal_is_not_repeated_and_closes_the_operation() -> None:
    store, caller = calls(refusal("aborted"), ok(1), ok(2))
    with pytest.raises(KhepriError):
        await repeat(store)
    await repeat(store)
    (_, _, second, low_water) = caller.asked[1].args[2]
    assert (second, low_water) == (2, 1)


async def test_the_callers_own_operation_stays_open() -> None:
    store, caller = calls(ok(1), ok(1))
    mine = store.ids.open()
    for _ in range(2):
        await repeat(store, operation_id=mine, options=False)
    assert [asked.args for asked in caller.asked] == [[Atom("stock"), 7, mine.term()]] * 2
    assert store.ids.open().low_water == 0


async def test_no_time_is_refused_before_anything_is_sent() -> None:
    store, caller = calls()
    with pytest.raises(ConfigurationError):
        await store.write("kb", "put", [], 0)
    with pytest.raises(ConfigurationError):
        await store.read("kb", "get", [], {"timeout": 0})
    assert caller.asked == []


async def test_what_is_made_in_parts_leaves_the_loop_a_turn_after_each() -> None:
    seen: list[str] = []

    def parts() -> Generator[None, None, str]:
        for name in "abc":
            seen.append(name)
            asyncio.get_running_loop().call_soon(seen.append, "turn")
            yield
        return "whole"

    assert await in_turns(parts()) == "whole"
    assert seen == ["a", "turn", "b", "turn", "c", "turn"]

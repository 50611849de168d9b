"""Reads, writes and transactions made at once: as if each had been made alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bridge.errors import ConfigurationError, DeadlineError, KhepriError, OutcomeUnknownError
from bridge.etf import Atom, encode_term
from bridge.khepri import (
    CompareAndSwap,
    Get,
    InvalidRequestError,
    Khepri,
    KhepriConfig,
    MismatchingNodeError,
    NodeNotFoundError,
    NoLeaderError,
    Operation,
    Put,
    ReservedPathError,
)
from tests.support.cluster import erlang
from tests.support.scripted_caller import Asked, ScriptedCaller, ok, refusal


class Silent(ScriptedCaller):
    """Answers groups as it was told, and otherwise lets every call wait in vain."""

    async def call(
        self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
    ) -> Any:
        if function == "get_each" and self._answers:
            return await super().call(module, function, args, timeout=timeout, idempotent=idempotent)
        self.asked.append(Asked(module, function, list(args), timeout, idempotent))
        await asyncio.sleep(timeout)
        raise DeadlineError("late")


@pytest.mark.parametrize(
    ("request_", "group", "alone"),
    [
        (lambda store: store.get("/:a"), "get_each", None),
        (lambda store: store.put("/:a", 1), "writes", None),
        (lambda store: store.put_once("/:a", 1), "transactions", "transaction"),
    ],
)
async def test_no_request_waits_longer_for_being_in_a_group(
    request_: Callable[[Khepri], Awaitable[Any]], group: str, alone: str | None
) -> None:
    caller = Silent()
    store = Khepri(caller, config=KhepriConfig(timeout=0.05))
    told = await asyncio.gather(*(request_(store) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(one, DeadlineError | OutcomeUnknownError) for one in told)
    assert len({id(one) for one in told}) == 4
    first, *later = caller.asked[1:]
    assert first.function == group
    assert [asked.function for asked in later] == ([] if alone is None else [alone] * 3)
    margin = 0.5 if group == "writes" else 0.001
    assert max([0.0, *(asked.timeout for asked in later)]) + first.timeout <= 0.05 + margin


async def test_a_read_that_its_group_could_not_make_has_the_rest_of_its_time() -> None:
    caller = Silent(ok([refusal("no_leader")] * 3))
    store = Khepri(caller, config=KhepriConfig(timeout=0.05))
    told = await asyncio.gather(*(store.get("/:a") for _ in range(4)), return_exceptions=True)
    assert all(isinstance(one, DeadlineError) for one in told)
    assert [asked.function for asked in caller.asked] == ["get", "get_each", "get", "get", "get"]
    assert all(asked.timeout <= 0.05 for asked in caller.asked)


async def test_writes_that_the_store_refuses_together_are_not_sent_again() -> None:
    class Slow(ScriptedCaller):
        async def call(
            self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
        ) -> Any:
            await asyncio.sleep(0)
            return await super().call(module, function, args, timeout=timeout, idempotent=idempotent)

    caller = Slow(ok({}), refusal("no_leader"))
    store = Khepri(caller)
    told = await asyncio.gather(*(store.put("/:a", n) for n in range(4)), return_exceptions=True)
    assert [type(one) for one in told] == [type(None), *[NoLeaderError] * 3]
    assert [asked.function for asked in caller.asked] == ["put", "writes"]


async def test_data_that_are_no_term_are_told_to_the_one_who_gave_them() -> None:
    class Encoding(ScriptedCaller):
        async def call(
            self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
        ) -> Any:
            encode_term(list(args))
            await asyncio.sleep(0)
            return ok({})

    store = Khepri(Encoding())
    told = await asyncio.gather(
        *(store.put("/:a", None if n == 2 else n) for n in range(5)), return_exceptions=True
    )
    assert [type(one) for one in told if one is not None] == [ConfigurationError]
    assert isinstance(told[2], ConfigurationError)


@erlang
async def test_reads_made_at_once_get_their_own_answers_and_refusals(store: Khepri, root: str) -> None:
    await asyncio.gather(*(store.put(f"{root}/{number}", number) for number in range(100)))
    paths = [f"{root}/{number}" for number in range(120)]
    told = await asyncio.gather(*(store.get(path) for path in paths), return_exceptions=True)
    assert told[:100] == list(range(100))
    assert all(isinstance(one, NodeNotFoundError) for one in told[100:])


@erlang
async def test_a_write_that_is_refused_keeps_none_beside_it_from_being_made(store: Khepri, root: str) -> None:
    paths = ["/:bridge/:identity" if number == 7 else f"{root}/{number}" for number in range(20)]
    told = await asyncio.gather(*(store.put(path, 1) for path in paths), return_exceptions=True)
    assert isinstance(told[7], ReservedPathError)
    assert [one for one in told if one is not None] == [told[7]]
    assert len(await store.get_many(f"{root}/*")) == 19


@erlang
async def test_large_answers_come_one_by_one(store: Khepri, root: str) -> None:
    """Together they would be more elements than one term may have, which ends the connection."""
    large: list[Any] = [[]] * 500_000
    await store.put(f"{root}/large", large)
    await store.put(f"{root}/small", 1)
    member = store.caller.current
    replies = await store.caller.call(
        "kb_khepri", "get_each", [store.store, [f"{root}/large"] * 2, {}], timeout=10, idempotent=True
    )
    assert [reply[0] for reply in replies[1]] == [Atom("ok"), Atom("error")]
    patient = Khepri(store.caller, store=str(store.store), config=KhepriConfig(timeout=60))
    names = ["small", "large", "large", "small", "small"]
    assert await asyncio.gather(*(patient.get(f"{root}/{name}") for name in names)) == [
        {"small": 1, "large": large}[name] for name in names
    ]
    wanted: list[list[Operation]] = [
        [Get(f"{root}/{name}"), Put(f"{root}/{n}", n)] for n, name in enumerate(names)
    ]
    assert [one[0] == large for one in await asyncio.gather(*map(patient.transaction, wanted))] == [
        name == "large" for name in names
    ]
    versions = [(await store.adv.get(f"{root}/{n}")).popitem()[1].payload_version for n in range(len(names))]
    assert versions == [1] * len(names)
    assert store.caller.current == member
    # Whatever prints the whole store after this prints it too.
    await store.delete(f"{root}/large")


async def test_requests_made_at_once_keep_their_ids_when_their_group_is_refused() -> None:
    class Slow(ScriptedCaller):
        async def call(
            self, module: str, function: str, args: Sequence[Any], *, timeout: float, idempotent: bool
        ) -> Any:
            await asyncio.sleep(0)
            return await super().call(module, function, args, timeout=timeout, idempotent=idempotent)

    caller = Slow(ok(0), refusal("ungrouped"), ok(1), refusal("not_owner"), ok(3))
    store = Khepri(caller)
    asked = [store.request("revoke", {Atom("entity"): b"%d" % n}, timeout=60) for n in range(4)]
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [told[0], told[1], told[3]] == [0, 1, 3]
    assert isinstance(told[2], KhepriError)
    assert [one.function for one in caller.asked] == ["revoke", "requests", "revoke", "revoke", "revoke"]
    alone = [(Atom("revoke"), one.args[1], one.args[2]) for one in caller.asked[2:]]
    assert caller.asked[1].args[1] == alone


async def test_a_request_that_needs_more_than_a_valid_map_is_made_alone() -> None:
    caller = ScriptedCaller(ok(0), ok(1), ok(2))
    store = Khepri(caller)
    await asyncio.gather(*(store.request("claim", {Atom("entity"): b"%d" % n}) for n in range(3)))
    assert [one.function for one in caller.asked] == ["claim"] * 3


@erlang
async def test_deletions_and_puts_may_be_made_at_once(store: Khepri, root: str) -> None:
    await store.put(f"{root}/gone", 1)
    await asyncio.gather(
        store.put(f"{root}/a", 1),
        store.delete(f"{root}/gone"),
        store.put(f"{root}/b", 2),
        store.delete(f"{root}/none"),
    )
    assert sorted((await store.get_many(f"{root}/*")).values()) == [1, 2]


@erlang
async def test_transactions_made_at_once_are_applied_once_each(store: Khepri, root: str) -> None:
    """Two puts raise the version by two, each time they are applied."""
    for turn in range(3):
        wanted: list[list[Operation]] = [
            [Put(f"{root}/{number}", ("begin", turn)), Put(f"{root}/{number}", turn), Get(f"{root}/{number}")]
            for number in range(150)
        ]
        told = await asyncio.gather(*map(store.transaction, wanted))
        assert told == [[None, None, turn]] * 150
    versions = {props.payload_version for props in (await store.adv.get_many(f"{root}/*")).values()}
    assert versions == {6}


@erlang
async def test_requests_that_nobody_awaits_any_longer_are_applied_once_or_not_at_all(
    store: Khepri, root: str
) -> None:
    """Given up at any moment: before they are sent, on their way, or when they have arrived."""
    source = random.Random(7)
    acknowledged: set[str] = set()

    async def write(name: str) -> None:
        await store.transaction([Put(f"{root}/{name}", 0), Put(f"{root}/{name}", 1)])
        acknowledged.add(name)

    for turn in range(30):
        tasks = [asyncio.create_task(write(f"{turn}-{number}")) for number in range(40)]
        for _ in range(source.randrange(8)):
            await asyncio.sleep(0 if turn % 2 else 0.001)
            for task in source.sample(tasks, 5):
                task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
    await write("last")
    await store.fence()
    found = await store.adv.get_many(f"{root}/*")
    assert {props.payload_version for props in found.values()} == {2}
    assert acknowledged <= {path[-1].decode() for path in found if isinstance(path[-1], bytes)}


@erlang
async def test_one_that_fails_undoes_itself_alone(store: Khepri, root: str) -> None:
    await store.put(f"{root}/taken", b"no")
    wanted: list[list[Operation]] = [[Put(f"{root}/{number}", number)] for number in range(30)]
    wanted[11] = [Put(f"{root}/undone", 1), CompareAndSwap(f"{root}/taken", b"yes", b"mine")]
    told = await asyncio.gather(*map(store.transaction, wanted), return_exceptions=True)
    assert isinstance(told[11], MismatchingNodeError)
    assert told[11].props["index"] == 1
    assert [one for one in told if one != [None]] == [told[11]]
    assert not await store.exists(f"{root}/undone")
    assert len(await store.get_many(f"{root}/*")) == 30


@erlang
async def test_what_no_homeserver_takes_is_told_to_the_one_who_asked(store: Khepri, root: str) -> None:
    paths = [f"{root}/*" if number == 3 else f"{root}/{number}" for number in range(10)]
    told = await asyncio.gather(
        *(store.transaction([Put(path, 1)]) for path in paths), return_exceptions=True
    )
    assert isinstance(told[3], InvalidRequestError)
    assert len(await store.get_many(f"{root}/*")) == 9


@erlang
async def test_a_swap_of_many_at_once_is_won_by_one(store: Khepri, root: str) -> None:
    await store.put(f"{root}/lock", b"free")
    told = await asyncio.gather(
        *(store.transaction([CompareAndSwap(f"{root}/lock", b"free", b"%d" % n)]) for n in range(40)),
        return_exceptions=True,
    )
    (winner,) = [n for n, one in enumerate(told) if one == [None]]
    assert all(isinstance(one, MismatchingNodeError) for n, one in enumerate(told) if n != winner)
    assert await store.get(f"{root}/lock") == b"%d" % winner

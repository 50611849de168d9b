"""Reads, writes and transactions made at once, against real homeservers: as if each had been made alone."""

from __future__ import annotations

import asyncio

import pytest

from bridge.khepri import (
    CompareAndSwap,
    Get,
    InvalidRequestError,
    Khepri,
    MismatchingNodeError,
    NodeNotFoundError,
    Operation,
    Put,
    ReservedPathError,
)

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_reads_made_at_once_get_their_own_answers_and_refusals(store: Khepri, root: str) -> None:
    await asyncio.gather(*(store.put(f"{root}/{number}", number) for number in range(100)))
    paths = [f"{root}/{number}" for number in range(120)]
    told = await asyncio.gather(*(store.get(path) for path in paths), return_exceptions=True)
    assert told[:100] == list(range(100))
    assert all(isinstance(one, NodeNotFoundError) for one in told[100:])


async def test_a_write_that_is_refused_keeps_none_beside_it_from_being_made(store: Khepri, root: str) -> None:
    paths = ["/:bridge/:identity" if number == 7 else f"{root}/{number}" for number in range(20)]
    told = await asyncio.gather(*(store.put(path, 1) for path in paths), return_exceptions=True)
    assert isinstance(told[7], ReservedPathError)
    assert [one for one in told if one is not None] == [told[7]]
    assert len(await store.get_many(f"{root}/*")) == 19


async def test_deletions_and_puts_may_be_made_at_once(store: Khepri, root: str) -> None:
    await store.put(f"{root}/gone", 1)
    await asyncio.gather(
        store.put(f"{root}/a", 1),
        store.delete(f"{root}/gone"),
        store.put(f"{root}/b", 2),
        store.delete(f"{root}/none"),
    )
    assert sorted((await store.get_many(f"{root}/*")).values()) == [1, 2]


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


async def test_what_no_homeserver_takes_is_told_to_the_one_who_asked(store: Khepri, root: str) -> None:
    paths = [f"{root}/*" if number == 3 else f"{root}/{number}" for number in range(10)]
    told = await asyncio.gather(
        *(store.transaction([Put(path, 1)]) for path in paths), return_exceptions=True
    )
    assert isinstance(told[3], InvalidRequestError)
    assert len(await store.get_many(f"{root}/*")) == 9


async def test_a_swap_of_many_at_once_is_won_by_one(store: Khepri, root: str) -> None:
    await store.put(f"{root}/lock", b"free")
    told = await asyncio.gather(
        *(store.transaction([CompareAndSwap(f"{root}/lock", b"free", b"%d" % n)]) for n in range(40)),
        return_exceptions=True,
    )
    (winner,) = [n for n, one in enumerate(told) if one == [None]]
    assert all(isinstance(one, MismatchingNodeError) for n, one in enumerate(told) if n != winner)
    assert await store.get(f"{root}/lock") == b"%d" % winner

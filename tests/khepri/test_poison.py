"""Nothing that the public interface takes ends a store: conditions, patterns and operations at random."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigurationError, KhepriError
from bridge.etf import Atom
from bridge.khepri import (
    Adv,
    AllOf,
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Condition,
    Count,
    Create,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    Khepri,
    NameMatches,
    Operation,
    Put,
    PutMany,
    Update,
    native_path,
)
from tests.support.khepri_terms import conditions, patterns_of_data
from tests.support.terms import terms

pytestmark = [pytest.mark.erlang, pytest.mark.slow]

names = st.sampled_from([b"a", b"b", Atom("c"), "d"])
components: st.SearchStrategy[Any] = st.one_of(
    names,
    conditions(),
    conditions().map(lambda condition: AllOf("a", condition)),
    conditions().map(lambda condition: AllOf(NameMatches(), condition)),
)
below = st.lists(components, min_size=1, max_size=3)
watched = st.one_of(st.sampled_from([".", "..", "../a", "./b"]), names.map(lambda name: (name,)))
kept = st.none() | st.dictionaries(watched, conditions(), max_size=2)
data = st.one_of(terms, patterns_of_data().filter(lambda pattern: isinstance(pattern, int)))


def operations(root: str) -> st.SearchStrategy[Operation]:
    base = native_path(root)
    paths = below.map(lambda components: [*base, *components])
    written: list[st.SearchStrategy[Any]] = [
        st.builds(kind, paths, data, kept) for kind in (Put, PutMany, Create, Update)
    ]
    named = [
        st.builds(kind, paths)
        for kind in (Delete, DeleteMany, ClearPayload, ClearManyPayloads, Get, GetMany, Exists, Count)
    ]
    plain = [*written, st.builds(CompareAndSwap, paths, data, data, kept), *named[:6]]
    return st.one_of(*plain, *named, st.one_of(plain).map(Adv))


def some(strategy: st.SearchStrategy[Any]) -> list[Any]:
    """A hundred values, chosen before the event loop has them."""
    seen: list[Any] = []

    @given(strategy)
    def collect(value: Any) -> None:
        seen.append(value)

    collect()
    return seen


async def test_after_random_transactions_the_store_lives(store: Khepri, root: str) -> None:
    applied = 0
    for chosen in some(st.lists(operations(root), min_size=1, max_size=4)):
        with contextlib.suppress(KhepriError, ConfigurationError):
            await store.transaction(chosen)
            applied += 1
        # A write of each node, so that whatever watches one is evaluated.
        await store.transaction([Put([*native_path(root), name], applied) for name in ("a", "b")])
    assert applied > 0
    assert await store.cluster.is_running()
    assert await store.get(f"{root}/a", favor="consistency") == applied


async def test_after_random_reads_the_store_lives(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/a/b", 1), Put(f"{root}/c", {b"k": [1, 2]})])
    answered = 0
    for chosen in some(below):
        with contextlib.suppress(KhepriError, ConfigurationError):
            await store.get_many([*native_path(root), *chosen])
            answered += 1
    assert answered > 0
    assert await store.get(f"{root}/a/b", favor="consistency") == 1


async def test_after_random_conditions_in_paths_the_store_lives(store: Khepri, root: str) -> None:
    """A condition in the path of Khepri's plain put is evaluated where nothing guards the store."""
    for condition in some(conditions()):
        path: list[str | bytes | Atom | Condition] = [*native_path(root), AllOf("a", condition)]
        with contextlib.suppress(KhepriError, ConfigurationError):
            await store.put(path, 1)
        with contextlib.suppress(KhepriError, ConfigurationError):
            await store.delete(path)
    await store.put(f"{root}/a", 2)
    assert await store.get(f"{root}/a", favor="consistency") == 2

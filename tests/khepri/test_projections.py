from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import (
    InvalidRequestError,
    Khepri,
    NameMatches,
    NoProjectionError,
    NotAllowedError,
    PoisonError,
    ProjectionExistsError,
    Put,
    fun,
    native_path,
)
from tests.support.cluster import erlang, fresh
from tests.support.scripted_caller import ScriptedCaller, ok, refusal


def client(*answers: Any) -> tuple[Khepri, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return Khepri(caller), caller


async def test_a_projection_copies_or_is_made_by_a_function() -> None:
    store, caller = client(ok({}), ok({}))
    await store.projections.register("wood", "/:wood/*")
    await store.projections.register("oak", "/:wood/*", fun("stock:row/2"), table="bag", keypos=2)
    copied, made = (list(asked.args[1:]) for asked in caller.asked)
    assert copied[:3] == [b"wood", b"/:wood/*", Atom("copy")]
    assert made[2] == (Atom("stock"), Atom("row"), 2)
    assert made[3] == {
        Atom("type"): Atom("bag"),
        Atom("keypos"): 2,
        Atom("read_concurrency"): False,
        Atom("write_concurrency"): False,
        Atom("compressed"): False,
        Atom("timeout"): 5000,
    }


async def test_projections_are_dropped_by_name_or_all() -> None:
    store, caller = client(ok({Atom("names"): [b"wood"]}), ok({Atom("names"): [Atom("oak")]}))
    assert await store.projections.unregister("wood", "stone") == ["wood"]
    assert await store.projections.unregister_all() == ["oak"]
    assert [asked.args[1] for asked in caller.asked] == [[b"wood", b"stone"], Atom("all")]


async def test_tables_are_read() -> None:
    store, caller = client(ok(True), ok([(1, 2)]), ok([(1, 2), (3, 4)]), refusal("no_projection"))
    assert await store.projections.has("wood") is True
    assert await store.projections.lookup("wood", 1) == [(1, 2)]
    assert await store.projections.objects("wood", limit=2) == [(1, 2), (3, 4)]
    with pytest.raises(NoProjectionError):
        await store.projections.lookup("stone", 1)
    assert caller.asked[1].args == [b"wood", 1, Atom("homeserver")]
    assert caller.asked[2].args == [b"wood", 2, Atom("homeserver")]


@pytest.mark.parametrize(
    "call",
    [
        lambda projections: projections.register("a", "/**", table="hash"),
        lambda projections: projections.register("a", "/**", fun("a:b/3")),
        lambda projections: projections.register("a", "/**", "copy"),
        lambda projections: projections.objects("a", limit=0),
        lambda projections: projections.objects("a", limit=10_001),
    ],
)
async def test_what_cannot_work_is_refused_before_it_is_sent(call: Any) -> None:
    store, caller = client()
    with pytest.raises(ConfigurationError):
        await call(store.projections)
    assert caller.asked == []


async def held(store: Khepri, name: str) -> list[Any]:
    """The table of the connected member, which has applied what was committed."""
    await store.fence()
    return sorted(await store.projections.objects(name))


@erlang
async def test_a_table_follows_the_tree(store: Khepri, root: str) -> None:
    name = fresh("index")
    await store.transaction([Put(f"{root}/oak", 3), Put(f"{root}/pine", 1)])
    assert not await store.projections.has(name)
    await store.projections.register(name, f"{root}/*", fun("kb_demo_functions:index/2"))
    assert await store.projections.has(name)
    assert await held(store, name) == [(b"oak", 3), (b"pine", 1)]
    await store.put(f"{root}/oak", 4)
    await store.delete(f"{root}/pine")
    assert await held(store, name) == [(b"oak", 4)]
    assert await store.projections.lookup(name, b"oak") == [(b"oak", 4)]
    assert await store.projections.lookup(name, b"beech") == []
    assert await store.projections.unregister(name, fresh("nobodys")) == [name]
    assert not await store.projections.has(name, favor="consistency")
    with pytest.raises(NoProjectionError):
        await store.projections.objects(name)


@erlang
async def test_a_function_of_four_arguments_keeps_the_table_itself(store: Khepri, root: str) -> None:
    name = fresh("words")
    words = fun("kb_demo_functions:words/4")
    await store.projections.register(name, f"{root}/*", words, table="bag", read_concurrency=True)
    await store.put(f"{root}/a", b"oak and pine")
    path = list(native_path(f"{root}/a"))
    assert await held(store, name) == [(b"and", path), (b"oak", path), (b"pine", path)]
    await store.projections.unregister(name)


@erlang
async def test_data_are_copied(store: Khepri, root: str) -> None:
    name = fresh("copies")
    await store.put(f"{root}/a", (Atom("oak"), 7))
    await store.projections.register(name, f"{root}/*", keypos=2, compressed=True)
    assert await held(store, name) == [(Atom("oak"), 7)]
    assert await store.projections.lookup(name, 7) == [(Atom("oak"), 7)]
    with pytest.raises(ProjectionExistsError):
        await store.projections.register(name, f"{root}/*")
    assert name in await store.projections.unregister_all()


@erlang
async def test_what_would_end_the_store_is_refused(store: Khepri, root: str) -> None:
    name, base = fresh("refused"), native_path(root)
    with pytest.raises(InvalidRequestError):
        await store.projections.register(name, f"{root}/*", keypos=0)
    with pytest.raises(PoisonError):
        await store.projections.register(name, [*base, NameMatches("^a")])
    with pytest.raises(InvalidRequestError):
        await store.projections.register("ünicode", f"{root}/*")
    with pytest.raises(NotAllowedError):
        await store.projections.register(name, f"{root}/*", fun("erlang:max/2"))
    await store.put(f"{root}/a", 1)
    assert not await store.projections.has(name)

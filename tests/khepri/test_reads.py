from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import (
    AllOf,
    AnyOf,
    ChildListLength,
    ChildListVersion,
    DataMatches,
    HasData,
    HasPayload,
    HasSproc,
    InvalidRequestError,
    Khepri,
    MatchAny,
    MatchVariable,
    MismatchingNodeError,
    NameMatches,
    NativePath,
    NodeExists,
    NodeNotFoundError,
    NodeProps,
    Not,
    PathMatches,
    PayloadVersion,
    PoisonError,
    Put,
    native_path,
    path_text,
)
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

TREE = ErlangMap(
    [
        ([Atom("a")], {Atom("data"): 1, Atom("payload_version"): 1}),
        ([Atom("a"), b"b"], {Atom("data"): 2, Atom("payload_version"): 4}),
        ([Atom("c")], {Atom("payload_version"): 1}),
    ]
)


def client(*answers: Any) -> tuple[Khepri, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return Khepri(caller), caller


async def test_a_default_stands_for_no_node_and_for_no_data() -> None:
    store, _ = client(ok({Atom("data"): 3}), ok({}), ok({Atom("sproc"): 1}), refusal("node_not_found"))
    assert [await store.get_or("/:a", 7) for _ in range(4)] == [3, 7, 7, 7]
    store, _ = client(ok(TREE))
    assert await store.get_many_or("/**", 7) == {(Atom("a"),): 1, (Atom("a"), b"b"): 2, (Atom("c"),): 7}


@pytest.mark.parametrize("question", ["exists", "has_data", "is_sproc"])
async def test_a_question_is_answered_by_a_boolean(question: str) -> None:
    store, caller = client(ok(True), ok(False), ok(Atom("maybe")))
    ask = getattr(store, question)
    assert await ask("/:a") is True
    assert await ask("/:a", favor="consistency") is False
    with pytest.raises(ProtocolError):
        await ask("/:a")
    assert {asked.function for asked in caller.asked} == {question}


async def test_nodes_are_counted() -> None:
    store, _ = client(ok(3), ok(True), ok(True))
    assert await store.count("/**") == 3
    with pytest.raises(ProtocolError):
        await store.count("/**")
    assert await store.is_empty() is True


async def test_what_was_found_is_combined_here() -> None:
    store, caller = client(ok(TREE), ok(TREE), ok(TREE), ok(TREE))
    assert await store.fold("/**", lambda _, props, total: total + (props.data or 0), 10) == 13
    seen: list[Any] = []
    await store.for_each("/**", lambda path, props: seen.append((path, props.data)))
    assert seen == [((Atom("a"),), 1), ((Atom("a"), b"b"), 2), ((Atom("c"),), None)]
    assert await store.map("/**", lambda path, props: (len(path), props.payload_version)) == {
        (Atom("a"),): (1, 1),
        (Atom("a"), b"b"): (2, 4),
        (Atom("c"),): (1, 1),
    }
    assert await store.filter("/**", lambda _, props: props.payload_version == 1, favor="consistency") == {
        (Atom("a"),): 1,
        (Atom("c"),): None,
    }
    assert caller.asked[-1].args[-1][Atom("favor")] == Atom("consistency")


async def test_an_option_that_there_is_not_is_refused() -> None:
    store, caller = client()
    with pytest.raises(ConfigurationError, match="no option"):
        await store.get("/:a", prefer="consistency")  # type: ignore[call-arg]  # what a caller without types may do
    assert caller.asked == []


def names(root: str, found: Iterable[NativePath]) -> set[str]:
    """Paths below the root, as text."""
    base = len(native_path(root))
    return {path_text(path[base:])[1:] for path in found}


@pytest.fixture
async def wood(store: Khepri, root: str) -> str:
    """A small tree below the test's root."""
    await store.transaction(
        [
            Put(f"{root}/oak", {Atom("count"): 3, b"kind": b"hard"}),
            Put(f"{root}/pine", {Atom("count"): 1}),
            Put(f"{root}/pine/needle", 7),
            Put(f"{root}/empty/leaf", 1),
            Put(f"{root}/oak", {Atom("count"): 4, b"kind": b"hard"}),
        ]
    )
    await store.fence()
    return root


@erlang
async def test_data_no_data_and_no_node_are_told_apart(store: Khepri, wood: str) -> None:
    assert await store.get(f"{wood}/pine") == {Atom("count"): 1}
    assert await store.get(f"{wood}/empty") is None
    with pytest.raises(NodeNotFoundError) as caught:
        await store.get(f"{wood}/beech", favor="consistency")
    assert native_path(caught.value.props["path"]) == (*native_path(wood), b"beech")
    assert await store.get_or(f"{wood}/beech", 0) == await store.get_or(f"{wood}/empty", 0) == 0


@erlang
async def test_one_node_is_asked_for_and_not_many(store: Khepri, wood: str) -> None:
    for ask in (store.get, store.exists, store.has_data, store.is_sproc):
        with pytest.raises(InvalidRequestError):
            await ask(f"{wood}/*")
    with pytest.raises(InvalidRequestError):
        await store.get_many(f"{wood}/*", expect_specific_node=True)


@erlang
async def test_one_node_may_have_to_be_as_demanded(store: Khepri, wood: str) -> None:
    base = native_path(wood)
    assert await store.get([*base, AllOf("pine", HasData())]) == {Atom("count"): 1}
    with pytest.raises(MismatchingNodeError):
        await store.get([*base, AllOf("pine", PayloadVersion("gt", 1))])


@erlang
@pytest.mark.parametrize(
    ("component", "expected"),
    [
        (NameMatches(), {"oak", "pine", "empty"}),
        (NameMatches("^p|k$"), {"oak", "pine"}),
        (PathMatches(), {"oak", "pine", "pine/needle", "empty", "empty/leaf"}),
        (PathMatches("^l"), {"empty/leaf"}),
        (AllOf(NameMatches(), HasData()), {"oak", "pine"}),
        (AllOf(NameMatches(), HasPayload(False)), {"empty"}),
        (AllOf(PathMatches(), HasSproc()), set()),
        (AllOf(NameMatches(), PayloadVersion("eq", 2)), {"oak"}),
        (AllOf(NameMatches(), ChildListLength("eq", 1)), {"pine", "empty"}),
        (AllOf(NameMatches(), ChildListVersion("ge", 1)), {"oak", "pine", "empty"}),
        (AllOf(NameMatches(), Not(AnyOf("oak", "pine"))), {"empty"}),
        (AnyOf("oak", "pine", "beech"), {"oak", "pine"}),
        (AllOf("oak", NodeExists()), {"oak"}),
        (AllOf(NameMatches(), DataMatches({Atom("count"): MatchAny()})), {"oak", "pine"}),
        (
            AllOf(
                NameMatches(),
                DataMatches({Atom("count"): MatchVariable(1)}, [(Atom(">"), MatchVariable(1), 3)]),
            ),
            {"oak"},
        ),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
async def test_every_condition_chooses_nodes(
    store: Khepri, wood: str, component: Any, expected: set[str]
) -> None:
    pattern = [*native_path(wood), component]
    assert names(wood, await store.get_many(pattern)) == expected
    assert await store.count(pattern) == len(expected)


@erlang
async def test_questions_are_answered(store: Khepri, wood: str) -> None:
    assert [await store.exists(f"{wood}/{name}") for name in ("oak", "empty", "beech")] == [True, True, False]
    assert [await store.has_data(f"{wood}/{name}") for name in ("oak", "empty", "beech")] == [
        True,
        False,
        False,
    ]
    assert [await store.is_sproc(f"{wood}/{name}") for name in ("oak", "beech")] == [False, False]
    assert await store.is_empty(favor="consistency") is False


@erlang
async def test_the_tree_is_combined_here(store: Khepri, wood: str) -> None:
    def numbers(_: NativePath, props: NodeProps, total: int) -> int:
        return total + props.data if isinstance(props.data, int) else total

    assert await store.fold(f"{wood}/**", numbers, 0) == 8
    assert names(wood, await store.filter(f"{wood}/**", lambda _, props: props.data == 7)) == {"pine/needle"}
    names_below = await store.map(f"{wood}/pine", lambda _, props: props.child_names, props=["child_names"])
    assert list(names_below.values()) == [(b"needle",)]
    versions = await store.map(f"{wood}/*", lambda _, props: props.payload_version)
    assert sorted(version or 0 for version in versions.values()) == [1, 1, 2]


@erlang
async def test_the_root_is_told_of_where_it_is_asked_for(store: Khepri, wood: str) -> None:
    assert () not in await store.adv.get_many([PathMatches()])
    everything = await store.adv.get_many([PathMatches()], include_root_props=True)
    assert () in everything


@erlang
async def test_a_data_pattern_that_does_not_compile_is_refused(store: Khepri, wood: str) -> None:
    with pytest.raises((PoisonError, InvalidRequestError)):
        await store.get_many([*native_path(wood), DataMatches(MatchAny(), [(Atom("system"), b"halt")])])
    assert await store.exists(f"{wood}/oak")

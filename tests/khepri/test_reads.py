from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import Khepri
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

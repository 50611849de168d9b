from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri import (
    AllOf,
    AnyOf,
    ChildListLength,
    DataMatches,
    Delete,
    InvalidDataError,
    InvalidRequestError,
    KeepWhileConditionsNotMetError,
    Khepri,
    MismatchingNodeError,
    NodeExists,
    NodeNotFoundError,
    Not,
    OperationId,
    PayloadVersion,
    PoisonError,
    Put,
    ReservedPathError,
    Special,
    StoreUnavailableError,
    TooLargeError,
    fun,
    native_path,
)
from tests.support.cluster import erlang
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

KEPT = {"/:b": NodeExists()}
Write = Callable[[Khepri], Awaitable[None]]


def client(*answers: Any) -> tuple[Khepri, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return Khepri(caller), caller


@pytest.mark.parametrize(
    ("write", "function", "arguments"),
    [
        (lambda store: store.put("/:a", 1), "put", [b"/:a", 1]),
        (lambda store: store.delete(["a"]), "delete", [[b"a"]]),
    ],
)
async def test_one_node_without_conditions_is_written_plainly(
    write: Write, function: str, arguments: list[Any]
) -> None:
    store, caller = client(ok({}))
    await write(store)
    (asked,) = caller.asked
    assert (asked.function, list(asked.args[1:-1]), asked.idempotent) == (function, arguments, False)


@pytest.mark.parametrize(
    ("write", "tag"),
    [
        (lambda store: store.put("/:a", 1, keep_while=KEPT), "put"),
        (lambda store: store.put("/:a", 1, operation_id=OperationId(b"me", 1, 1, 0)), "put"),
        (lambda store: store.put([AllOf("a", NodeExists())], 1), "put"),
        (lambda store: store.put_once("/:a", 1), "put"),
        (lambda store: store.put_many("/:a/*", 1, keep_while=KEPT), "put_many"),
        (lambda store: store.create("/:a", 1, keep_while=KEPT), "create"),
        (lambda store: store.update("/:a", 1, keep_while=KEPT), "update"),
        (lambda store: store.compare_and_swap("/:a", 1, 2, keep_while=KEPT), "compare_and_swap"),
        (lambda store: store.delete([AllOf("a", NodeExists())]), "delete"),
        (lambda store: store.delete("/:a", operation_id=OperationId(b"me", 1, 1, 0)), "delete"),
        (lambda store: store.delete_many("/:a/*"), "delete_many"),
        (lambda store: store.clear_payload("/:a"), "clear_payload"),
        (lambda store: store.clear_many_payloads("/:a/*"), "clear_many_payloads"),
    ],
)
async def test_every_other_write_is_a_transaction_and_is_repeated(write: Write, tag: str) -> None:
    store, caller = client(refusal("no_leader"), ok([Atom("ok")]))
    await write(store)
    first, second = caller.asked
    assert (first.function, first.idempotent) == ("transaction", True)
    assert first.args == second.args
    ((operation,),) = [asked.args[1] for asked in caller.asked[:1]]
    assert operation[0] == Atom(tag)


async def test_a_pipeline_answers_by_what_the_caller_calls_its_writes() -> None:
    store, caller = client(ok([(1, refusal("no_leader")), (0, ok({}))]))
    outcomes = await store.pipeline({"wood": Put("/:a", 1), ("stone", 2): Delete("/:b")})
    assert outcomes["wood"].applied
    assert isinstance(outcomes["stone", 2].error, StoreUnavailableError)
    assert (caller.asked[0].function, caller.asked[0].idempotent) == ("pipeline", False)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda store: store.transaction(Put("/:a", 1)), "takes a list"),
        (lambda store: store.transaction(None), "takes a list"),
        (lambda store: store.put("/:a", 1, keep_while=["/:b"]), "a dict of conditions"),
        (lambda store: store.pipeline([Put("/:a", 1)]), "a dict of writes"),
        (lambda store: store.put("/:a", 1, timeout=0), "above zero"),
        (lambda store: store.put_once("/:a", 1, timeout=-1), "above zero"),
        (lambda store: store.transaction([Put("/:a", 1)], timeout=float("nan")), "above zero"),
        (lambda store: store.put("/\udc80", 1), "surrogate"),
        (lambda store: store.put_once(["\udc80"], 1), "surrogate"),
        (lambda store: store.delete(["a", "\udc80"]), "surrogate"),
    ],
)
async def test_what_one_stumbles_over_is_told_before_anything_is_sent(write: Write, match: str) -> None:
    store, caller = client()
    with pytest.raises(ConfigurationError, match=match):
        await write(store)
    assert not caller.asked


async def test_a_fence_may_be_put_again() -> None:
    store, caller = client(ok({}))
    await store.fence(timeout=2)
    assert caller.asked[0].args == [Atom("homeserver"), {Atom("timeout"): 2000}]
    assert caller.asked[0].idempotent


@erlang
async def test_deleting_takes_what_is_below_along_and_may_be_repeated(store: Khepri, root: str) -> None:
    await store.put(f"{root}/wood/oak", 1)
    await store.delete(f"{root}/wood")
    await store.delete(f"{root}/wood")
    assert await store.get_many(f"{root}/wood/**", favor="consistency") == {}


@erlang
async def test_a_node_goes_with_what_keeps_it(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/host", 1), Put(f"{root}/guest", 2, {f"{root}/host": NodeExists()})])
    await store.delete(f"{root}/host")
    with pytest.raises(NodeNotFoundError):
        await store.get(f"{root}/guest", favor="consistency")


@erlang
async def test_what_would_crash_the_store_is_refused_and_the_store_lives(store: Khepri, root: str) -> None:
    """A ``keep_while`` on data kills Khepri's state machine on every member at a later write."""
    poison = AnyOf(NodeExists(), Not(DataMatches()))
    await store.put(f"{root}/host", 1)
    with pytest.raises(PoisonError):
        await store.transaction([Put(f"{root}/guest", 1, {f"{root}/host": poison})])
    await store.put_once(f"{root}/host", 2)
    assert (await store.health()).running


@erlang
@pytest.mark.parametrize("path", ["/:bridge/:grants", "/:bridge", "/:stock/../:bridge/:grants"])
async def test_below_the_bridges_own_tree_nobody_writes(store: Khepri, path: str) -> None:
    with pytest.raises(ReservedPathError):
        await store.put(path, 1)
    with pytest.raises(ReservedPathError):
        await store.delete(path)
    with pytest.raises(ReservedPathError):
        await store.transaction([Put(path, 1)])


@erlang
@pytest.mark.parametrize("path", ["/", "/a/*/b", "/" + "/".join("a" * 65)])
async def test_a_write_names_one_node(store: Khepri, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        await store.put(path, 1)


@erlang
async def test_data_beyond_the_limit_is_refused_before_the_log(store: Khepri, root: str) -> None:
    await store.put(f"{root}/large", bytes(1_000_000))
    with pytest.raises(TooLargeError):
        await store.put(f"{root}/large", bytes(1_100_000))
    with pytest.raises(TooLargeError):
        await store.transaction([Put(f"{root}/{i}", bytes(300_000)) for i in range(4)])
    # Whatever prints the whole store after this prints it too.
    await store.delete(f"{root}/large")


@erlang
async def test_single_writes_say_yes_or_why_not(store: Khepri, root: str) -> None:
    path = f"{root}/a"
    with pytest.raises(NodeNotFoundError):
        await store.update(path, 0)
    with pytest.raises(NodeNotFoundError):
        await store.compare_and_swap(path, 0, 1)
    await store.create(path, 1)
    with pytest.raises(MismatchingNodeError):
        await store.create(path, 2)
    await store.update(path, 2)
    with pytest.raises(MismatchingNodeError):
        await store.compare_and_swap(path, 2.0, 3)
    await store.compare_and_swap(path, 2, 3)
    assert await store.get(path, favor="consistency") == 3
    await store.clear_payload(path)
    await store.clear_payload(f"{root}/missing")
    assert not await store.has_data(path, favor="consistency")
    assert not await store.exists(f"{root}/missing", favor="consistency")


@erlang
async def test_many_nodes_are_written_at_once(store: Khepri, root: str) -> None:
    await store.put_many(f"{root}/a", 1)
    await store.put_many(f"{root}/b", 1)
    await store.put_many(f"{root}/*", 2)
    assert set((await store.get_many(f"{root}/*", favor="consistency")).values()) == {2}
    await store.clear_many_payloads(f"{root}/a*")
    assert await store.get_many_or(f"{root}/*", 0, favor="consistency") == {
        native_path(f"{root}/a"): 0,
        native_path(f"{root}/b"): 2,
    }
    await store.delete_many(f"{root}/*")
    assert await store.count(f"{root}/*", favor="consistency") == 0


@erlang
async def test_nothing_happens_below_a_parent_that_is_missing(store: Khepri, root: str) -> None:
    """Khepri 0.16 ends its store on such a plain put: the parent is made, and the condition does not hold."""
    await store.put(f"{root}-beside", 0)  # so that only the parent is missing
    missing = native_path(f"{root}/missing")
    await store.put_many((*missing, AllOf("a", NodeExists())), 1)
    await store.put_many((*missing, "b", AllOf("a", Not(NodeExists(False)))), 1)
    await store.clear_many_payloads((*missing, "a"))
    await store.clear_many_payloads((*missing, AllOf("a", PayloadVersion("ge", 1))))
    await store.clear_many_payloads(f"{root}/*/a")
    assert await store.adv.clear_many_payloads((*missing, "a")) == {}
    assert await store.count(f"{root}/**", favor="consistency") == 0


@erlang
async def test_keep_while_reaches_further_up_than_the_parent(store: Khepri, root: str) -> None:
    await store.put(f"{root}/far", 1)
    for number, up in enumerate(("../../far", (Special.PARENT, Special.PARENT, "far"), "../.././far")):
        await store.put(f"{root}/near/{number}", 1, keep_while={up: NodeExists()})
    await store.delete(f"{root}/far")
    await store.fence()
    assert await store.get_many(f"{root}/near/*", favor="consistency") == {}


@erlang
async def test_many_nodes_at_the_top_are_out_of_reach(store: Khepri) -> None:
    """A pattern there would reach the bridge's own records."""
    with pytest.raises(ReservedPathError):
        await store.delete_many("/**")
    with pytest.raises(ReservedPathError):
        await store.put_many("/*", 1)


@erlang
async def test_a_node_may_be_kept_relative_to_itself(store: Khepri, root: str) -> None:
    await store.put(f"{root}/host", 1)
    await store.put(f"{root}/guest", 2, keep_while={"../host": NodeExists()})
    await store.put(f"{root}/parent", 3, keep_while={(Special.THIS,): ChildListLength("lt", 1)})
    with pytest.raises(KeepWhileConditionsNotMetError):
        await store.create(f"{root}/other", 2, keep_while={f"{root}/missing": NodeExists()})
    await store.put(f"{root}/parent/child", 4)
    await store.delete(f"{root}/host")
    await store.fence()
    assert [await store.exists(f"{root}/{name}") for name in ("guest", "parent", "other")] == [False] * 3


@erlang
async def test_a_write_may_demand_a_version(store: Khepri, root: str) -> None:
    base = native_path(root)
    await store.put(f"{root}/a", 1)
    await store.put([*base, AllOf("a", PayloadVersion("eq", 1))], 2)
    with pytest.raises(MismatchingNodeError):
        await store.put([*base, AllOf("a", PayloadVersion("eq", 1))], 3)
    await store.delete([*base, AllOf("a", PayloadVersion("eq", 1))])
    assert await store.get(f"{root}/a", favor="consistency") == 2
    await store.delete([*base, AllOf("a", PayloadVersion("eq", 2))])
    assert not await store.exists(f"{root}/a", favor="consistency")


@erlang
async def test_a_write_repeated_with_its_operation_id_is_applied_once(store: Khepri, root: str) -> None:
    operation = store.new_operation()
    for _ in range(2):
        await store.create(f"{root}/a", 1, operation_id=operation)
    store.forget_operation(operation)


@erlang
async def test_a_pipeline_writes_many_nodes(store: Khepri, root: str) -> None:
    writes: dict[int, Put | Delete] = {number: Put(f"{root}/{number}", number) for number in range(200)}
    outcomes = await store.pipeline({**writes, 200: Delete(f"{root}/7"), 201: Delete(f"{root}/missing")})
    assert all(outcome.applied for outcome in outcomes.values())
    assert list(outcomes) == list(range(202))
    assert await store.count(f"{root}/*", favor="consistency") == 199


@erlang
async def test_a_pipeline_with_one_write_that_is_refused_sends_none(store: Khepri, root: str) -> None:
    with pytest.raises(ReservedPathError) as caught:
        await store.pipeline({"a": Put(f"{root}/a", 1), "b": Put("/:bridge/:grants", 1)})
    assert caught.value.props["index"] == 1
    assert not await store.exists(f"{root}/a", favor="consistency")


@erlang
async def test_the_homeserver_refuses_poison_that_another_client_would_send(store: Khepri, root: str) -> None:
    watches_data: Any = (Atom("if_data_matches"), Atom("_"), [], Atom("undefined"))
    condition: Any = (Atom("if_any"), [(Atom("if_node_exists"), True), watches_data])
    kept = {Atom("keep_while"): {f"{root}/b".encode(): condition}}
    operation = (Atom("put"), f"{root}/a".encode(), 1, kept)
    answer = await store.caller.call(
        "kb_khepri",
        "transaction",
        [store.store, [operation], store.new_operation().term(), {}],
        timeout=5,
        idempotent=True,
    )
    assert (answer[0], answer[1][0]) == (Atom("error"), Atom("poison"))


@pytest.mark.parametrize("path", [7, None, Atom("a"), {"a"}])
async def test_what_is_no_path_is_refused_before_it_is_sent(path: Any) -> None:
    store, caller = client()
    for write in (
        store.put(path, 1),
        store.delete(path),
        store.create(path, 1),
        store.pipeline({1: Delete(path)}),
    ):
        with pytest.raises(ConfigurationError):
            await write
    assert caller.asked == []


@erlang
async def test_a_function_is_no_data(store: Khepri, root: str) -> None:
    """It would become a stored procedure, or code of one node inside everybody's data."""
    function = fun("erlang:halt/0")
    for data in (function, [1, {b"k": (function,)}]):
        with pytest.raises(InvalidDataError):
            await store.put(f"{root}/a", data)
        with pytest.raises(InvalidDataError):
            await store.create(f"{root}/a", data)
    assert not await store.exists(f"{root}/a", favor="consistency")

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, OutcomeUnknownError
from bridge.etf import Atom, ErlangMap, ExportFun
from bridge.khepri import (
    InvalidRequestError,
    Khepri,
    NodeProps,
    NoProcedureError,
    NotAllowedError,
    ProcedureRaisedError,
    Put,
    ReservedPathError,
    TransactionAbortedError,
    fun,
    native_path,
)
from tests.support.cluster import FUNCTIONS, erlang, fresh
from tests.support.scripted_caller import ScriptedCaller, ok, refusal

SELL = (Atom("stock"), Atom("sell"), 2)


def client(*answers: Any) -> tuple[Khepri, ScriptedCaller]:
    caller = ScriptedCaller(*answers)
    return Khepri(caller), caller


@pytest.mark.parametrize(
    ("text", "module", "arity"),
    [("stock:sell/2", "stock", 2), ("Elixir.Stock:sell/0", "Elixir.Stock", 0), ("a:b:sell/255", "a:b", 255)],
)
def test_a_function_is_written_as_in_erlang(text: str, module: str, arity: int) -> None:
    assert fun(text) == ExportFun(Atom(module), Atom("sell"), arity)


@pytest.mark.parametrize("text", ["sell/2", "stock:sell", "stock:sell/x", "stock:sell/256", ""])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write it as"):
        fun(text)


async def test_the_operators_list_is_told_as_functions() -> None:
    store, caller = client(ok([SELL]))
    assert await store.procedures.functions() == [fun("stock:sell/2")]
    assert (caller.asked[0].module, caller.asked[0].args) == ("kb_procedures", [])


@pytest.mark.parametrize(
    ("what", "term"),
    [(fun("stock:sell/2"), SELL[:2]), ("/:sell", (Atom("sproc"), b"/:sell"))],
)
async def test_a_transaction_runs_a_function_or_a_procedure(what: Any, term: Any) -> None:
    store, caller = client(ok({Atom("value"): [1]}))
    assert await store.procedures.transaction(what, [1, 2], mode="rw") == [1]
    (asked,) = caller.asked
    assert list(asked.args[1:4]) == [term, [1, 2], Atom("rw")]
    assert not asked.idempotent, "it has no operation id"


async def test_a_procedure_is_stored_and_run() -> None:
    store, caller = client(ok({}), ok({Atom("value"): 3}), refusal("timeout"))
    await store.procedures.put("/:sell", fun("stock:sell/2"))
    assert await store.procedures.run("/:sell", [1, 2], favor="consistency") == 3
    with pytest.raises(OutcomeUnknownError):
        await store.procedures.run("/:sell")
    assert list(caller.asked[0].args[1:3]) == [b"/:sell", SELL]
    assert list(caller.asked[1].args[1:3]) == [b"/:sell", [1, 2]]
    assert caller.asked[1].args[-1] == {Atom("favor"): Atom("consistency"), Atom("timeout"): 5000}
    assert not caller.asked[1].idempotent


async def test_nodes_are_combined_at_the_member() -> None:
    found = ErlangMap([([Atom("a")], 1)])
    store, caller = client(ok({Atom("value"): 3}), ok({}), ok(found), ok(found))
    two = fun("stock:sell/2")
    assert await store.procedures.fold("/**", fun("stock:sum/3"), 0) == 3
    await store.procedures.for_each("/**", two)
    assert await store.procedures.map("/**", two) == {(Atom("a"),): 1}
    assert await store.procedures.filter("/**", two) == {(Atom("a"),): 1}
    assert [asked.function for asked in caller.asked] == ["fold", "foreach", "map", "filter"]
    assert list(caller.asked[0].args[1:4]) == [b"/**", (Atom("stock"), Atom("sum"), 3), 0]


async def test_a_trigger_names_its_event_and_its_procedure() -> None:
    store, caller = client(ok({}))
    await store.procedures.register_trigger("sold", "/:a", "/:sell", on=["delete"], priority=3)
    event = {Atom("path"): b"/:a", Atom("on_actions"): [Atom("delete")], Atom("priority"): 3}
    assert list(caller.asked[0].args[1:4]) == [b"sold", event, b"/:sell"]


@pytest.mark.parametrize(
    "call",
    [
        lambda procedures: procedures.transaction(fun("stock:sell/2"), [1]),
        lambda procedures: procedures.transaction("/:a", mode="wo"),
        lambda procedures: procedures.put("/:a", "stock:sell/2"),
        lambda procedures: procedures.fold("/**", fun("stock:sell/2"), 0),
        lambda procedures: procedures.map("/**", print),
        lambda procedures: procedures.register_trigger("t", "/:a", "/:p", on=[]),
        lambda procedures: procedures.register_trigger("t", "/:a", "/:p", on=["read"]),
    ],
)
async def test_what_cannot_work_is_refused_before_it_is_sent(call: Any) -> None:
    store, caller = client()
    with pytest.raises(ConfigurationError):
        await call(store.procedures)
    assert caller.asked == []


async def test_what_the_operator_does_not_allow_is_refused() -> None:
    store, _ = client(refusal("not_allowed"))
    with pytest.raises(NotAllowedError):
        await store.procedures.transaction(fun("os:cmd/1"), [b"id"])


ADD, READ, CHANGE = (fun(f"kb_demo_functions:{name}") for name in ("add/2", "read/1", "change/2"))
SUM, DOUBLE, IS_EVEN = (fun(f"kb_demo_functions:{name}") for name in ("sum/3", "double/2", "is_even/2"))


@erlang
async def test_what_the_operator_allows_is_listed(store: Khepri) -> None:
    assert {str(function.function) for function in await store.procedures.functions()} == {
        function.split("/")[0] for function in FUNCTIONS
    }


@erlang
async def test_a_function_runs_as_a_transaction(store: Khepri, root: str) -> None:
    path = list(native_path(f"{root}/count"))
    assert await store.procedures.transaction(ADD, [path, 5]) == (Atom("counter"), 0)
    assert await store.procedures.transaction(ADD, [path, 2], mode="rw") == (Atom("counter"), 5)
    await store.fence()
    assert await store.procedures.transaction(READ, [path], mode="ro") == (Atom("found"), 7)
    with pytest.raises(TransactionAbortedError) as caught:
        await store.procedures.transaction(ADD, [path, -8])
    assert caught.value.props["reason"] == (Atom("below_zero"), -1)
    assert await store.get(f"{root}/count", favor="consistency") == 7


@erlang
async def test_a_procedure_is_stored_at_a_path(store: Khepri, root: str) -> None:
    path = f"{root}/add"
    await store.procedures.put(path, ADD)
    assert await store.is_sproc(path, favor="consistency")
    assert await store.get(path, favor="consistency") is None
    props = (await store.adv.get(path, favor="consistency"))[native_path(path)]
    assert props == NodeProps(sproc=2, payload_version=1)
    count = list(native_path(f"{root}/count"))
    assert await store.procedures.transaction(path, [count, 5]) == (Atom("counter"), 0)
    assert await store.get(f"{root}/count", favor="consistency") == 5
    await store.procedures.put(f"{root}/change", CHANGE)
    assert await store.procedures.run(f"{root}/change", [1, [2, 3]], favor="consistency") == 6


@erlang
async def test_a_procedure_that_is_not_there_or_raises_says_so(store: Khepri, root: str) -> None:
    await store.put(f"{root}/data", 1)
    await store.procedures.put(f"{root}/change", CHANGE)
    await store.fence()
    for path in (f"{root}/data", f"{root}/missing"):
        with pytest.raises(NoProcedureError):
            await store.procedures.run(path)
        with pytest.raises(NoProcedureError):
            await store.procedures.transaction(path)
    with pytest.raises(ProcedureRaisedError) as caught:
        await store.procedures.run(f"{root}/change", [1, Atom("no_list")])
    assert caught.value.props["class"] == Atom("error")
    assert await store.exists(f"{root}/data")


@erlang
async def test_nodes_are_combined_inside_the_store(store: Khepri, root: str) -> None:
    await store.transaction([Put(f"{root}/{number}", number) for number in (1, 2, 3, 4)])
    await store.fence()
    base, pattern = native_path(root), f"{root}/*"
    assert await store.procedures.fold(pattern, SUM, 10) == 20
    assert await store.procedures.map(pattern, DOUBLE) == {
        (*base, str(number).encode()): 2 * number for number in (1, 2, 3, 4)
    }
    assert await store.procedures.filter(pattern, IS_EVEN) == {(*base, b"2"): 2, (*base, b"4"): 4}
    await store.procedures.for_each(pattern, IS_EVEN)
    assert await store.procedures.fold(pattern, SUM, 10, props=["payload_version"]) == 10
    with pytest.raises(ProcedureRaisedError):
        await store.procedures.fold(pattern, SUM, b"no number")


@erlang
async def test_a_trigger_runs_a_procedure_of_one_argument(store: Khepri, root: str) -> None:
    name = fresh("trigger")
    await store.procedures.put(f"{root}/two", CHANGE)
    await store.procedures.put(f"{root}/one", READ)
    with pytest.raises(InvalidRequestError):
        await store.procedures.register_trigger(name, f"{root}/watched", f"{root}/two")
    with pytest.raises(NoProcedureError):
        await store.procedures.register_trigger(name, f"{root}/watched", f"{root}/missing")
    with pytest.raises(InvalidRequestError):
        await store.procedures.register_trigger(name, f"{root}/*", f"{root}/one")
    await store.procedures.register_trigger(name, f"{root}/watched", f"{root}/one", on=["create"], priority=3)
    await store.put(f"{root}/watched", 1)


@erlang
async def test_nothing_else_runs_inside_the_store(store: Khepri, root: str) -> None:
    with pytest.raises(NotAllowedError):
        await store.procedures.transaction(fun("os:cmd/1"), [b"id"])
    with pytest.raises(NotAllowedError):
        await store.procedures.put(f"{root}/a", fun("os:cmd/1"))
    with pytest.raises(NotAllowedError):
        await store.procedures.map(f"{root}/*", fun("erlang:max/2"))
    with pytest.raises(ReservedPathError):
        await store.procedures.put("/:bridge/:mine", ADD)

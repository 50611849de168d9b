from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError, OutcomeUnknownError
from bridge.etf import Atom, ErlangMap, ExportFun
from bridge.khepri import Khepri, NotAllowedError, fun
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

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.etf import Atom
from bridge.khepri import AllOf, Delete, Khepri, NodeExists, OperationId, Put, StoreUnavailableError
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


async def test_a_fence_may_be_put_again() -> None:
    store, caller = client(ok({}))
    await store.fence(timeout=2)
    assert caller.asked[0].args == [Atom("homeserver"), {Atom("timeout"): 2000}]
    assert caller.asked[0].idempotent

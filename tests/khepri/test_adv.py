from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom, ErlangMap
from bridge.khepri import Khepri, NodeExists, NodeProps
from tests.support.scripted_caller import ScriptedCaller, ok

TOUCHED = ErlangMap([([Atom("a")], {Atom("data"): 1, Atom("payload_version"): 2})])
FOUND = {(Atom("a"),): NodeProps(data=1, payload_version=2)}


async def test_a_read_asks_for_payload_and_version_unless_told_otherwise() -> None:
    caller = ScriptedCaller(ok(TOUCHED), ok(TOUCHED))
    store = Khepri(caller)
    assert await store.adv.get("/:a") == FOUND
    assert await store.adv.get_many("/*", props=["child_names"], include_root_props=True) == FOUND
    one, many = (asked.args[-1] for asked in caller.asked)
    assert one[Atom("props_to_return")] == [Atom("payload"), Atom("payload_version")]
    assert one[Atom("expect_specific_node")] is True
    assert many[Atom("props_to_return")] == [Atom("child_names")]
    assert many[Atom("include_root_props")] is True
    assert {asked.function for asked in caller.asked} == {"get_many"}


@pytest.mark.parametrize(
    ("write", "tag"),
    [
        (lambda adv: adv.put("/:a", 1, keep_while={"/:b": NodeExists()}), "put"),
        (lambda adv: adv.put_many("/*", 1), "put_many"),
        (lambda adv: adv.create("/:a", 1), "create"),
        (lambda adv: adv.update("/:a", 1), "update"),
        (lambda adv: adv.compare_and_swap("/:a", 1, 2), "compare_and_swap"),
        (lambda adv: adv.delete("/:a"), "delete"),
        (lambda adv: adv.delete_many("/*"), "delete_many"),
        (lambda adv: adv.clear_payload("/:a"), "clear_payload"),
        (lambda adv: adv.clear_many_payloads("/*"), "clear_many_payloads"),
    ],
)
async def test_a_write_tells_what_it_touched(write: Any, tag: str) -> None:
    caller = ScriptedCaller(ok([TOUCHED]))
    assert await write(Khepri(caller).adv) == FOUND
    (((adv, operation),),) = [asked.args[1] for asked in caller.asked]
    assert (adv, operation[0]) == (Atom("adv"), Atom(tag))

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri import Adv, Count, Get, GetMany, Khepri, NodeProps, Operation, Put
from tests.support.scripted_caller import ScriptedCaller, ok


async def test_each_operation_has_its_own_result() -> None:
    answer = [
        Atom("ok"),
        {Atom("data"): 1},
        ErlangMap([([Atom("a")], {})]),
        1,
        ErlangMap([([Atom("a")], {Atom("payload_version"): 2})]),
    ]
    store = Khepri(ScriptedCaller(ok(answer)))
    operations: list[Operation] = [Put("/:a", 1), Get("/:a"), GetMany("/*"), Count("/*"), Adv(Put("/:a", 2))]
    assert await store.transaction(operations) == [
        None,
        1,
        {(Atom("a"),): None},
        1,
        {(Atom("a"),): NodeProps(payload_version=2)},
    ]


@pytest.mark.parametrize("answer", [[], [Atom("ok")] * 3, Atom("ok"), [Atom("ok"), Atom("ok")]])
async def test_results_that_do_not_fit_break_the_protocol(answer: Any) -> None:
    with pytest.raises(ProtocolError):
        await Khepri(ScriptedCaller(ok(answer))).transaction([Put("/:a", 1), Get("/:a")])

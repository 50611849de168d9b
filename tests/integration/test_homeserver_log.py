"""A homeserver's log tells, of each request of a transfer, the trace that every process has."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.khepri import Khepri
from bridge.registry import NotHolderError
from tests.support.authority import STEP, Server
from tests.support.cluster import hidden_node, local_cluster

pytestmark = pytest.mark.erlang

_LOUD = {"KB_LOG_FORMAT": "json", "KB_LOG_LEVEL": "info"}


async def test_a_transfer_is_lines_with_its_trace_alone_in_a_group_or_refused() -> None:
    with local_cluster(nodes=1, environment=_LOUD) as cluster:
        async with (
            hidden_node(cluster) as node,
            Khepri.connect(node, cluster.members, store=cluster.store) as store,
        ):
            giver, taker = Server(store, "giver"), Server(store, "taker")
            await giver.open()
            await taker.open()
            alone = await giver.spawn("alone")
            await giver.push(alone, taker)
            with pytest.raises(NotHolderError):
                await giver.push(alone, taker)
            others = await asyncio.gather(*(giver.spawn(f"e{n}") for n in range(3)))
            await asyncio.gather(*(giver.push(record, taker) for record in others))
        lines = [
            json.loads(line)
            for line in cluster.log(cluster.members[0]).read_text().splitlines()
            if line.startswith("{")
        ]
    told = [(line["entity"], line["message"]) for line in lines if line.get("trace") == STEP.trace.hex()]
    assert told[:2] == [("alone", "push: decided"), ("alone", "push: not_holder")]
    assert sorted(told[2:]) == [(f"e{n}", "push: decided") for n in range(3)]

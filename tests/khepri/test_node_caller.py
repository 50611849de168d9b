from __future__ import annotations

import pytest

from bridge.cluster.local import LocalCluster
from bridge.errors import ClosedError
from bridge.khepri import Caller, Khepri, NodeCaller
from bridge.node import Gateway, HiddenNode

pytestmark = [pytest.mark.erlang, pytest.mark.slow]


async def test_calls_casts_and_messages_go_through_the_node(node: HiddenNode, cluster: LocalCluster) -> None:
    async with Gateway(node, cluster.members) as gateway:
        caller: Caller = NodeCaller(gateway)
        heard: list[str | None] = []
        caller.on_change(heard.append)
        assert await caller.call("erlang", "abs", [-3], timeout=5, idempotent=True) == 3
        assert caller.name == node.name
        assert caller.current is not None
        inbox = caller.mailbox()
        await caller.cast(caller.current, "erlang", "send", [inbox.pid, b"hello"])
        assert await inbox.receive(timeout=5) == b"hello"
        await inbox.close()
        before = caller.current
        caller.suspect(before)
        assert await gateway.connect(timeout=5) != before
        caller.off_change(heard.append)
        assert heard[:2] == [before, None]


async def test_a_client_with_a_gateway_of_its_own_closes_it_and_leaves_the_node(
    node: HiddenNode, cluster: LocalCluster
) -> None:
    async with Khepri.connect(node, cluster.members, store=cluster.store) as store:
        pass
    with pytest.raises(ClosedError):
        await store.health()
    assert await node.call(cluster.members[0], "erlang", "abs", [-1]) == 1

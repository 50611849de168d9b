from __future__ import annotations

import asyncio

from bridge.cluster.local import LocalCluster
from bridge.khepri import Khepri, KhepriConfig
from bridge.node import Gateway, GatewayConfig
from tests.support.cluster import erlang, hidden_node
from tests.support.rest import Rest, kind


@erlang
async def test_a_service_whose_cluster_answers_lives_and_is_ready(rest: Rest) -> None:
    client = await rest.client()
    assert (await client.get("/health")).json()["status"] == "alive"
    assert (await client.get("/ready")).json() == {"status": "ready", "instance": "local"}


@erlang
async def test_without_a_majority_it_lives_and_is_not_ready(own_cluster: LocalCluster) -> None:
    async with (
        hidden_node(own_cluster) as node,
        Gateway(node, own_cluster.members, GatewayConfig(connect_timeout=2.0)) as gateway,
    ):
        await gateway.connect(timeout=10.0)
        store = Khepri.connect(node, gateway, store=own_cluster.store, config=KhepriConfig())
        async with store as opened, await Rest.over(opened) as rest:
            client = await rest.client()
            while not (await client.get("/ready")).is_success:
                await asyncio.sleep(0.1)
            for name in own_cluster.members[1:]:
                own_cluster.kill_node(name)
            # What was found out within this second is still told.
            while (refused := await client.get("/ready")).is_success:
                await asyncio.sleep(0.1)
            assert (refused.status_code, kind(refused)) == (503, "unavailable")
            assert refused.headers["Retry-After"] == "1"
            assert kind(await client.get("/health")) == "200"
            own_cluster.start_node(own_cluster.members[1])
            while not (await client.get("/ready")).is_success:
                await asyncio.sleep(0.1)

from __future__ import annotations

import asyncio

from bridge.cluster.local import LocalCluster
from bridge.homeserver.rest.settings import RestSettings
from bridge.jose.credentials import Role
from bridge.jose.encoding import base64url_encode
from bridge.khepri import Khepri
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh, hidden_node
from tests.support.rest import Rest, kind


@erlang
async def test_a_renewal_is_acknowledged_and_tells_recalls_until_they_are_obeyed(
    rest: Rest, server: Server
) -> None:
    machine = await rest.client(server.name, Role.SERVER, key=server.key)
    path = f"/v1/sessions/{base64url_encode(server.session)}/renewals"
    first = (await machine.post(path, json={"number": 1, "tick": 1, "load": 1})).json()
    assert (first["number"], first["recalls"]) == (1, [])
    record = await server.spawn(fresh("thing"))
    taker = Server(server.store, fresh("sim"))
    await taker.open()
    await taker.pull(record)
    told: list[dict[str, str]] = []
    number = 1
    async with asyncio.timeout(20):
        while not told:
            number += 1
            told = (await machine.post(path, json={"number": number, "tick": number, "load": 1})).json()[
                "recalls"
            ]
        assert told == [{"entity": record.entity, "epoch": str(record.epoch)}]
        while told:
            number += 1
            body = {"number": number, "tick": number, "load": 0, "obeyed": told}
            told = (await machine.post(path, json=body)).json()["recalls"]
    await taker.home.close_session()


@erlang
async def test_without_a_majority_no_lease_is_renewed_and_nothing_is_written(
    own_cluster: LocalCluster,
) -> None:
    """R0-36: what is asked ends in its time, as 503, and says whether it may have been done."""
    async with (
        hidden_node(own_cluster) as node,
        Khepri.connect(node, own_cluster.members[0], store=own_cluster.store) as store,
        await Rest.over(store) as service,
    ):
        server = Server(store, fresh("sim"))
        await server.open()
        machine = await service.client(server.name, Role.SERVER, key=server.key)
        path = f"/v1/sessions/{base64url_encode(server.session)}/renewals"
        assert kind(await machine.post(path, json={"number": 1, "tick": 1, "load": 0})) == "200"
        for member in own_cluster.members[1:]:
            own_cluster.kill_node(member)
        assert kind(await machine.post(path, json={"number": 2, "tick": 2, "load": 0})) == "not_acknowledged"
        settings = RestSettings(store_timeout=1.0)
        async with await Rest.over(store, settings) as impatient:
            operator = await impatient.client("ops", Role.OPERATOR)
            for response in (
                await operator.put(f"/v1/scenes/{fresh('scene')}", json={"servers": []}),
                await operator.get("/v1/scenes", params={"fresh": True}),
                await operator.post(f"/v1/entities/{fresh('thing')}/revoke"),
            ):
                assert (kind(response), response.status_code) in (
                    ("unavailable", 503),
                    ("outcome_unknown", 503),
                )
                assert response.headers["Retry-After"] == "1"
            # What is here can still be read.
            assert (await operator.get("/v1/scenes")).json() == {"scenes": [], "next": None}

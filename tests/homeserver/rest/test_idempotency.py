from __future__ import annotations

from bridge.authority import Rule
from bridge.homeserver.rest.authentication import Caller
from bridge.homeserver.rest.idempotency import operations_of
from bridge.jose.credentials import Role
from bridge.khepri import Khepri
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind

ALICE = Caller(subject="alice", role=Role.PLAYER, thumbprint="", expires_at=0)
MACHINE = Caller(subject="alice", role=Role.SERVER, thumbprint="", expires_at=0)


def test_a_repeat_has_the_same_operation_ids_and_anything_else_others() -> None:
    first = operations_of(ALICE, "PUT", "/v1/x", b"{}", "key")
    again = operations_of(ALICE, "PUT", "/v1/x", b"{}", "key")
    ids = [first(), first()]
    assert ids == [again(), again()]
    assert [operation.sequence for operation in ids] == [1, 2]
    others = [
        operations_of(ALICE, "PUT", "/v1/x", b"{}", "another"),
        operations_of(ALICE, "PUT", "/v1/x", b"[]", "key"),
        operations_of(ALICE, "PUT", "/v1/y", b"{}", "key"),
        operations_of(ALICE, "POST", "/v1/x", b"{}", "key"),
        operations_of(MACHINE, "PUT", "/v1/x", b"{}", "key"),
    ]
    clients = {operations().client for operations in others} | {ids[0].client}
    assert len(clients) == 6


@erlang
async def test_a_write_that_is_repeated_at_another_process_is_applied_once(
    rest: Rest, store: Khepri, server: Server
) -> None:
    """R3-10: two applications over one store know nothing of each other."""
    name, thing = fresh("Player"), fresh("thing")
    async with await Rest.over(store) as second:
        first, other = await rest.client(name), await second.client(name)
        place = f"/v1/players/{name}/presence"
        await first.put(place, json={"server": server.name})
        await server.home.create_entity(entity=thing, owner=name, master=fresh("Master"), rule=Rule.DENY)
        key = {"Idempotency-Key": "leave"}
        assert (await first.delete(place, headers=key)).json()["passed"] == [thing]
        assert (await other.delete(place, headers=key)).json()["passed"] == [thing]
        assert (await other.delete(place)).json()["passed"] == []


@erlang
async def test_a_key_has_a_bound(rest: Rest) -> None:
    player = await rest.client("p")
    response = await player.delete("/v1/players/p/presence", headers={"Idempotency-Key": "k" * 256})
    assert kind(response) == "invalid_request"

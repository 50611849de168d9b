from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.authority import check, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.idempotency import KeyedOperations, client_of, digest_of
from bridge.jose.credentials import Role
from bridge.khepri import Khepri
from bridge.registry import Rule
from tests.support.authority import Server
from tests.support.cluster import erlang, fresh, hidden_node
from tests.support.rest import Rest, bearer, kind
from tests.support.service import believe_test_issuer, service_process

ALICE = Caller(subject="alice", role=Role.PLAYER, thumbprint="", expires_at=0)
MACHINE = Caller(subject="alice", role=Role.SERVER, thumbprint="", expires_at=0)


def test_a_client_is_of_one_caller_and_one_key() -> None:
    assert client_of(ALICE, "key") == client_of(ALICE, "key")
    clients = {client_of(ALICE, "key"), client_of(ALICE, "another"), client_of(MACHINE, "key")}
    assert len(clients) == 3
    assert all(len(client) <= 255 for client in clients)


def test_a_digest_is_of_method_path_and_body() -> None:
    requests = [("PUT", "/v1/x", b"{}"), ("PUT", "/v1/x", b"[]"), ("PUT", "/v1/y", b"{}")]
    requests += [("POST", "/v1/x", b"{}"), ("PUT", "/v1/x{", b"}")]
    digests = {digest_of(*request) for request in requests}
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {43}


def test_a_repeat_has_the_same_operation_ids() -> None:
    digest = digest_of("PUT", "/x", b"1")
    first, again = (KeyedOperations(client=b"rest:1", digest=digest) for _ in range(2))
    ids = [first(), first()]
    assert ids == [again(), again()]
    assert [operation.sequence for operation in ids] == [2, 3], "1 is of 0.4"
    assert {operation.purpose for operation in ids} == {digest}


@erlang
async def test_what_a_key_is_for_is_stored_with_the_write(
    rest: Rest, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = fresh("thing")
    await server.home.create_entity(entity=thing, owner="a", master="a", rule=Rule.ASK)
    player = await rest.client("a", headers={"Idempotency-Key": fresh("key")})
    asked: list[str] = []
    request = Khepri.request

    async def noted(self: Khepri, function: str, *arguments: Any, **options: Any) -> Any:
        asked.append(function)
        return await request(self, function, *arguments, **options)

    monkeypatch.setattr(Khepri, "request", noted)
    path = f"/v1/entities/{thing}/rule"
    assert [(await player.put(path, json={"rule": "deny"})).json()["version"] for _ in range(2)] == [2, 2]
    assert kind(await player.put(path, json={"rule": "allow"})) == "key_reused"
    assert asked == ["set_rule"] * 3
    assert (await server.home.entity(thing)).rule is Rule.DENY


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
        changed = await other.put(place, json={"server": server.name}, headers=key)
        assert (kind(changed), changed.status_code) == ("key_reused", 409)


@erlang
async def test_a_key_is_free_until_something_is_written_with_it(rest: Rest, server: Server) -> None:
    name = fresh("Player")
    player = await rest.client(name, headers={"Idempotency-Key": fresh("key")})
    place = f"/v1/players/{name}/presence"
    assert kind(await player.put(place, json={})) == "invalid_request"
    assert kind(await player.put(place, json={"server": fresh("nowhere")})) == "no_server"
    assert kind(await player.put(place, json={"server": server.name})) == "200"


@erlang
async def test_a_key_has_a_bound(rest: Rest) -> None:
    player = await rest.client("p")
    response = await player.delete("/v1/players/p/presence", headers={"Idempotency-Key": "k" * 256})
    assert kind(response) == "invalid_request"


@erlang
@pytest.mark.slow
async def test_of_two_processes_each_knows_what_a_key_was_used_for_at_the_other(
    own_cluster: LocalCluster, tmp_path: Path
) -> None:
    """R3-10: of many who use one key at once, at both, one request is done, and its repeats hear of it."""
    record = ("--record-dir", str(tmp_path / "record"))
    async with (
        hidden_node(own_cluster) as node,
        Khepri.connect(node, own_cluster.members, store=own_cluster.store) as store,
        service_process(own_cluster, tmp_path / "first", *record) as (first, _),
        service_process(own_cluster, tmp_path / "second", *record) as (second, killed),
        httpx.AsyncClient(timeout=30) as http,
    ):
        await believe_test_issuer(store)
        instance = (await store.health()).instance
        server, thing, key = Server(store, fresh("sim")), fresh("thing"), fresh("key")
        await server.open()
        await server.home.create_entity(entity=thing, owner="alice", master="alice", rule=Rule.DENY)
        headers = {"Authorization": f"Bearer {bearer(instance, 'alice')}", "Idempotency-Key": key}

        async def give(url: str, to: str) -> httpx.Response:
            path = f"{url}/v1/entities/{thing}/transfer"
            return await http.post(path, json={"to": to}, headers=headers)

        for url in (first, second):
            while (await http.get(f"{url}/v1/servers", headers=headers)).status_code == 401:
                # Its feed has not told it of the issuer yet.
                await asyncio.sleep(0.05)
        names = ["bob", "cid"] * 4
        answers = await asyncio.gather(
            *(give(url, name) for name, url in zip(names, [first, first, second, second] * 2, strict=True))
        )
        assert Counter(map(kind_of, answers)) == {"200": 4, "key_reused": 4}
        done = next(answer.json() for answer in answers if answer.is_success)
        assert all(answer.json() == done for answer in answers if answer.is_success)
        assert (await server.home.entity(thing)).owner == done["owner"]
        assert done["version"] == 2, "made, and given away once"
        killed.kill()
        await killed.wait()
        assert (await give(first, done["owner"])).json() == done
        await server.home.close_session()
    files = list((tmp_path / "record").glob("rest-*.jsonl"))
    told = [decode_entries(file.read_bytes().splitlines()) for file in files]
    assert len(told) == 2
    assert all(told), "each process has recorded what it was asked"
    whole = check([entry for entries in told for entry in entries])
    assert (whole.operations, whole.violations) == (2, [])


def kind_of(answer: httpx.Response) -> str:
    return "200" if answer.is_success else str(answer.json()["type"]).rpartition(":")[2]

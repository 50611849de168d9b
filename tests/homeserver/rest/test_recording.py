"""What is asked by REST is in the records that `history check` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.authority import Entry, RecordFile, check, decode_entries
from bridge.khepri import Khepri
from bridge.registry import Homeserver, Journal, Rule
from bridge.registry.journal import recording
from tests.support.authority import STEP, Server
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, kind


def records(directory: Path) -> list[Entry]:
    return [
        entry
        for path in directory.glob("*.jsonl")
        for entry in decode_entries(path.read_bytes().splitlines())
    ]


@pytest.fixture
def of_server(tmp_path: Path, server: Server) -> Iterator[Homeserver]:
    """The server's requests, recorded too."""
    with RecordFile(tmp_path / "server.jsonl") as file:
        yield Homeserver(server.store, server.session, journal=Journal("server", file.write))


@erlang
async def test_a_history_with_requests_by_rest_is_whole_with_their_records_alone(
    store: Khepri, server: Server, of_server: Homeserver, tmp_path: Path
) -> None:
    """Of a process that repeats what another one did, too: both are one request."""
    ann, bob, ball = fresh("Ann"), fresh("Bob"), fresh("ball")
    rest = tmp_path / "rest"
    with recording(rest) as first, recording(rest) as second:
        async with (
            await Rest.over(store, journal=first) as here,
            await Rest.over(store, journal=second) as there,
        ):
            owner, again, other = await here.client(ann), await there.client(ann), await there.client(bob)
            made = await of_server.create_entity(entity=ball, owner=ann, master=ann, rule=Rule.DENY)
            assert kind(await other.post(f"/v1/entities/{ball}/transfer", json={"to": bob})) == "not_owner"
            key = {"Idempotency-Key": "give"}
            for client in (owner, again):
                path, body = f"/v1/entities/{ball}/transfer", {"to": bob}
                assert kind(await client.post(path, json=body, headers=key)) == "200"
            await other.put(f"/v1/players/{bob}/presence", json={"server": server.name})
            left = await other.delete(f"/v1/players/{bob}/presence")
            assert left.json()["passed"] == [ball]
            await owner.put(f"/v1/entities/{ball}/rule", json={"rule": "allow"})
            await of_server.give(entity=ball, epoch=made.epoch, owner="Cid", step=STEP)
    by_server = decode_entries((tmp_path / "server.jsonl").read_bytes().splitlines())
    whole = check([*by_server, *records(rest)])
    assert not whole.violations
    assert whole.operations == 5, "made, refused, given once, ruled, given"
    assert check(by_server).not_linearizable, "or nothing explains the versions between"

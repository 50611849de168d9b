from __future__ import annotations

from bridge.homeserver.rest.heads import ENDLESS
from tests.support.cluster import erlang
from tests.support.rest import Rest, kind


@erlang
async def test_a_head_is_a_get_without_its_body(rest: Rest) -> None:
    client = await rest.client("reader")
    for path, status in (("/health", 200), ("/v1/scenes", 200), ("/v1/entities/nothing-of-this", 404)):
        told, full = await client.head(path), await client.get(path)
        assert (told.status_code, full.status_code, told.content) == (status, status, b"")
        assert told.headers["Content-Length"] == str(len(full.content))


@erlang
async def test_what_takes_no_get_takes_no_head(rest: Rest) -> None:
    client = await rest.client("reader")
    assert (await client.head("/v1/tokens")).headers["Allow"] == "POST"
    assert (await client.head(ENDLESS)).headers["Allow"] == "GET"
    refused = await client.patch("/v1/entities/ball")
    assert (kind(refused), refused.headers["Allow"]) == ("method_not_allowed", "DELETE, GET, HEAD")

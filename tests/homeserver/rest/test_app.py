from __future__ import annotations

from tests.support.cluster import erlang
from tests.support.rest import Rest


@erlang
async def test_the_description_is_open_to_all(rest: Rest) -> None:
    document = (await (await rest.client()).get("/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/players/{player}/presence" in document["paths"]

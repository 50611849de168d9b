from __future__ import annotations

import time

from bridge.jose import Jwk
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, bearer, kind, problem


@erlang
async def test_who_has_no_token_of_this_instance_that_holds_now_is_nobody(rest: Rest) -> None:
    anyone = await rest.client()
    player = fresh("Player")
    path = f"/v1/players/{player}/presence"
    here = rest.context.instance
    refused = {
        "none": "",
        "no bearer": "Basic YTpi",
        "no token": "Bearer x",
        "long": f"Bearer {'x' * 5000}",
        "another instance": f"Bearer {bearer('elsewhere', player)}",
        "another issuer": f"Bearer {bearer(here, player, issuer=Jwk.generate())}",
        "expired": f"Bearer {bearer(here, player, issued_at=time.time() - 301)}",
    }
    for why, header in refused.items():
        response = await anyone.get(path, headers={"Authorization": header} if header else {})
        assert kind(response) == "unauthenticated", why
        assert response.headers["WWW-Authenticate"] == "Bearer"
    holds = await anyone.get(path, headers={"Authorization": f"Bearer {bearer(here, player)}"})
    assert (kind(holds), problem(holds)["status"]) == ("no_player", 404)

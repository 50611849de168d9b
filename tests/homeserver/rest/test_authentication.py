from __future__ import annotations

import time

import pytest

from bridge.authority import OPERATOR
from bridge.homeserver.rest.authentication import Caller
from bridge.homeserver.rest.problems import ProblemError
from bridge.jose import Jwk
from bridge.jose.credentials import Role
from tests.support.cluster import erlang, fresh
from tests.support.rest import Rest, bearer, kind, problem


def _caller(role: Role, subject: str = "Alice") -> Caller:
    return Caller(subject=subject, role=role, thumbprint="", expires_at=0)


def test_an_operator_acts_as_one_and_a_player_in_its_own_name() -> None:
    assert _caller(Role.OPERATOR).party is OPERATOR
    assert _caller(Role.PLAYER).party == "Alice"


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        (_caller(Role.PLAYER), True),
        (_caller(Role.PLAYER, "Bob"), False),
        (_caller(Role.OPERATOR, "Bob"), True),
        # A server of the same name is somebody else.
        (_caller(Role.SERVER), False),
    ],
)
def test_only_players_themselves_and_operators_name_a_player(caller: Caller, may: bool) -> None:
    if may:
        caller.may_name("Alice")
        return
    with pytest.raises(ProblemError) as caught:
        caller.may_name("Alice")
    assert caught.value.kind == "other_name"


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

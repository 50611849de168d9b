from __future__ import annotations

import pytest

from bridge.homeserver.rest.callers import Caller
from bridge.homeserver.rest.problems import ProblemError
from bridge.jose.credentials import Role
from bridge.registry import OPERATOR


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

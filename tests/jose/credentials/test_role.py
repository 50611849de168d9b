from __future__ import annotations

from bridge.jose.credentials import Role


def test_the_roles_are_those_of_the_table_of_rights() -> None:
    """R0-42."""
    assert {role.value for role in Role} == {"player", "server", "operator"}

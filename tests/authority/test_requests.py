"""How authority requests are put into terms."""

from __future__ import annotations

import pytest

from bridge.authority import Step
from bridge.authority.requests import MAX_NAME_BYTES, name_bytes, step_members
from bridge.errors import ConfigurationError


def test_a_name_is_utf_8() -> None:
    assert name_bytes("Grün") == "Grün".encode()


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME_BYTES + 1), "ü" * 128])
def test_a_name_has_1_to_255_bytes(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 255 bytes"):
        name_bytes(name)


def test_a_step_is_two_members_or_none() -> None:
    assert step_members(Step(trace=b"t" * 16, hop=3)) == {"trace": b"t" * 16, "hop": 3}
    assert step_members(None) == {}

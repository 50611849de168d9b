from __future__ import annotations

import pytest

from bridge.homeserver.rest.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_to_do(kind: str) -> None:
    assert KINDS[kind].advice.endswith(".")
    assert 400 <= KINDS[kind].status < 600

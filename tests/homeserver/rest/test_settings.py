from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.homeserver.rest.settings import RestSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"store_timeout": 0.0},
        {"store_timeout": 61.0},
        {"caller_rate": 0.0},
        {"body_seconds": 0.0},
        {"max_body_bytes": 0},
    ],
)
def test_limits_that_would_let_nothing_through_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RestSettings(**wrong)

"""How a connection may be told to behave."""

from __future__ import annotations

import pytest

from bridge.dist import DistConfig
from bridge.errors import ConfigurationError


@pytest.mark.parametrize(
    "options",
    [
        {"net_ticktime": 0},
        {"max_tick_interval": 0},
        {"handshake_timeout": 0},
        {"handshake_length_bytes": 3},
        {"max_packet_bytes": 0},
        {"max_sequences": 0},
        {"max_held_bytes": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        DistConfig(**options)  # type: ignore[arg-type]  # numbers, whatever their names

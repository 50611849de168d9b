from __future__ import annotations

import math
from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.udp.config import UdpConfig


@pytest.mark.parametrize(
    "change",
    [
        {"port": 65536},
        {"handshake_timeout": 0},
        {"handshake_lifetime": 60.1},
        {"idle_timeout": 3.9},
        {"max_ack_delay": 0.26},
        {"acknowledge_every": 513},
        {"reliable_window_bytes": 131_079},
        {"reliable_window_bytes": 1 << 31},
        {"reliable_buffer_bytes": 131_079},
        {"max_peers": 0},
        {"idle_timeout": math.nan},
    ],
)
def test_values_that_cannot_work_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        UdpConfig(**change)


@pytest.mark.parametrize(
    "change",
    [{"port": 65535}, {"handshake_lifetime": 60}, {"idle_timeout": 4.0}, {"reliable_window_bytes": 131_080}],
)
def test_values_at_their_limits_are_taken(change: dict[str, Any]) -> None:
    assert UdpConfig(**change)

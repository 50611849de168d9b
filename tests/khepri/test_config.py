import pytest

from bridge.errors import ConfigurationError
from bridge.khepri import KhepriConfig


@pytest.mark.parametrize(
    "values",
    [
        {"timeout": 0.0},
        {"timeout": 61.0},
        {"timeout": float("nan")},
        {"attempt_timeout": 0.0},
        {"retry_delay": -1.0},
        {"retry_delay": float("nan")},
    ],
)
def test_a_deadline_is_never_endless(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="seconds"):
        KhepriConfig(**values)

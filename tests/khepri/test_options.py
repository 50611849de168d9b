from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri.options import milliseconds, read_options


def test_options_are_a_map_of_atoms_with_a_bounded_time() -> None:
    options = {
        "favor": "consistency",
        "expect_specific_node": True,
        "include_root_props": False,
        "timeout": 9.0,
    }
    assert read_options(options, 1.5) == {
        Atom("favor"): Atom("consistency"),
        Atom("expect_specific_node"): True,
        Atom("include_root_props"): False,
        Atom("timeout"): 1500,
    }


def test_properties_are_named() -> None:
    assert read_options({}, 1.0, ["payload", "child_names"])[Atom("props_to_return")] == [
        Atom("payload"),
        Atom("child_names"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"favor": "compromise"},
        {"favour": "consistency"},
        {"expect_specific_node": 1},
        {"include_root_props": None},
    ],
)
def test_what_a_read_cannot_be_asked_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no option"):
        read_options(options, 1.0)


@pytest.mark.parametrize("prop", ["data", "raw_payload"])
def test_what_a_node_does_not_tell_is_refused(prop: Any) -> None:
    with pytest.raises(ConfigurationError, match="no properties"):
        read_options({}, 1.0, [prop])


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0001, 1), (0.001, 1), (1, 1000), (60, 60_000), (90, 60_000)]
)
def test_a_time_is_one_to_sixty_thousand_milliseconds(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="above zero"):
        milliseconds(seconds)

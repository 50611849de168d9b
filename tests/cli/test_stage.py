"""The stage of a replay: what it takes from options before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli.stage import Stage, simulation_commands
from bridge.errors import ConfigurationError

STAGE = Stage(
    directory=Path("place"), members=("hs1@127.0.0.1",), cookie="secret", epmd_port=1, store="homeserver"
)


def test_two_servers_are_started_here_where_none_are_named() -> None:
    commands = simulation_commands(STAGE, (), linger_ms=200)
    assert list(commands) == ["sim1", "sim2"]
    assert commands["sim1"][3:] == [
        *("sim", "--dir", "place", "--commands", "--name", "sim1", "--linger-ms", "200"),
    ]


def test_no_command_line_holds_the_cookie() -> None:
    assert not [
        word
        for words in simulation_commands(STAGE, (), linger_ms=0).values()
        for word in words
        if "secret" in word
    ]


def test_servers_elsewhere_are_named_with_their_commands() -> None:
    sims = ("a=docker exec -i a sim --commands", "b=ssh 'host b' sim")
    assert simulation_commands(STAGE, sims, linger_ms=0) == {
        "a": ["docker", "exec", "-i", "a", "sim", "--commands"],
        "b": ["ssh", "host b", "sim"],
    }


@pytest.mark.parametrize("sims", [("a",), ("a=",), ("a=x",), ("a=x", "a=y"), ("a='x", "b=y")])
def test_too_few_or_malformed_servers_are_said(sims: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="--sim"):
        simulation_commands(STAGE, sims, linger_ms=0)

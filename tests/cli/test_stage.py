"""The stage of a replay: what it takes from options before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli.stage import Stage, refuse_others, simulation_commands
from bridge.errors import ConfigurationError
from bridge.registry import EntityRecord, Rule
from bridge.udp import NetworkConditions

STAGE = Stage(
    directory=Path("place"), members=("hs1@127.0.0.1",), cookie="secret", epmd_port=1, store="homeserver"
)


def test_two_servers_are_started_here_where_none_are_named() -> None:
    commands = simulation_commands(STAGE, (), linger_ms=200, network=None)
    assert list(commands) == ["sim1", "sim2"]
    assert commands["sim1"][3:] == [
        *("sim", "--dir", "place", "--commands", "--keep-history", "--linger-ms", "200", "--name", "sim1"),
    ]


def test_no_command_line_holds_the_cookie() -> None:
    assert not [
        word
        for words in simulation_commands(STAGE, (), linger_ms=0, network=None).values()
        for word in words
        if "secret" in word
    ]


def test_servers_elsewhere_are_named_with_their_commands() -> None:
    sims = ("a=docker exec -i a sim --commands", "b=ssh 'host b' sim")
    assert simulation_commands(STAGE, sims, linger_ms=0, network=None) == {
        "a": ["docker", "exec", "-i", "a", "sim", "--commands"],
        "b": ["ssh", "host b", "sim"],
    }


def test_both_servers_started_here_send_through_the_bad_network() -> None:
    network = NetworkConditions(loss=0.05, burst=4, seed=7)
    for words in simulation_commands(STAGE, (), linger_ms=0, network=network).values():
        assert NetworkConditions.parse(words[words.index("--network") + 1]) == network


def test_a_network_for_servers_elsewhere_is_refused_with_where_to_write_it() -> None:
    with pytest.raises(ConfigurationError, match="each COMMAND of --sim"):
        simulation_commands(STAGE, ("a=x", "b=y"), linger_ms=0, network=NetworkConditions(loss=0.05))


@pytest.mark.parametrize("sims", [("a",), ("a=",), ("a=x",), ("a=x", "a=y"), ("a='x", "b=y")])
def test_too_few_or_malformed_servers_are_said(sims: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="--sim"):
        simulation_commands(STAGE, sims, linger_ms=0, network=None)


def ball(*, rule: Rule = Rule.ALLOW, server: str | None = None) -> EntityRecord:
    return EntityRecord(
        entity="ball",
        owner="Ann",
        master="Ann",
        rule=rule,
        session=None if server is None else bytes(16),
        server=server,
        epoch=1,
        awaiting=None,
        home="local",
        version=1,
    )


def test_a_ball_of_an_earlier_match_is_played_on_with() -> None:
    for record in (ball(), ball(server="sim1")):
        refuse_others([record], {"ball"}, ("sim1", "sim2"), Path("place"))
    refuse_others([ball(rule=Rule.ASK)], {"Player1"}, ("sim1", "sim2"), Path("place"))


@pytest.mark.parametrize("record", [ball(rule=Rule.ASK), ball(server="blue")])
def test_the_ball_of_somebody_else_is_refused_before_the_match(record: EntityRecord) -> None:
    with pytest.raises(ConfigurationError, match="`khepri-bridge entity delete ball --dir place`"):
        refuse_others([record], {"ball"}, ("sim1", "sim2"), Path("place"))

"""What a node is told, and what it reads from the machine where nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.node import GatewayConfig, NodeConfig
from bridge.node.config import read_cookie


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ERL_EPMD_PORT", raising=False)
    monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_port_mapper_is_erlangs_own_where_nothing_is_said() -> None:
    assert NodeConfig().epmd_address() == ("127.0.0.1", 4369)


def test_the_port_mapper_is_taken_from_erlangs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", "5000")
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.2,127.0.0.3")
    assert NodeConfig().epmd_address() == ("127.0.0.2", 5000)


def test_what_is_said_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", "no port")
    assert NodeConfig(epmd_host="127.0.0.4", epmd_port=6000).epmd_address() == ("127.0.0.4", 6000)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "4369x", "٤"])
def test_a_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", text)
    with pytest.raises(ConfigurationError, match="ERL_EPMD_PORT"):
        NodeConfig().epmd_address()


def test_ports_at_both_ends_of_their_range_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for port in (1, 65_535):
        monkeypatch.setenv("ERL_EPMD_PORT", str(port))
        assert NodeConfig().epmd_address()[1] == port


def test_a_host_is_dialled_by_its_name_unless_an_address_is_given() -> None:
    config = NodeConfig(addresses={"hs1.kb": "127.0.0.9"})
    assert config.address_of("hs1@hs1.kb") == "127.0.0.9"
    assert config.address_of("hs2@hs2.kb") == "hs2.kb"
    for name in ("hs1", "hs1@", "@hs1.kb", ""):
        with pytest.raises(ConfigurationError, match="no node name"):
            config.address_of(name)


def test_a_fixed_port_is_the_nodes_or_its_hosts_or_everybodys_in_this_order() -> None:
    config = NodeConfig(ports={"hs1@h": 9101, "h": 9102}, port=9103)
    assert [config.port_of(name) for name in ("hs1@h", "hs2@h", "hs1@i")] == [9101, 9102, 9103]
    assert NodeConfig(ports={"hs1@h": 9101}).port_of("hs2@h") is None


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout": 0},
        {"call_timeout": -1.0},
        {"incoming_call_timeout": 0.0},
        {"max_incoming_calls": 0},
        {"max_pending_calls": 0},
        {"mailbox_capacity": 0},
        {"max_incoming_connections": 0},
        {"listen_port": -1},
        {"listen_port": 65_536},
        {"port": 0},
        {"ports": {"hs1@h": 65_536}},
    ],
)
def test_a_node_refuses_numbers_that_cannot_work(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        NodeConfig(**options)  # type: ignore[arg-type]  # numbers, whatever their names


@pytest.mark.parametrize("name", ["connect_timeout", "probe_interval", "probe_timeout"])
def test_a_gateway_refuses_numbers_that_cannot_work(name: str) -> None:
    with pytest.raises(ConfigurationError):
        GatewayConfig(**{name: 0.0})


def test_the_cookie_is_the_users_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / ".erlang.cookie").write_text("SECRET\n")
    assert read_cookie() == "SECRET"


def test_a_missing_and_an_empty_cookie_are_named_with_their_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.erlang\.cookie \(No such file"):
        read_cookie()
    (tmp_path / ".erlang.cookie").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        read_cookie()

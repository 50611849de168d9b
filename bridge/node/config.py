"""Configuration of a node, and what it reads from the machine where nothing is said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.dist import DistConfig
from bridge.errors import ConfigurationError
from bridge.node.certificates import TlsConfig

_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """How a hidden node meets the others."""

    epmd_host: str | None = None
    """where this node registers; ``None``: ``ERL_EPMD_ADDRESS``, else 127.0.0.1 (others: their own host)"""
    epmd_port: int | None = None
    """``None``: ``ERL_EPMD_PORT``, else 4369"""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """address to dial for a host part of node names, where this machine's resolver has none or another one"""
    ports: Mapping[str, int] = field(default_factory=dict)
    """port for a node name, or for a host part of node names; the port mapper is not asked for these"""
    port: int | None = None
    """port of every other node (OTP's ``-erl_epmd_port``); ``None``: ask the port mapper"""
    register: bool = True
    """tell the port mapper; without it this node is dialled by those alone who know its ``listen_port``"""
    listen_host: str = "127.0.0.1"
    """address to accept connections on; loopback, since a cookie alone protects nothing beyond it"""
    listen_port: int = 0
    """0: any free one"""
    connect_timeout: float = 7.0
    """seconds to look up, dial and shake hands"""
    call_timeout: float = 5.0
    """seconds that a call waits where none are given (OTP's default)"""
    max_pending_calls: int = 65_536
    """calls that wait at once; one more is refused, because nobody is answering"""
    max_incoming_connections: int = 1_024
    """connections at once, handshaking ones included"""
    mailbox_capacity: int = 100_000
    """messages that wait in one mailbox; one more ends it (see ``Mailbox``)"""
    max_incoming_calls: int = 4_096
    """exposed coroutine functions that run for other nodes at once; one more is refused, ``system_limit``"""
    incoming_call_timeout: float = 60.0
    """seconds that an exposed coroutine function may run before it is cancelled and its caller told"""
    dist: DistConfig = field(default_factory=DistConfig)
    tls: TlsConfig | None = None
    """certificates; with them every connection is TLS, each side proving itself (``-proto_dist inet_tls``)"""

    def __post_init__(self) -> None:
        if min(self.connect_timeout, self.call_timeout, self.incoming_call_timeout) <= 0:
            raise ConfigurationError(
                "connect_timeout, call_timeout and incoming_call_timeout are positive seconds"
            )
        limits = (
            self.max_pending_calls,
            self.mailbox_capacity,
            self.max_incoming_connections,
            self.max_incoming_calls,
        )
        if min(limits) < 1:
            raise ConfigurationError("a limit is at least 1")
        if not 0 <= self.listen_port <= _MAX_PORT:
            raise ConfigurationError(f"listen_port={self.listen_port} is no port: 0 is any free one")
        for port in (*self.ports.values(), *([] if self.port is None else [self.port])):
            if not 1 <= port <= _MAX_PORT:
                raise ConfigurationError(f"{port} is no port of a node: say 1 … {_MAX_PORT}")

    def address_of(self, node: str) -> str:
        """Where the port mapper and the socket of a node are: an address, or a name to resolve.

        Raises:
            ConfigurationError: ``node`` is no node name.
        """
        alive, _, host = node.partition("@")
        if not alive or not host:
            raise ConfigurationError(f"{node!r} is no node name: say name@host")
        return self.addresses.get(host, host)

    def port_of(self, node: str) -> int | None:
        """The fixed port of a node, or ``None`` where the port mapper knows it."""
        return self.ports.get(node, self.ports.get(node.partition("@")[2], self.port))

    def epmd_address(self) -> tuple[str, int]:
        """Host and port of the port mapper of this machine.

        Raises:
            ConfigurationError: ``ERL_EPMD_PORT`` is no port.
        """
        host = self.epmd_host or os.environ.get("ERL_EPMD_ADDRESS", "").split(",")[0] or "127.0.0.1"
        port = self.epmd_port
        if port is None:
            text = os.environ.get("ERL_EPMD_PORT", "4369")
            if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= _MAX_PORT:
                raise ConfigurationError(f"ERL_EPMD_PORT={text!r} is no port")
            port = int(text)
        return host, port


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """How a gateway fails over."""

    connect_timeout: float = 1.0
    """seconds for one member, so that a hung one does not use up the caller's time"""
    first_retry_delay: float = 0.02
    """seconds before a second round through the members; doubles, with jitter"""
    max_retry_delay: float = 0.5
    """seconds between rounds at most"""
    probe_interval: float = 0.25
    """seconds between looks at a member that is connected: a hung or cut-off one keeps its socket open"""
    probe_timeout: float = 0.8
    """seconds without an answer to such a look, and the member is left for another one; together with the
    interval the outage that a client sees whose member is cut off, where others elect in less"""

    def __post_init__(self) -> None:
        if min(self.connect_timeout, self.probe_interval, self.probe_timeout) <= 0:
            raise ConfigurationError("time-outs and intervals of a gateway are positive seconds")


def read_cookie() -> str:
    """The cookie of this user, as Erlang keeps it.

    Raises:
        ConfigurationError: there is none, or it is empty.
    """
    path = Path.home() / ".erlang.cookie"
    try:
        cookie = path.read_text("latin-1").strip()
    except OSError as error:
        raise ConfigurationError(
            f"no cookie: pass cookie=, or write one to {path} ({error.strerror})"
        ) from None
    if not cookie:
        raise ConfigurationError(f"{path} is empty: pass cookie=, or write one to it")
    return cookie

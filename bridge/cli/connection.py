"""How a command reaches a store: as a hidden node with a stable name."""

from __future__ import annotations

import contextlib
import fcntl
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from bridge.cluster.state import ClusterState
    from bridge.khepri import Khepri
    from bridge.node import HiddenNode, NodeConfig

_CONNECT_SECONDS: Final = 2.0
"""for one member"""
_SLOTS: Final = 16
"""Commands at one time. Node names are used again: each new one would stay an atom in every peer for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What it takes to reach a store.

    Attributes:
        members: node names.
        store: the store's id.
        cookie: ``None``: that of ``~/.erlang.cookie``.
        node: name of the hidden node; ``None``: one that no other command has now.
        names: what such names begin with; a number, ``@`` and the host follow.
        slots: directory where commands mark which of them are taken.
        config: of the hidden node.
    """

    members: tuple[str, ...]
    store: str
    slots: Path
    config: NodeConfig
    cookie: str | None = field(default=None, repr=False)
    node: str | None = None
    names: str = "cli"


def node_config(**options: Any) -> NodeConfig:
    """Of a command's node: it calls and is never called, so no port mapper need know it."""
    from bridge.node import NodeConfig

    return NodeConfig(register=False, **options)


def local_way(directory: Path, state: ClusterState) -> Way:
    """To the cluster of this machine whose state is in ``directory``."""
    from bridge.cluster.directory import read_cookie
    from bridge.cluster.epmd import HOST

    return Way(
        members=tuple(member.name for member in state.nodes),
        store=state.store,
        slots=directory,
        config=node_config(epmd_host=HOST, epmd_port=state.epmd_port),
        cookie=read_cookie(directory, state),
    )


@contextlib.asynccontextmanager
async def open_store(way: Way) -> AsyncIterator[Khepri]:
    """A client of a store, connected through any member that answers.

    Raises:
        ConnectionLostError, HandshakeError, DeadlineError: no member can be reached.
        ConfigurationError: more than 16 commands at once.
    """
    from bridge.khepri import Khepri
    from bridge.node import Gateway, GatewayConfig, HiddenNode

    with _name(way) as name:
        async with (
            HiddenNode(name, cookie=way.cookie, config=way.config) as node,
            Gateway(node, way.members, GatewayConfig(connect_timeout=_CONNECT_SECONDS)) as gateway,
        ):
            await gateway.connect(timeout=_CONNECT_SECONDS * (1 + len(way.members)), rounds=1)
            async with Khepri.connect(node, gateway, store=way.store) as store:
                yield store


@contextlib.asynccontextmanager
async def local_node(directory: Path, state: ClusterState) -> AsyncIterator[HiddenNode]:
    """A hidden node beside a cluster of this machine, connected to nobody yet."""
    from bridge.node import HiddenNode

    way = local_way(directory, state)
    with _name(way) as name:
        async with HiddenNode(name, cookie=way.cookie, config=way.config) as node:
            yield node


@contextlib.asynccontextmanager
async def store_client(directory: Path, state: ClusterState) -> AsyncIterator[Khepri]:
    """``open_store`` for a cluster of this machine."""
    async with open_store(local_way(directory, state)) as store:
        yield store


def read_cookie_file(file: Path | None) -> str | None:
    """The cookie in a file, or ``None`` where the node shall read ``~/.erlang.cookie``.

    Raises:
        ConfigurationError: it cannot be read, or is empty.
    """
    if file is None:
        return None
    try:
        cookie = file.read_text(encoding="latin-1").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read the cookie file {file}: {error.strerror}") from error
    if not cookie:
        raise ConfigurationError(f"the cookie file {file} is empty")
    return cookie


@contextlib.contextmanager
def _name(way: Way) -> Iterator[str]:
    if way.node is not None:
        yield way.node
        return
    host = own_host(way.members[0].partition("@")[2])
    way.slots.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(_SLOTS):
        with (way.slots / f".cli{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{way.names}{number}@{host}"
            return
    raise ConfigurationError(f"{_SLOTS} commands are talking to this cluster already: wait for one to end")


def own_host(member_host: str) -> str:
    """Host part of a command's node name: of the kind that the member's is, short or with a dot."""
    if member_host in ("127.0.0.1", "localhost"):
        return member_host
    return socket.getfqdn() if "." in member_host else socket.gethostname().partition(".")[0]

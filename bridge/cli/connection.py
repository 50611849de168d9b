"""How a command reaches the running cluster: as a hidden node with a stable name."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import BridgeError, ConfigurationError, ConnectionLostError

if TYPE_CHECKING:
    from bridge.homeserver.cluster_state import ClusterState
    from bridge.khepri import Khepri
    from bridge.node import HiddenNode

_CONNECT_SECONDS: Final = 2.0
_SLOTS: Final = 16
"""Commands at one time. Node names are used again: each new one would stay an atom in every peer for ever."""


@contextlib.asynccontextmanager
async def store_client(directory: Path, state: ClusterState) -> AsyncIterator[Khepri]:
    """A client of the cluster in ``directory``, connected through any member that answers.

    Raises:
        ConnectionLostError, HandshakeError: no member can be reached.
        ConfigurationError: more than 16 commands at once.
    """
    from bridge.homeserver.local import HOST, read_cookie
    from bridge.khepri import Khepri
    from bridge.node import HiddenNode, NodeConfig

    with _slot(directory) as number:
        node = HiddenNode(
            f"cli{number}@{HOST}",
            cookie=read_cookie(directory, state),
            # It calls and is never called, so the port mapper need not know it.
            config=NodeConfig(
                epmd_host=HOST, epmd_port=state.epmd_port, register=False, connect_timeout=_CONNECT_SECONDS
            ),
        )
        members = [member.name for member in state.nodes]
        async with node:
            await _reach_one(node, members)
            async with Khepri.connect(node, members, store=state.store) as store:
                yield store


async def _reach_one(node: HiddenNode, members: list[str]) -> None:
    """Connect to the first member that answers.

    Before the client does, which goes on trying until its deadline: a command tells a wrong cookie at once.
    """
    refusal: BridgeError = ConnectionLostError("the cluster has no members")
    for member in members:
        try:
            await node.connect(member)
        except BridgeError as error:
            refusal = error
        else:
            return
    raise refusal


def plain_term(term: Any) -> Any:
    """A term of ``kb_api`` for people: atoms and binaries as text, the atom ``undefined`` as ``None``."""
    from bridge.etf import Atom

    match term:
        case Atom():
            return None if term == Atom("undefined") else str(term)
        case bytes():
            return term.decode("utf-8", errors="backslashreplace")
        case list():
            return [plain_term(item) for item in term]
    return term


@contextlib.contextmanager
def _slot(directory: Path) -> Iterator[int]:
    for number in range(_SLOTS):
        with (directory / f".cli{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise ConfigurationError(f"{_SLOTS} commands are talking to this cluster already: wait for one to end")

"""Hosts by name: looked up apart from dialling, so that a look-up that nobody waits for ends unheard.

uvloop's own dialling leaves such a look-up behind: once the name server gives up, long after the caller did,
its error is printed as one that nobody retrieved.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def dial(host: str, port: int, connect: Callable[[str, int], Awaitable[_T]]) -> _T:
    """Connect to the first address of a host that takes it.

    Args:
        host: an address, or a name to look up.
        port: of each address.
        connect: makes a connection to a numeric address.

    Raises:
        OSError: none took it; the last one's reason. ``socket.gaierror``: the name does not resolve.
    """
    refused: OSError | None = None
    for address in await _addresses(host, port):
        try:
            return await connect(address, port)
        except OSError as error:
            refused = error
    assert refused is not None
    raise refused


async def _addresses(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        # A label that is empty or longer than 63: no resolver is asked for such a name.
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    return list(dict.fromkeys(_numeric(address) for *_, address in found))


def _numeric(address: tuple[object, ...]) -> str:
    """An address to dial; one of a link alone is of one interface."""
    host, *rest = address
    scope = rest[2] if len(rest) > 2 else 0
    return f"{host}%{scope}" if scope else str(host)

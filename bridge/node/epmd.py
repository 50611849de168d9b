"""Asking the Erlang port mapper over TCP.

Source: Erlang "Distribution Protocol", section "EPMD Protocol": a look-up ends with its connection, and a
registration lasts as long as its own does.
"""

from __future__ import annotations

import asyncio
import socket

from bridge.dist import Registered, encode_alive2, encode_port_please, parse_alive2, parse_port_please
from bridge.errors import DecodeError, HandshakeError


def _unreachable(host: str, port: int, error: OSError) -> HandshakeError:
    if isinstance(error, socket.gaierror):
        return HandshakeError(f"the host {host!r} does not resolve; check the part of the node name after @")
    return HandshakeError(
        f"no Erlang port mapper answers at {host}:{port} ({error.strerror or error}); "
        "start one (epmd -daemon), or set ERL_EPMD_PORT to the one in use"
    )


async def _until_eof(reader: asyncio.StreamReader) -> bytes:
    """The whole answer, which the port mapper ends by closing; 1 KiB is several times the longest one."""
    data = b""
    while len(data) < 1_024 and (chunk := await reader.read(1_024 - len(data))):
        data += chunk
    return data


async def look_up(name: str, host: str, port: int) -> Registered:
    """Where a node listens.

    Args:
        name: full node name.
        host: of the port mapper.
        port: of the port mapper.

    Raises:
        HandshakeError: no port mapper, or it does not know the node.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise _unreachable(host, port, error) from None
    try:
        writer.write(encode_port_please(name.partition("@")[0]))
        registered = parse_port_please(await _until_eof(reader))
    except (OSError, DecodeError) as error:
        raise HandshakeError(f"the port mapper at {host}:{port} did not answer: {error}") from None
    finally:
        writer.close()
    if registered is None:
        raise HandshakeError(
            f"no node {name} is registered at {host}:{port}; is it running, with this port mapper?"
        )
    return registered


async def register(name: str, listen_port: int, host: str, port: int) -> tuple[int, asyncio.StreamWriter]:
    """Register this node as hidden; it stays so until the writer is closed.

    Returns:
        The creation that the port mapper gave, and what holds the registration.

    Raises:
        HandshakeError: no port mapper, or the name is taken.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise _unreachable(host, port, error) from None
    try:
        writer.write(encode_alive2(name.partition("@")[0], listen_port, hidden=True))
        head = await reader.readexactly(1)
        data = head + await reader.readexactly(5 if head == b"v" else 3)
        creation = parse_alive2(data)
    except (OSError, EOFError, DecodeError) as error:
        writer.close()
        raise HandshakeError(f"the port mapper at {host}:{port} did not register {name}: {error}") from None
    except BaseException:
        writer.close()
        raise
    if creation is None:
        writer.close()
        raise HandshakeError(f"the name {name} is in use: another running node registered it; choose another")
    return creation, writer

"""Asking the Erlang port mapper over TCP.

Source: Erlang "Distribution Protocol", section "EPMD Protocol": a look-up ends with its connection, and a
registration lasts as long as its own does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import Final

from bridge.dist import (
    NAMES_REQUEST,
    Registered,
    encode_alive2,
    encode_port_please,
    parse_alive2,
    parse_names,
    parse_port_please,
)
from bridge.errors import DeadlineError, DecodeError, HandshakeError
from bridge.node.resolving import dial

_log = logging.getLogger("bridge.node")

_MAX_ANSWER_BYTES: Final = 1_024
"""several times the longest answer about one node"""
_MAX_NAMES_BYTES: Final = 1 << 20
"""some 30,000 names"""
_AGAIN_SECONDS: Final = 5.0
"""for one try to register again"""


def unresolved(host: str, error: socket.gaierror) -> HandshakeError:
    """What a host that has no address means for whoever dials a node there."""
    return HandshakeError(
        f"the host {host!r:.80} does not resolve ({error.strerror}); check the part of the node name "
        "after @, and the name server"
    )


def _unreachable(host: str, port: int, error: OSError) -> HandshakeError:
    if isinstance(error, socket.gaierror):
        return unresolved(host, error)
    return HandshakeError(
        f"no Erlang port mapper answers at {host}:{port} ({error.strerror or error}); "
        "start one (epmd -daemon), set ERL_EPMD_PORT to the one in use, or do without: NodeConfig takes the "
        "ports of nodes, and register=False"
    )


async def _ask(request: bytes, host: str, port: int, limit: int) -> bytes:
    """The whole answer, which the port mapper ends by closing; no more than ``limit`` bytes are read."""
    try:
        reader, writer = await dial(host, port, asyncio.open_connection)
    except OSError as error:
        raise _unreachable(host, port, error) from None
    data = b""
    try:
        writer.write(request)
        while len(data) < limit and (chunk := await reader.read(limit - len(data))):
            data += chunk
    except OSError as error:
        raise HandshakeError(f"the port mapper at {host}:{port} did not answer: {error}") from None
    finally:
        writer.close()
    return data


async def look_up(name: str, host: str, port: int) -> Registered:
    """Where a node listens; takes as long as the port mapper does, so bound it.

    Args:
        name: full node name.
        host: of the port mapper.
        port: of the port mapper.

    Raises:
        HandshakeError: no port mapper, or it does not know the node.
    """
    answer = await _ask(encode_port_please(name.partition("@")[0]), host, port, _MAX_ANSWER_BYTES)
    try:
        registered = parse_port_please(answer)
    except DecodeError as error:
        raise HandshakeError(f"the port mapper at {host}:{port} did not answer: {error}") from None
    if registered is None:
        raise HandshakeError(
            f"no node {name} is registered at {host}:{port}; is it running, with this port mapper?"
        )
    return registered


async def names(host: str = "127.0.0.1", port: int = 4369, *, timeout: float = 5.0) -> dict[str, int]:
    """All nodes that one port mapper knows, as ``epmd -names`` lists them.

    Args:
        host: of the port mapper.
        port: of the port mapper.
        timeout: seconds.

    Returns:
        Port of the distribution by the part of the node name before ``@``.

    Raises:
        HandshakeError: no port mapper answers there.
        DeadlineError: it took too long.
    """
    try:
        async with asyncio.timeout(timeout):
            answer = await _ask(NAMES_REQUEST, host, port, _MAX_NAMES_BYTES)
    except TimeoutError:
        raise DeadlineError(f"the port mapper at {host}:{port} did not answer within {timeout:g} s") from None
    try:
        return parse_names(answer)
    except DecodeError as error:
        raise HandshakeError(f"the port mapper at {host}:{port} did not answer: {error}") from None


class Registration:
    """A node's name at the port mapper, given anew whenever the port mapper comes back from a restart.

    Made by ``register``.

    Attributes:
        creation: what the port mapper gave at first; a node keeps it for its whole run.
    """

    def __init__(self, request: _Request, reply: _Reply, *, retry_seconds: float) -> None:
        self._request = request
        self._writer = reply.writer
        self._retry_seconds = retry_seconds
        self.creation = reply.creation
        self._keeping = asyncio.create_task(self._keep(reply.reader))

    def close(self) -> None:
        """Give the name up."""
        self._keeping.cancel()
        self._writer.close()

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        request = self._request
        while True:
            # The port mapper has nothing more to say; its end is the end of the registration.
            with contextlib.suppress(OSError):
                while await reader.read(_MAX_ANSWER_BYTES):
                    pass
            self._writer.close()
            _log.warning(
                "%s is no longer registered: %s:%d is gone", request.name, request.host, request.port
            )
            reply = await self._again()
            reader, self._writer = reply.reader, reply.writer
            _log.warning("%s is registered again", request.name)

    async def _again(self) -> _Reply:
        said = ""
        while True:
            await asyncio.sleep(self._retry_seconds)
            try:
                async with asyncio.timeout(_AGAIN_SECONDS):
                    return await self._request.send()
            except (HandshakeError, TimeoutError) as error:
                reason = str(error) or "the port mapper does not answer"
                if reason != said:
                    said = reason
                    _log.warning("%s is not registered: %s", self._request.name, reason)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is registered, and where."""

    name: str
    listen_port: int
    host: str
    port: int

    async def send(self) -> _Reply:
        host, port, name = self.host, self.port, self.name
        try:
            reader, writer = await dial(host, port, asyncio.open_connection)
        except OSError as error:
            raise _unreachable(host, port, error) from None
        try:
            writer.write(encode_alive2(name.partition("@")[0], self.listen_port, hidden=True))
            head = await reader.readexactly(1)
            creation = parse_alive2(head + await reader.readexactly(5 if head == b"v" else 3))
        except (OSError, EOFError, DecodeError) as error:
            writer.close()
            raise HandshakeError(
                f"the port mapper at {host}:{port} did not register {name}: {error}"
            ) from None
        except BaseException:
            writer.close()
            raise
        if creation is None:
            writer.close()
            raise HandshakeError(
                f"the name {name} is in use: another running node registered it; choose another"
            )
        return _Reply(creation, reader, writer)


@dataclass(frozen=True, slots=True)
class _Reply:
    """A registration, and the connection that holds it."""

    creation: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def register(
    name: str, listen_port: int, host: str, port: int, *, retry_seconds: float = 2.0
) -> Registration:
    """Register this node as hidden; it stays so until the registration is closed.

    Args:
        name: full node name.
        listen_port: where it listens.
        host: of the port mapper.
        port: of the port mapper.
        retry_seconds: between tries to register again, once the port mapper has gone (OTP's default).

    Raises:
        HandshakeError: no port mapper, or the name is taken.
    """
    request = _Request(name, listen_port, host, port)
    return Registration(request, await request.send(), retry_seconds=retry_seconds)

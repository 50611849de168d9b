"""A TCP proxy that puts a road between its two ends, and a port mapper that leads Erlang nodes to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Final, cast

from benchmarks.passes.road import Line, Road

HOST: Final = "127.0.0.1"
_VISIBLE: Final = 77
_VERSION: Final = 6


class Proxy:
    """Passes connections on to one port, over the road.

    Args:
        port: where it passes them on to, on this host.
        road: between the two; another one counts for what is sent from then on.
    """

    def __init__(self, port: int, road: Road) -> None:
        self._target = port
        self._road = road
        self._count = itertools.count()
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), HOST, 0)

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for end in list(self._ends):
            end.abort()

    def lines(self) -> tuple[Line, Line]:
        """There and back, of a new connection: its own luck."""
        number = next(self._count)
        there, back = (Random(f"{self._road.seed} {self._target} {number} {way}") for way in (0, 1))
        return Line(self._road, there), Line(self._road, back)

    @property
    def target(self) -> int:
        """The port passed on to."""
        return self._target

    def joined(self, end: _End) -> None:
        """A connection's end came to be."""
        self._ends.add(end)

    def left(self, end: _End) -> None:
        """A connection's end is over."""
        self._ends.discard(end)


class _End(asyncio.Protocol):
    """One end of a connection: what it reads goes onto its line, what comes off that to the other end."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.line: Line
        self.other: _End

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._proxy.joined(self)
        self.other.deliver()

    def data_received(self, data: bytes) -> None:
        self.line.push(bytes(data), now=time.monotonic())
        self.deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.left(self)
        self.other.close()

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def deliver(self) -> None:
        """Write what has arrived to the other end, once that stands."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.other.is_open:
            return
        # uvloop's own clock stands still within a turn, and counts whole milliseconds.
        for data in self.line.pop_due(now=time.monotonic()):
            self.other.write(data)
        due = self.line.get_timer()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self.deliver)


class _Near(_End):
    """The end of who connected to the proxy; opens the other one."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        self.other = _End(proxy)
        self.other.other = self
        self.line, self.other.line = proxy.lines()
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._loop.create_connection(lambda: self.other, HOST, self._proxy.target)
        except OSError:
            self.abort()


@asynccontextmanager
async def port_mapper(ports: Mapping[str, int]) -> AsyncIterator[int]:
    """A stand-in for epmd that tells of these nodes alone; its port.

    Source: Erlang "Distribution Protocol", section "EPMD Protocol", PORT_PLEASE2_REQ.

    Args:
        ports: by the part of the node name before ``@``.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            request = await reader.readexactly(size)
            port = ports.get(request[1:].decode("latin-1")) if request[:1] == b"z" else None
            writer.write(port_answer(request[1:], port))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(answer, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def port_answer(name: bytes, port: int | None) -> bytes:
    """PORT2_RESP for a node; without a port, that there is none."""
    if port is None:
        return b"\x77\x01"
    head = struct.pack(">BBHBBHHH", 119, 0, port, _VISIBLE, 0, _VERSION, _VERSION, len(name))
    return head + name + b"\0\0"


@asynccontextmanager
async def proxied(ports: Mapping[str, int], road: Road) -> AsyncIterator[dict[str, int]]:
    """A proxy for each port; their ports by the same names."""
    async with AsyncExitStack() as stack:
        proxies = {name: Proxy(port, road) for name, port in ports.items()}
        for proxy in proxies.values():
            await proxy.start()
            stack.push_async_callback(proxy.close)
        yield {name: proxy.port for name, proxy in proxies.items()}

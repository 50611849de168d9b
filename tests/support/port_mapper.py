"""A port mapper inside the test's own event loop, for nodes that need no BEAM beside them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.node import NodeConfig


class LoopPortMapper:
    """Names and ports of the nodes that registered.

    Attributes:
        ports: by the part of the name before ``@``; a test may write into it.
        answer: sent in place of every right answer, cut where it has several parts; ``None``: the right one.
        silent: take connections and say nothing.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.answer: list[bytes] | None = None
        self.silent = False
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    def config(self, **options: object) -> NodeConfig:
        """For hidden nodes that register here."""
        return NodeConfig(epmd_host="127.0.0.1", epmd_port=self.port, **options)  # type: ignore[arg-type]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            body = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            if self.silent:
                await reader.read()
            elif self.answer is not None:
                for part in self.answer:
                    writer.write(part)
                    await writer.drain()
            elif body[0] == 120:
                await self._register(body, reader, writer)
            else:
                self._look_up(body[1:].decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._serving.discard(task)

    async def hang_up(self) -> None:
        """End every connection, as a restart does."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # closing a socket takes one turn more

    async def _register(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        (port,) = struct.unpack_from(">H", body, 1)
        name = body[11 : 11 + int.from_bytes(body[9:11], "big")].decode()
        if name in self.ports:
            writer.write(b"v\x01\0\0\0\0")
            return
        self.ports[name] = port
        writer.write(b"v\x00\0\0\x10\0")
        await reader.read()
        self.ports.pop(name, None)

    def _look_up(self, name: str, writer: asyncio.StreamWriter) -> None:
        if name not in self.ports:
            writer.write(b"w\x01")
            return
        raw = name.encode()
        writer.write(
            struct.pack(">BBHBBHHH", 119, 0, self.ports[name], 72, 0, 6, 6, len(raw)) + raw + b"\0\0"
        )


@asynccontextmanager
async def loop_port_mapper() -> AsyncIterator[LoopPortMapper]:
    """A running one on loopback."""
    mapper = LoopPortMapper()
    server = await asyncio.start_server(mapper.serve, "127.0.0.1", 0)
    mapper.port = server.sockets[0].getsockname()[1]
    try:
        yield mapper
    finally:
        server.close()
        await mapper.hang_up()

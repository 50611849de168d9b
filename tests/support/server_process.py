"""Simulation servers whose every process is the test's to kill: control plane, data plane and guardian."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from bridge.authority import Entry, decode_entries
from bridge.cluster.local import LocalCluster
from bridge.sim.driver import SimulationProcess
from bridge.sim.events import ServerEvent
from tests.support.simulation import children, data_plane

SECONDS = 60.0


class ServerProcess:
    """A server, its processes, and what it told.

    Attributes:
        control: pid of the control plane.
        data: pid of the data plane.
        guardian: pid of the guardian.
    """

    def __init__(self, cluster: LocalCluster, name: str, *options: str, module: str = "bridge.cli") -> None:
        command = [sys.executable, "-m", module, "sim", "--dir", str(cluster.directory), "--commands"]
        self.name = name
        self.events: list[ServerEvent] = []
        self.driver = SimulationProcess(name, [*command, "--name", name, *options], self._on_event)
        self._changed = asyncio.Event()

    def _on_event(self, _: str, event: ServerEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def start(self) -> None:
        await self.driver.start()
        self.control = self.driver.pid
        found = children(self.control)
        self.data = data_plane(found)
        (self.guardian,) = found - {self.data}

    async def told(self, event: type[ServerEvent], **fields: Any) -> Any:
        """Wait for an event with these fields."""

        def matching() -> Iterable[ServerEvent]:
            return (
                e
                for e in self.events
                if isinstance(e, event) and all(getattr(e, name) == value for name, value in fields.items())
            )

        await self.until(lambda: any(True for _ in matching()))
        return next(iter(matching()))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def kill(self, *pids: int) -> None:
        """End processes as a crash would; all of them at once as far as the kernel lets us."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def stop(self, *pids: int) -> None:
        """Let processes stand still."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self, *pids: int) -> None:
        """Let them go on."""
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def server_process(
    cluster: LocalCluster, name: str, *options: str, module: str = "bridge.cli"
) -> AsyncIterator[ServerProcess]:
    """A running server in processes of its own; whatever of it is left is ended."""
    server = ServerProcess(cluster, name, *options, module=module)
    await server.start()
    try:
        yield server
    finally:
        for pid in (server.control, server.data, server.guardian):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await server.driver.close()


def recorded(directory: Path) -> list[Entry]:
    """What servers with ``record_dir`` left."""
    return [
        entry
        for file in sorted(directory.glob("*.jsonl"))
        for entry in decode_entries(file.read_bytes().splitlines())
    ]

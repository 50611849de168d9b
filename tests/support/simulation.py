"""Simulation servers in the test's own event loop, with their real data planes, and what they told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bridge.cluster.local import LocalCluster
from bridge.sim.config import SimulationConfig
from bridge.sim.events import AuthorityGained, PeerSessionChanged, Problem, ServerEvent, StateAccepted
from bridge.sim.motion import Motion, roll
from bridge.sim.server import SimulationServer

SECONDS = 30.0


class Observed:
    """A running server, its events, and its data plane's process."""

    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.server: SimulationServer
        self.data_plane = 0
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        return self.server.config.name

    def on_event(self, event: ServerEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def problems(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Problem)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def told(self, event: type[ServerEvent], **fields: Any) -> None:
        """Wait for an event with these fields."""
        await self.until(
            lambda: any(
                isinstance(e, event) and all(getattr(e, name) == value for name, value in fields.items())
                for e in self.events
            )
        )

    async def acts(self, entity: str, epoch: int) -> None:
        await self.told(AuthorityGained, entity=entity, epoch=epoch)

    async def sees(self, entity: str, epoch: int, sender: Observed) -> None:
        await self.told(StateAccepted, entity=entity, epoch=epoch, sender=sender.name)

    async def told_state(self, entity: str, epoch: int, sender: str) -> None:
        await self.told(StateAccepted, entity=entity, epoch=epoch, sender=sender)

    async def meets(self, other: Observed) -> None:
        await self.told(PeerSessionChanged, server=other.name, up=True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the data plane's process, as a paused container would be."""
        os.kill(self.data_plane, signal.SIGSTOP)
        try:
            yield
        finally:
            # A test may have killed it meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.data_plane, signal.SIGCONT)


def children(pid: int | None = None) -> set[int]:
    """Processes that a process started and that still run."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        # A thread may end between the listing and the look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def data_plane(pids: Iterable[int]) -> int:
    """The data plane among processes that a server started; the other one is its guardian."""
    (found,) = [
        pid for pid in pids if b"bridge.sim.guardian" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def simulation_config(cluster: LocalCluster, name: str, **values: Any) -> SimulationConfig:
    """A server of the cluster that nobody can dial, and that keeps its whole history."""
    settings: dict[str, Any] = {
        "name": name,
        "node": f"{name}@127.0.0.1",
        "members": cluster.members,
        "cookie": cluster.cookie,
        "epmd_port": cluster.epmd_port,
        "register": False,
        "store": cluster.store,
        "capacity": 64,
        "keep_history": True,
    }
    return SimulationConfig(**(settings | values))


@contextlib.asynccontextmanager
async def simulation(
    cluster: LocalCluster,
    name: str,
    *,
    server_class: type[SimulationServer] = SimulationServer,
    motion: Motion = roll,
    **values: Any,
) -> AsyncIterator[Observed]:
    """A running server."""
    observed = Observed()
    before = children()
    config = simulation_config(cluster, name, **values)
    async with server_class(config, observed.on_event, motion=motion) as server:
        observed.server = server
        observed.data_plane = data_plane(children() - before)
        yield observed

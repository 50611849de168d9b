"""A cluster of three homeservers, and simulation servers that are there for a world of some size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Self

from bridge.cluster.local import LocalCluster
from bridge.errors import DeadlineError
from bridge.sim.config import SimulationConfig
from bridge.sim.events import EntityUpdated, PeerSessionChanged, ServerEvent, SessionLost, StateAccepted
from bridge.sim.server import SimulationServer

SECONDS: Final = 120.0
"""until what is waited for counts as failed"""
_LOOK_SECONDS: Final = 0.001


class Watching:
    """A server that has been entered, and what it has told."""

    def __init__(
        self,
        cluster: LocalCluster,
        name: str,
        *,
        entities: int,
        max_entities: int | None = None,
        rate_hz: float = 60.0,
    ) -> None:
        self.name = name
        self.accepted: dict[str, int] = {}
        self.updated_ns: list[int] = []
        self.met: set[str] = set()
        self.lost = 0
        # What is followed takes half of the slots at most.
        config = SimulationConfig(
            name=name,
            node=f"{name}@127.0.0.1",
            members=cluster.members,
            cookie=cluster.cookie,
            epmd_port=cluster.epmd_port,
            register=False,
            rate_hz=rate_hz,
            shed=max_entities is not None,
            max_entities=max_entities,
            capacity=2 * entities,
            follow=entities,
        )
        self.server = SimulationServer(config, self._on_event)

    def _on_event(self, event: ServerEvent) -> None:
        match event:
            case StateAccepted(entity=entity, epoch=epoch):
                self.accepted[entity] = epoch
            case EntityUpdated(at_ns=at_ns):
                self.updated_ns.append(at_ns)
            case PeerSessionChanged(server=server, up=True):
                self.met.add(server)
            case SessionLost():
                self.lost += 1
            case _:
                pass


class LongestTurn:
    """How long the event loop was held up at most, of processor time: other processes do not count.

    For ``async with``; what is inside has to wait now and then.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.thread_time()
            self.seconds = max(self.seconds, now - before)
            before = now


async def until(condition: Callable[[], object], what: str) -> int:
    """Wait for a condition, looked at each millisecond; monotonic nanoseconds.

    Raises:
        DeadlineError: it has not come about.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DeadlineError(f"no {what} within {SECONDS:.0f} s")
        await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic_ns()


async def meet(*servers: Watching) -> None:
    """Wait until every two of them have a datagram session."""
    for one in servers:
        others = {other.name for other in servers if other is not one}
        await until(lambda: others <= one.met, f"datagram session of {one.name}")  # noqa: B023

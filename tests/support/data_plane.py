"""Data planes in processes of their own, without a control plane around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.deadline import boot_ns
from bridge.sim.dataplane.messages import AddPeer, Event, Start

LEASE_NS = 3_600 * 10**9
"""longer than any test"""


class Plane:
    """A running data plane and what it told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.session = name.encode().ljust(16, b"-")
        self.events: list[Event] = []
        self.client = DataPlaneClient(self._on_event)
        self._changed = asyncio.Event()

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def settings(self, **values: Any) -> Start:
        fields: dict[str, Any] = {
            "server": self.name,
            "run": self.session,
            "host": "127.0.0.1",
            "port": 0,
            "capacity": 8,
            "rate_hz": 60.0,
        }
        return Start(**(fields | values))

    async def told(self, kind: type[Event]) -> Any:
        async with asyncio.timeout(20):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                self._changed.clear()
                await self._changed.wait()

    def know(self, other: Plane, **values: Any) -> None:
        ready = other.client.ready
        fields: dict[str, Any] = {
            "server": other.name,
            "session": other.session,
            "key": ready.key,
            "thumbprint": ready.thumbprint,
            "host": ready.host,
            "port": ready.port,
        }
        self.client.tell(AddPeer(**(fields | values)))


@contextlib.asynccontextmanager
async def running(name: str, **values: Any) -> AsyncIterator[Plane]:
    plane = Plane(name)
    try:
        await plane.client.start(plane.settings(**values))
        plane.client.begin_session(plane.session)
        plane.client.deadline.set(boot_ns() + LEASE_NS)
        yield plane
    finally:
        await plane.client.close()

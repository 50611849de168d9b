"""A session's standing without processes: its data plane notes what it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from bridge.etf import Atom
from bridge.registry import EntityRecord, Homeserver, Rule, ServerRecord, UnknownEntityError
from bridge.replication import NO_ROTATION, World, encode_state
from bridge.sim.bodies import Bodies
from bridge.sim.config import SimulationConfig
from bridge.sim.dataplane import DataPlaneClient
from bridge.sim.dataplane.messages import Command, Hold
from bridge.sim.events import ServerEvent
from bridge.sim.slots import Slots
from bridge.sim.standing import Standing
from bridge.sim.traces import Traces

SESSION = b"s" * 16


class NotingPlane:
    """Keeps commands; every release opens, and every stop is signed."""

    def __init__(self) -> None:
        self.world = World(bytearray(World.size(8)), 8)
        self.told: list[Command] = []
        self.reached: set[str] = set()
        self.stopped: list[tuple[str, str]] = []
        self.state = replace(self.world.read(0), tick=7, rotation=np.array(NO_ROTATION))

    def tell(self, command: Command) -> None:
        self.told.append(command)

    async def stop_sealing(self, entity: str, to: str, *, linger_ns: int = 0) -> str:
        self.stopped.append((entity, to))
        return "a.b"

    async def stop_for_nobody(self, entity: str) -> None:
        self.stopped.append((entity, ""))

    async def catch_up(self) -> None:
        pass

    async def open_release(self, **_: Any) -> bytes:
        return encode_state(self.state)

    def held(self) -> list[tuple[str, int]]:
        return [(command.entity, command.epoch) for command in self.told if isinstance(command, Hold)]


class Known:
    """A homeserver that knows every server, and notes what is released."""

    session = SESSION

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.released: list[tuple[str, int]] = []
        self.deleted: set[str] = set()

    async def server(self, server: str) -> ServerRecord:
        return ServerRecord(
            server=server,
            session=b"o" * 16,
            key=b"{}",
            thumbprint="t",
            host="127.0.0.1",
            port=4000,
            revoked=server in self.revoked,
        )

    async def entity(self, entity: str) -> EntityRecord:
        """A record that is behind whatever an inbox tells."""
        if entity in self.deleted:
            raise UnknownEntityError("no entity of this name", reason=Atom("no_entity"), props={})
        return record(0, entity=entity)

    async def release(self, *, entity: str, epoch: int) -> EntityRecord:
        self.released.append((entity, epoch))
        if self.released.count((entity, epoch)) > 1:
            raise UnknownEntityError("no entity of this name", reason=Atom("no_entity"), props={})
        return record(epoch, entity=entity, session=None, server=None)


class Bench:
    """A standing and all around it."""

    def __init__(self) -> None:
        self.plane = NotingPlane()
        self.events: list[ServerEvent] = []
        self.known = Known()
        self.home = cast(Homeserver, self.known)
        self.bodies = Bodies(self.plane.world)
        self.standing = Standing(
            config=SimulationConfig(name="sim1", node="sim1@127.0.0.1", members=("hs1@127.0.0.1",)),
            home=self.home,
            plane=cast(DataPlaneClient, self.plane),
            bodies=self.bodies,
            slots=Slots(server="sim1", capacity=8, follow=8),
            traces=Traces("sim1"),
            on_event=self.events.append,
        )


def record(epoch: int, **values: Any) -> EntityRecord:
    """A record of the ball, held by another server unless said otherwise."""
    fields: dict[str, Any] = {
        "entity": "ball",
        "owner": "Player1",
        "master": "Player1",
        "rule": Rule.ALLOW,
        "session": b"o" * 16,
        "server": "sim2",
        "epoch": epoch,
        "awaiting": None,
        "home": "local",
        "version": epoch,
    }
    return EntityRecord(**(fields | values))

"""Entities from one world to another: quantised, sealed, sent, opened, checked and applied."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.replication import (
    COMPACT,
    FULL,
    States,
    World,
    compact_records,
    decode_payloads_untrusted,
    encode_payloads,
    full_records,
    records_per_payload,
)
from bridge.udp import (
    MessageReceived,
    Peer,
    SessionClosed,
    StateReceived,
    StatesReceived,
    UdpConfig,
    UdpEngine,
    UdpEvent,
)

_PAYLOADS = 216
"""Of one tick: as many datagrams as are opened together."""
_OUT = 2 * _PAYLOADS
"""Datagrams whose arrival may be unknown when the next tick is sent."""
_WARM_UP = 0.3
_EPOCH = 7


@dataclass(frozen=True, slots=True)
class Entities:
    """What was applied."""

    per_s: float
    loss: float


def _states(count: int, random: np.random.Generator, tick: int) -> States:
    rotations = random.normal(size=(count, 4))
    return States(
        ticks=np.full(count, tick, dtype=np.uint64),
        positions=random.normal(0, 500, (count, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=random.normal(0, 10, (count, 3)),
        angular_velocities=random.normal(0, 2, (count, 3)),
        flags=np.zeros(count, dtype=np.uint8),
    )


class _Receiver:
    """Applies what comes to a world; answers a message with the number of entities applied."""

    def __init__(self, count: int) -> None:
        self.engine: UdpEngine | None = None
        self.closed = asyncio.Event()
        self._world = World(bytearray(World.size(count)), count)
        self._epochs = np.full(count, _EPOCH, dtype=np.uint16)
        self._applied = 0

    def __call__(self, event: UdpEvent) -> None:
        """Take an event of the engine."""
        match event:
            case StatesReceived(payloads=payloads):
                self._apply(payloads)
            case StateReceived(payload=payload):
                self._apply(np.frombuffer(payload, dtype=np.uint8).reshape(1, -1))
            case MessageReceived():
                # Messages are handed over before the states that came with them: count those too.
                asyncio.get_running_loop().call_soon(self._answer)
            case SessionClosed():
                self.closed.set()
            case _:
                pass

    def _apply(self, payloads: npt.NDArray[np.uint8]) -> None:
        for decoded in decode_payloads_untrusted(payloads)[0]:
            slots = decoded.records["handle"].reshape(-1).astype(np.intp)
            known = self._epochs[slots] == decoded.records["epoch"].reshape(-1)
            states = decoded.states()
            if not known.all():
                slots, states = slots[known], states.select(known)
            self._world.store(slots, states)
            self._applied += len(slots)

    def _answer(self) -> None:
        assert self.engine is not None
        session = self.engine.session("sender")
        assert session is not None
        session.send_reliable(self._applied.to_bytes(8, "big"))


def _receive(pipe: Connection, key: dict[str, Any], peer_key: dict[str, Any], count: int) -> None:
    async def main() -> None:
        receiver = _Receiver(count)
        async with UdpEngine(UdpConfig(), identity=Jwk.from_dict(key), on_event=receiver) as engine:
            receiver.engine = engine
            engine.add_peer(Peer(name="sender", public_key=Jwk.from_dict(peer_key), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            await receiver.closed.wait()

    uvloop.run(main())


async def _send(
    address: tuple[str, int], identity: Jwk, peer: Jwk, *, seconds: float, layout: np.dtype[np.void]
) -> Entities:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    def on_event(event: UdpEvent) -> None:
        if isinstance(event, MessageReceived):
            answers.put_nowait(event.payload)

    per = records_per_payload(layout)
    count = per * _PAYLOADS
    world = World(bytearray(World.size(count)), count)
    slots = np.arange(count)
    world.store(slots, _states(count, np.random.default_rng(1), 0))
    epochs = np.full(count, _EPOCH, dtype=np.uint64)
    make = compact_records if layout == COMPACT else full_records
    async with UdpEngine(UdpConfig(), identity=identity, on_event=on_event) as engine:
        engine.add_peer(Peer(name="receiver", public_key=peer.public(), address=address))
        session = await engine.connect("receiver", timeout=10)
        tick = 0

        async def run(seconds: float) -> tuple[int, int, float]:
            """Entities sent, all that were ever applied, seconds until the receiver's answer."""
            nonlocal tick
            sent = 0
            begun = time.perf_counter()
            while time.perf_counter() - begun < seconds:
                tick += 1
                records = make(slots, epochs, world.gather(slots))
                session.send_state(encode_payloads(records.reshape(_PAYLOADS, per), tick=tick))
                engine.flush()
                sent += count
                while session.states_waiting or session.states_unacknowledged > _OUT:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            session.send_reliable(b"how many")
            applied = int.from_bytes(await asyncio.wait_for(answers.get(), 10), "big")
            return sent, applied, time.perf_counter() - begun

        _, before, _ = await run(_WARM_UP)
        sent, applied, elapsed = await run(seconds)
        return Entities((applied - before) / elapsed, 1 - (applied - before) / sent)


def measure_entities(seconds: float, *, full: bool) -> Entities:
    """Entities a second from world to world.

    Args:
        full: records of 36 bytes, with velocities; else of 20.
    """
    layout = FULL if full else COMPACT
    sender, receiver = Jwk.generate(), Jwk.generate()
    count = records_per_payload(layout) * _PAYLOADS
    with peer_process(_receive, receiver.to_dict(), sender.public().to_dict(), count) as pipe:
        return uvloop.run(_send(pipe.recv(), sender, receiver, seconds=seconds, layout=layout))

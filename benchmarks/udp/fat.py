"""A fat link: batches of full datagrams from one engine to another, delivered and counted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import uvloop

from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
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

BATCH = 216
"""States of one batch, each on a stream of its own and filling a datagram."""
SIGNED_BATCH = 512
"""In signed mode: a batch is signed before any of it is sent, time enough for its receiver to run dry."""
SIGNED_OUT = 1024
OUT = 1728
"""Datagrams whose arrival may be unknown when the next batch is given: the sender is paced by arrival."""

_WARM_UP = 0.3
"""Seconds in which a session's rate finds the link's."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a sender's datagrams came to."""

    delivered_per_s: float
    loss: float
    """Share of the datagrams that were sent and not delivered."""


class _Receiver:
    """Counts states and answers a message with the count."""

    def __init__(self) -> None:
        self.engine: UdpEngine | None = None
        self.count = 0
        self.closed = asyncio.Event()

    def __call__(self, event: UdpEvent) -> None:
        """Take an event of the engine."""
        match event:
            case StatesReceived():
                self.count += len(event)
            case StateReceived():
                self.count += 1
            case MessageReceived():
                # Messages are handed over before the states that came with them: count those too.
                asyncio.get_running_loop().call_soon(self._answer)
            case SessionClosed():
                self.closed.set()
            case _:
                pass

    def _answer(self) -> None:
        assert self.engine is not None
        session = self.engine.session("sender")
        assert session is not None
        session.send_reliable(self.count.to_bytes(8, "big"))


def _receive(
    pipe: Connection, key: dict[str, Any], peer_key: dict[str, Any], options: dict[str, Any]
) -> None:
    async def main() -> None:
        receiver = _Receiver()
        config = UdpConfig(**options)
        async with UdpEngine(config, identity=Jwk.from_dict(key), on_event=receiver) as engine:
            receiver.engine = engine
            engine.add_peer(Peer(name="sender", public_key=Jwk.from_dict(peer_key), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            await receiver.closed.wait()

    uvloop.run(main())


async def _send(
    address: tuple[str, int],
    identity: Jwk,
    peer: Jwk,
    *,
    seconds: float,
    batch: int,
    out: int,
    options: dict[str, Any],
) -> Rate:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    def on_event(event: UdpEvent) -> None:
        if isinstance(event, MessageReceived):
            answers.put_nowait(event.payload)

    async with UdpEngine(UdpConfig(**options), identity=identity, on_event=on_event) as engine:
        engine.add_peer(Peer(name="receiver", public_key=peer.public(), address=address))
        session = await engine.connect("receiver", timeout=10)
        rows = np.random.default_rng(1).integers(0, 256, (batch, session.max_state_bytes), dtype=np.uint8)

        async def run(seconds: float) -> tuple[int, int, float]:
            """Datagrams given, all that the receiver ever counted, seconds until its answer."""
            given = 0
            begun = time.perf_counter()
            while time.perf_counter() - begun < seconds:
                session.send_state(rows)
                engine.flush()
                given += batch
                # An acknowledgement is no event, so there is nothing else to wait for.
                while session.states_waiting or session.states_unacknowledged > out:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            session.send_reliable(b"how many")
            counted = int.from_bytes(await asyncio.wait_for(answers.get(), 10), "big")
            return given, counted, time.perf_counter() - begun

        _, before, _ = await run(_WARM_UP)
        given, counted, elapsed = await run(seconds)
        return Rate((counted - before) / elapsed, 1 - (counted - before) / given)


def measure_rate(seconds: float, *, batch: int = BATCH, out: int = OUT, **options: Any) -> Rate:
    """States a second from engine to engine, each a full datagram; in signed mode with its proof.

    Args:
        batch: states given at once.
        out: how many may be on their way when a batch is given.
        options: of both engines' configuration.
    """
    sender, receiver = Jwk.generate(), Jwk.generate()
    with peer_process(_receive, receiver.to_dict(), sender.public().to_dict(), options) as pipe:
        return uvloop.run(
            _send(pipe.recv(), sender, receiver, seconds=seconds, batch=batch, out=out, options=options)
        )

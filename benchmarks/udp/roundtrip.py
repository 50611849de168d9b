"""Round trips of 128 bytes, sealed, between two engines in two processes."""

from __future__ import annotations

import asyncio
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.udp import Peer, SessionClosed, StateReceived, UdpConfig, UdpEngine, UdpEvent

SIZE = 128


def _echo(pipe: Connection, key: dict[str, Any], peer_key: dict[str, Any], busy_poll: bool) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        def on_event(event: UdpEvent) -> None:
            if isinstance(event, StateReceived):
                session = engine.session("caller")
                assert session is not None
                session.send_state(event.payload)
                engine.flush()
            elif isinstance(event, SessionClosed):
                closed.set()

        config = UdpConfig(busy_poll=busy_poll)
        engine = UdpEngine(config, identity=Jwk.from_dict(key), on_event=on_event)
        async with engine:
            engine.add_peer(Peer(name="caller", public_key=Jwk.from_dict(peer_key), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            await closed.wait()

    uvloop.run(main())


async def _call(
    address: tuple[str, int], identity: Jwk, peer: Jwk, count: int, *, busy_poll: bool
) -> list[float]:
    answer: asyncio.Future[float] | None = None

    def on_event(event: UdpEvent) -> None:
        if isinstance(event, StateReceived) and answer is not None:
            answer.set_result(time.perf_counter())

    payload = os.urandom(SIZE)
    loop = asyncio.get_running_loop()
    times = []
    config = UdpConfig(busy_poll=busy_poll)
    async with UdpEngine(config, identity=identity, on_event=on_event) as engine:
        engine.add_peer(Peer(name="echo", public_key=peer.public(), address=address))
        session = await engine.connect("echo", timeout=10)
        for _ in range(count):
            answer = loop.create_future()
            begun = time.perf_counter()
            session.send_state(payload)
            engine.flush()
            times.append((await asyncio.wait_for(answer, 10) - begun) * 1e6)
    return times


def measure_round_trips(count: int, *, busy_poll: bool) -> list[float]:
    """Microseconds from ``send_state`` to the echo's event.

    Args:
        busy_poll: of both engines, each of which has a process and a core of its own here.
    """
    caller, echo = Jwk.generate(), Jwk.generate()
    with peer_process(_echo, echo.to_dict(), caller.public().to_dict(), busy_poll) as pipe:
        return uvloop.run(_call(pipe.recv(), caller, echo, count, busy_poll=busy_poll))

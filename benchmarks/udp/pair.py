"""Two engines in two processes: one sends, the other counts what came and tells the sum when it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.udp.processes import peer_process
from bridge.jose import Jwk
from bridge.udp import MessageReceived, Peer, Session, SessionClosed, UdpConfig, UdpEngine, UdpEvent

WARM_UP = 0.3
"""Seconds in which a session's rate finds the link's."""

Take = Callable[[UdpEvent], int]
"""How many of what is counted an event brought."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a sender's work came to."""

    per_s: float
    loss: float
    """Share of what was sent and not delivered."""


class _Counter:
    """Sums up what events bring and answers a message with the sum."""

    def __init__(self, take: Take) -> None:
        self.engine: UdpEngine | None = None
        self.closed = asyncio.Event()
        self._take = take
        self._sum = 0

    def __call__(self, event: UdpEvent) -> None:
        """Take an event of the engine."""
        if isinstance(event, MessageReceived):
            # Messages are handed over before the states that came with them: count those too.
            asyncio.get_running_loop().call_soon(self._answer)
        elif isinstance(event, SessionClosed):
            self.closed.set()
        else:
            self._sum += self._take(event)

    def _answer(self) -> None:
        assert self.engine is not None
        session = self.engine.session("sender")
        assert session is not None
        session.send_reliable(self._sum.to_bytes(8, "big"))


def _receive(
    pipe: Connection,
    key: dict[str, Any],
    peer_key: dict[str, Any],
    make_take: Callable[[], Take],
    options: dict[str, Any],
) -> None:
    async def main() -> None:
        counter = _Counter(make_take())
        async with UdpEngine(UdpConfig(**options), identity=Jwk.from_dict(key), on_event=counter) as engine:
            counter.engine = engine
            engine.add_peer(Peer(name="sender", public_key=Jwk.from_dict(peer_key), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            await counter.closed.wait()

    uvloop.run(main())


async def _send(
    address: tuple[str, int],
    identity: Jwk,
    peer: Jwk,
    make_send: Callable[[Session], Callable[[], int]],
    *,
    seconds: float,
    out: int,
    options: dict[str, Any],
) -> Delivered:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    def on_event(event: UdpEvent) -> None:
        if isinstance(event, MessageReceived):
            answers.put_nowait(event.payload)

    async with UdpEngine(UdpConfig(**options), identity=identity, on_event=on_event) as engine:
        engine.add_peer(Peer(name="receiver", public_key=peer.public(), address=address))
        session = await engine.connect("receiver", timeout=10)
        send = make_send(session)

        async def run(seconds: float) -> tuple[int, int, float]:
            """What was given, the sum of all that the receiver ever counted, seconds until its answer."""
            given = 0
            begun = time.perf_counter()
            while time.perf_counter() - begun < seconds:
                given += send()
                engine.flush()
                # An acknowledgement is no event, so there is nothing else to wait for.
                while session.states_waiting or session.states_unacknowledged > out:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            session.send_reliable(b"how many")
            counted = int.from_bytes(await asyncio.wait_for(answers.get(), 10), "big")
            return given, counted, time.perf_counter() - begun

        _, before, _ = await run(WARM_UP)
        given, counted, elapsed = await run(seconds)
        return Delivered((counted - before) / elapsed, 1 - (counted - before) / given)


def measure_pair(
    make_send: Callable[[Session], Callable[[], int]],
    make_take: Callable[[], Take],
    *,
    seconds: float,
    out: int,
    **options: Any,
) -> Delivered:
    """What arrives a second.

    Args:
        make_send: called with the session; gives what sends once and tells how many it gave.
        make_take: called in the receiving process.
        out: datagrams whose arrival may be unknown when more is sent: the sender is paced by arrival.
        options: of both engines' configuration.
    """
    sender, receiver = Jwk.generate(), Jwk.generate()
    with peer_process(_receive, receiver.to_dict(), sender.public().to_dict(), make_take, options) as pipe:
        return uvloop.run(
            _send(pipe.recv(), sender, receiver, make_send, seconds=seconds, out=out, options=options)
        )

"""Sealed datagrams a second between two processes over loopback, against plain sendto and recvfrom_into.

Both are measured in the same run, interleaved (A B A B); the ratio is what to compare, the rates move with
whatever else the machine does. The sealed sender holds at most a few batches unacknowledged, so its
rate is one of delivery. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import select
import socket
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bridge.jose import Jwk
from bridge.udp import (
    MAX_STATE_BYTES,
    MessageReceived,
    Peer,
    Session,
    SessionClosed,
    SessionEstablished,
    StateReceived,
    UdpConfig,
    UdpEngine,
    UdpEvent,
)

BATCH = 50
"""States of one batch, each on a stream of its own and filling a datagram."""
BATCHES_OUT = 3
ECHO_STREAM = 60_000
ECHO_BYTES = 128


class Receiver:
    """Counts states, echoes those of one stream, and answers a message with the count."""

    def __init__(self) -> None:
        self.engine: UdpEngine | None = None
        self.count = 0
        self.closed = asyncio.Event()

    def __call__(self, event: UdpEvent) -> None:
        """Take an event of the engine."""
        assert self.engine is not None
        match event:
            case StateReceived(stream=stream, payload=payload):
                if stream == ECHO_STREAM:
                    self._session().send_state(payload, stream)
                    self.engine.flush()
                else:
                    self.count += 1
            case MessageReceived():
                # Messages are handed over before the states that came with them: count those too.
                asyncio.get_running_loop().call_soon(self._answer)
            case SessionClosed():
                self.closed.set()
            case _:
                pass

    def _answer(self) -> None:
        self._session().send_reliable(self.count.to_bytes(8, "big"))

    def _session(self) -> Session:
        assert self.engine is not None
        session = self.engine.session("sender")
        assert session is not None
        return session


def receive_sealed(pipe: Connection, key: dict[str, Any], peer_key: dict[str, Any], offload: bool) -> None:
    """The receiving process."""

    async def main() -> None:
        receiver = Receiver()
        async with UdpEngine(
            UdpConfig(offload=offload), identity=Jwk.from_dict(key), on_event=receiver
        ) as engine:
            receiver.engine = engine
            engine.add_peer(Peer(name="sender", public_key=Jwk.from_dict(peer_key), address=("127.0.0.1", 9)))
            pipe.send(engine.local_address)
            await receiver.closed.wait()

    uvloop.run(main())


class Sender:
    """Waits for echoes, and for the answers to messages."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def __call__(self, event: UdpEvent) -> None:
        """Take an event of the engine."""
        match event:
            case StateReceived(payload=payload) | MessageReceived(payload=payload):
                self.answers.put_nowait(payload)
            case SessionEstablished() | SessionClosed():
                pass
            case _:
                raise RuntimeError(f"unexpected {event}")


async def send_sealed(
    address: tuple[str, int], identity: Jwk, peer: Jwk, *, seconds: float, offload: bool
) -> dict[str, Any]:
    """Measure delivery, then round trips."""
    sender = Sender()
    config = UdpConfig(offload=offload)
    async with UdpEngine(config, identity=identity, on_event=sender) as engine:
        engine.add_peer(Peer(name="receiver", public_key=peer.public(), address=address))
        session = await engine.connect("receiver", timeout=10)
        payload = os.urandom(MAX_STATE_BYTES)
        sent = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            number = -1
            for stream in range(BATCH):
                number = session.send_state(payload, stream)
            engine.flush()
            sent += BATCH
            # An acknowledgement is no event, so there is nothing else to wait for.
            while number - (session.acknowledged_state(BATCH - 1) or 0) > BATCHES_OUT:  # noqa: ASYNC110
                await asyncio.sleep(0)
        session.send_reliable(b"how many")
        delivered = int.from_bytes(await asyncio.wait_for(sender.answers.get(), 10), "big")
        elapsed = time.perf_counter() - begun
        round_trips = []
        for _ in range(1000):
            begun_trip = time.perf_counter()
            session.send_state(payload[:ECHO_BYTES], ECHO_STREAM)
            engine.flush()
            await asyncio.wait_for(sender.answers.get(), 10)
            round_trips.append((time.perf_counter() - begun_trip) * 1e6)
        cuts = statistics.quantiles(round_trips, n=100)
        return {
            "delivered_per_second": delivered / elapsed,
            "lost": sent - delivered,
            "round_trip_us": {"p50": cuts[49], "p99": cuts[98]},
            "offload": engine.uses_offload,
        }


def receive_plain(pipe: Connection) -> None:
    """Count datagrams until a short one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind(("127.0.0.1", 0))
        pipe.send(receiver.getsockname())
        buffer = bytearray(2048)
        count = 0
        while receiver.recvfrom_into(buffer)[0] > 1:
            count += 1
        pipe.send(count)


def send_plain(pipe: Connection, address: tuple[str, int], *, seconds: float) -> float:
    """Datagrams received per second, the sender not paced."""
    datagram = os.urandom(1200)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for _ in range(BATCH):
                sender.sendto(datagram, address)
        elapsed = time.perf_counter() - begun
        while not pipe.poll():
            sender.sendto(b"", address)
            select.select([], [], [], 0.01)
        received: int = pipe.recv()
        return received / elapsed


def measure_plain(seconds: float) -> float:
    """One plain round."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=receive_plain, args=(theirs,))
    child.start()
    rate = send_plain(ours, ours.recv(), seconds=seconds)
    child.join()
    return rate


def measure_sealed(seconds: float, *, offload: bool) -> dict[str, Any]:
    """One sealed round."""
    sender, receiver = Jwk.generate(), Jwk.generate()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(
        target=receive_sealed, args=(theirs, receiver.to_dict(), sender.public().to_dict(), offload)
    )
    child.start()
    result = uvloop.run(send_sealed(ours.recv(), sender, receiver, seconds=seconds, offload=offload))
    child.join()
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="JSON is what is printed in any case")
    arguments = parser.parse_args()
    plain, sealed, unmerged = [], [], []
    for _ in range(arguments.rounds):
        plain.append(measure_plain(arguments.seconds))
        sealed.append(measure_sealed(arguments.seconds, offload=True))
        unmerged.append(measure_sealed(arguments.seconds, offload=False))

    def median(results: list[dict[str, Any]]) -> float:
        return statistics.median(float(result["delivered_per_second"]) for result in results)

    floor = statistics.median(plain)
    print(
        json.dumps(
            {
                "benchmark": "udp",
                "python": platform.python_version(),
                "system": platform.platform(),
                "processors": os.cpu_count(),
                "datagram_bytes": 1200,
                "plain_per_second": round(floor),
                "sealed_per_second": round(median(sealed)),
                "sealed_without_offload_per_second": round(median(unmerged)),
                "ratio_to_plain": round(median(sealed) / floor, 3),
                "ratio_without_offload": round(median(unmerged) / floor, 3),
                "lost": sum(result["lost"] for result in sealed + unmerged),
                "offload": sealed[-1]["offload"],
                "round_trip_us": {
                    name: round(statistics.median(result["round_trip_us"][name] for result in sealed), 1)
                    for name in ("p50", "p99")
                },
            }
        )
    )


if __name__ == "__main__":
    main()

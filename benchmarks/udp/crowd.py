"""Many peers in one process, each an endpoint with a socket of its own: what a server's players are."""

from __future__ import annotations

import heapq
import secrets
import selectors
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

from bridge.jose import Jwk
from bridge.udp import Endpoint, Peer, UdpConfig

OPTIONS: dict[str, Any] = {
    "handshakes_per_second": 1e6,
    "handshake_burst": 1 << 20,
    "max_pending_handshakes": 4096,
    "handshake_timeout": 60.0,
    "handshake_lifetime": 60.0,
    "idle_timeout": 120.0,
    "keepalive_interval": 55.0,
}
"""Of both sides: a thousand handshakes at once are no flood here, and idle sessions are left idle."""

_NEVER = float("inf")


def generate_keys(count: int) -> list[dict[str, Any]]:
    """Private keys of a crowd."""
    return [Jwk.generate().to_dict() for _ in range(count)]


def crowd_peers(keys: list[dict[str, Any]], addresses: list[tuple[str, int]]) -> list[Peer]:
    """The crowd as a server knows it: ``peer0`` and so on."""
    return [
        Peer(name=f"peer{n}", public_key=Jwk.from_dict(key).public(), address=address)
        for n, (key, address) in enumerate(zip(keys, addresses, strict=True))
    ]


class _Member:
    """One endpoint and its socket."""

    def __init__(self, key: dict[str, Any], server: Peer, streams: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.endpoint = Endpoint(
            UdpConfig(**OPTIONS, max_state_streams=streams),
            identity=Jwk.from_dict(key),
            random_bytes=secrets.token_bytes,
            unix_ms=lambda: time.time_ns() // 1_000_000,
            on_pending=lambda: None,
        )
        self.endpoint.add_peer(server)
        self.armed = _NEVER

    def receive(self, buffer: memoryview, now: float) -> None:
        """Take what the socket has."""
        while True:
            try:
                size, source = self.socket.recvfrom_into(buffer)
            except BlockingIOError:
                return
            self.endpoint.receive_datagram(buffer[:size], source, now=now)

    def flush(self, now: float) -> int:
        """Send what is due and take the events; how many states came."""
        for transmit in self.endpoint.datagrams_to_send(now=now):
            for datagram in transmit.datagrams():
                self.socket.sendto(datagram, transmit.address)
        states = 0
        while (event := self.endpoint.next_event()) is not None:
            states += sum(1 for _ in event.states()) if hasattr(event, "states") else 0
        return states


class _Crowd:
    """The loop of a crowd's process."""

    def __init__(self, members: list[_Member]) -> None:
        self._members = members
        self._timers: list[tuple[float, int]] = []
        self._buffer = memoryview(bytearray(65_536))
        self.states = 0

    def turn(self, ready: list[int]) -> None:
        """Take what came for these members, then do what is due for any."""
        now = time.monotonic()
        due = set(ready)
        for n in ready:
            self._members[n].receive(self._buffer, now)
        while self._timers and self._timers[0][0] <= now:
            when, n = heapq.heappop(self._timers)
            member = self._members[n]
            if member.armed == when:
                member.armed = _NEVER
                member.endpoint.handle_timer(now=now)
                due.add(n)
        for n in due:
            member = self._members[n]
            self.states += member.flush(now)
            timer = member.endpoint.get_timer()
            if timer is not None and timer < member.armed:
                member.armed = timer
                heapq.heappush(self._timers, (timer, n))

    def wait(self) -> float | None:
        """Seconds until something is due."""
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None


def run_crowd(
    pipe: Connection, keys: list[dict[str, Any]], server_key: dict[str, Any], streams: int = 16
) -> None:
    """The crowd's process: tells its addresses, then answers ``"states"`` with how many came.

    Args:
        streams: of state that each of it takes.
    """
    server = Peer(name="server", public_key=Jwk.from_dict(server_key), address=("127.0.0.1", 9))
    members = [_Member(key, server, streams) for key in keys]
    crowd = _Crowd(members)
    selector = selectors.EpollSelector()
    selector.register(pipe, selectors.EVENT_READ)
    for n, member in enumerate(members):
        selector.register(member.socket, selectors.EVENT_READ, n)
    pipe.send([member.socket.getsockname() for member in members])
    while True:
        ready = [key.data for key, _ in selector.select(crowd.wait())]
        if None in ready:
            if pipe.recv() != "states":
                return
            pipe.send(crowd.states)
        crowd.turn([n for n in ready if n is not None])

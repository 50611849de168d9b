"""Endpoints on a network in memory with its own clock: no sockets, no sleeping, the same run each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any, TypeVar

from bridge.jose import Jwk
from bridge.udp.conditioner import Conditioner
from bridge.udp.conditions import NetworkConditions
from bridge.udp.config import UdpConfig
from bridge.udp.endpoint import Endpoint
from bridge.udp.events import SessionEstablished, UdpEvent
from bridge.udp.evidence import ProofVerifier
from bridge.udp.keys import derive_session_keys
from bridge.udp.peers import Address, Peer
from bridge.udp.session import Session
from bridge.udp.statistics import DropReason
from bridge.udp.transmit import Transmit
from bridge.udp.wire import (
    MAX_DATAGRAM_BYTES,
)

EPOCH_MS = 1_800_000_000_000
Event = TypeVar("Event", bound=UdpEvent)
Drop = Callable[[bytes, Address, Address], bool]


def single_datagrams(transmits: Iterable[Transmit]) -> list[tuple[bytes, Address]]:
    """Datagrams of all runs, each with its destination."""
    return [(bytes(datagram), run.address) for run in transmits for datagram in run.datagrams()]


@cache
def sorted_keys() -> tuple[Jwk, ...]:
    """Three private keys, lowest thumbprint first."""
    return tuple(sorted((Jwk.generate("P-256") for _ in range(3)), key=lambda key: key.thumbprint_bytes()))


@dataclass(eq=False)
class Host:
    """An endpoint at an address, with everything it told so far."""

    name: str
    key: Jwk
    endpoint: Endpoint
    address: Address
    conditioner: Conditioner
    takes_events: bool = True
    events: list[UdpEvent] = field(default_factory=list)

    def of_type(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def session(self, name: str) -> Session:
        session = self.endpoint.session(name)
        assert session is not None
        return session


class Network:
    """Carries datagrams between hosts and moves the clock to whatever happens next."""

    def __init__(self, *, seed: int = 0) -> None:
        self.now = 100.0
        self.hosts: dict[Address, Host] = {}
        self.log: list[tuple[Address, Address, bytes]] = []
        self.drop: Drop = lambda _datagram, _source, _target: False
        self._seed = seed
        self._random = Random(seed)

    def host(
        self,
        name: str,
        key: Jwk,
        *,
        config: UdpConfig | None = None,
        conditions: NetworkConditions | None = None,
        port: int | None = None,
    ) -> Host:
        address = ("192.0.2.1", port or 1000 + len(self.hosts))
        endpoint = Endpoint(
            config or UdpConfig(),
            identity=key,
            random_bytes=self._random.randbytes,
            unix_ms=lambda: EPOCH_MS + int(self.now * 1000),
        )
        conditioner = Conditioner(
            replace(conditions or NetworkConditions(delay=0.005), seed=self._seed),
            source=f"{len(self.hosts)}",
        )
        host = self.hosts[address] = Host(name, key, endpoint, address, conditioner)
        return host

    def move(self, host: Host, address: Address) -> None:
        """Give a host another address; what is on its way to the old one is lost."""
        del self.hosts[host.address]
        host.address = address
        self.hosts[address] = host

    def crash(self, host: Host) -> None:
        """Take a host away without a word."""
        del self.hosts[host.address]

    def inject(self, datagram: bytes, source: Address, target: Host) -> None:
        target.endpoint.receive_datagram(datagram, source, now=self.now)
        self.settle(target)

    def settle(self, host: Host) -> None:
        """Send what a host has to send and take its events."""
        while True:
            for datagram, target in single_datagrams(host.endpoint.datagrams_to_send(now=self.now)):
                assert len(datagram) <= MAX_DATAGRAM_BYTES
                self.log.append((host.address, target, datagram))
                if not self.drop(datagram, host.address, target):
                    host.conditioner.push(datagram, target, now=self.now)
            if not host.takes_events:
                return
            before = len(host.events)
            while (event := host.endpoint.next_event()) is not None:
                host.events.append(event)
            if len(host.events) == before:
                return

    def run(self, *, until: Callable[[], bool] | None = None, seconds: float = 60.0) -> None:
        """Run until a condition holds, or for a time of the network's own clock.

        With a condition, the time passing first is a failure.
        """
        end = self.now + seconds
        for host in list(self.hosts.values()):
            self.settle(host)
        while until is None or not until():
            due = [timer for host in self.hosts.values() for timer in self._timers(host)]
            if not due or min(due) > end:
                assert until is None, f"nothing more happens, or not within {seconds} s"
                self.now = end
                return
            self.now = max(self.now, min(due))
            for host in list(self.hosts.values()):
                self._step(host)

    def _timers(self, host: Host) -> list[float]:
        timers = (host.endpoint.get_timer(), host.conditioner.get_timer())
        return [timer for timer in timers if timer is not None]

    def _step(self, host: Host) -> None:
        for datagram, target in host.conditioner.pop_due(now=self.now):
            receiver = self.hosts.get(target)
            if receiver is not None:
                receiver.endpoint.receive_datagram(datagram, host.address, now=self.now)
                self.settle(receiver)
        timer = host.endpoint.get_timer()
        if timer is not None and timer <= self.now:
            host.endpoint.handle_timer(now=self.now)
        self.settle(host)


def introduce(*hosts: Host) -> None:
    """Make each host a peer of the others."""
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.endpoint.add_peer(
                    Peer(name=other.name, public_key=other.key.public(), address=other.address)
                )


def make_pair(**config: Any) -> tuple[Network, Host, Host]:
    network = Network()
    low, high, _ = sorted_keys()
    a, b = (
        network.host("a", low, config=UdpConfig(**config)),
        network.host("b", high, config=UdpConfig(**config)),
    )
    introduce(a, b)
    return network, a, b


def established(*hosts: Host) -> Callable[[], bool]:
    return lambda: all(host.of_type(SessionEstablished) for host in hosts)


def drops(host: Host, reason: DropReason) -> int:
    return host.endpoint.statistics().drops.get(reason, 0)


def connected_pair(
    *,
    conditions: NetworkConditions | None = None,
    config: UdpConfig | None = None,
    seed: int = 0,
) -> tuple[Network, Host, Host]:
    """Two hosts, ``a`` (which initiated, and has the lower thumbprint) and ``b``, with a session."""
    network = Network(seed=seed)
    low, high, _ = sorted_keys()
    a = network.host("a", low, config=config, conditions=conditions)
    b = network.host("b", high, config=config, conditions=conditions)
    introduce(a, b)
    a.endpoint.connect("b", now=network.now)
    network.run(until=lambda: bool(a.of_type(SessionEstablished) and b.of_type(SessionEstablished)))
    return network, a, b


def bare_sessions(
    *, config: UdpConfig | None = None, now: float = 100.0, verifier: ProofVerifier | None = None
) -> tuple[Session, Session]:
    """Two sessions with the same keys, without a handshake or an endpoint; signed with a verifier."""
    chosen = config or UdpConfig()
    keys = derive_session_keys(shared_secret=bytes(32), transcript=bytes(32))
    sessions = [
        Session(
            peer=peer,
            session_id=bytes(16),
            config=chosen,
            sending=sending,
            receiving=receiving,
            connection_id=own,
            remote_connection_id=other,
            remote_window=chosen.reliable_window_bytes,
            address=address,
            random_bytes=Random(own).randbytes,
            now=now,
            verifier=verifier,
        )
        for peer, sending, receiving, own, other, address in (
            ("b", keys.initiator, keys.responder, 1, 2, ("192.0.2.1", 1001)),
            ("a", keys.responder, keys.initiator, 2, 1, ("192.0.2.1", 1000)),
        )
    ]
    return sessions[0], sessions[1]

"""Peers: the only keys a handshake is ever checked against."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from bridge.errors import ConfigurationError
from bridge.jose import Jwk

Address = tuple[str, int]
"""Numeric IPv4 or IPv6 address and port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A server this side will talk to, as the homeserver's registry has it.

    Attributes:
        name: how the application calls it.
        public_key: its P-256 key, fetched from the homeserver, never from a datagram.
        address: where to begin, spelled as the kernel does; a session follows its peer when it moves.

    Raises:
        ConfigurationError: an address that is not numeric or that no engine can send to, or a key that is
            private or not on P-256.
    """

    name: str
    public_key: Jwk
    address: Address

    def __post_init__(self) -> None:
        if self.public_key.curve != "P-256":
            raise ConfigurationError(f"the key of peer {self.name} is not on P-256")
        if self.public_key.is_private:
            raise ConfigurationError(f"the key of peer {self.name} is private: give its public() alone")
        try:
            host, port = self.address
        except ValueError as error:
            raise ConfigurationError(
                f"the address of peer {self.name} is not a pair such as ('192.0.2.1', 7000): {self.address!r}"
            ) from error
        if type(port) is not int or not 0 < port <= 0xFFFF:
            raise ConfigurationError(f"the port of peer {self.name} is not 1 … 65535: {port!r}")
        # In another spelling what comes from there would seem to come from elsewhere.
        object.__setattr__(self, "address", (self._spelled(host), port))

    def _spelled(self, host: object) -> str:
        try:
            # A name here would make the kernel's caller wait for a resolver in the middle of a tick.
            numeric = ipaddress.ip_address(host) if isinstance(host, str) else None
        except ValueError:
            numeric = None
        match numeric:
            case None:
                raise ConfigurationError(
                    f"the address of peer {self.name} is not numeric: {host!r}; resolve names before"
                )
            case ipaddress.IPv4Address():
                return str(numeric)
            case ipaddress.IPv6Address(scope_id=None, ipv4_mapped=None):
                return socket.inet_ntop(socket.AF_INET6, numeric.packed)
            case ipaddress.IPv6Address(ipv4_mapped=mapped):
                wanted = f"write {mapped}" if mapped else "link-local addresses do not work"
                raise ConfigurationError(
                    f"the address of peer {self.name} is none that an engine sends to: {host!r}; {wanted}"
                )

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the key."""
        return self.public_key.thumbprint()


class PeerTable:
    """Peers by name and by thumbprint."""

    __slots__ = ("_by_name", "_by_thumbprint", "_maximum")

    def __init__(self, *, maximum: int) -> None:
        self._maximum = maximum
        self._by_name: dict[str, Peer] = {}
        self._by_thumbprint: dict[str, Peer] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, peer: Peer) -> Peer | None:
        """Add a peer, or replace the one of that name.

        Returns:
            The one it replaced.

        Raises:
            ConfigurationError: the table is full, or another name has this key.
        """
        holder = self._by_thumbprint.get(peer.thumbprint)
        if holder is not None and holder.name != peer.name:
            raise ConfigurationError(f"peers {holder.name} and {peer.name} have the same key")
        old = self._by_name.get(peer.name)
        if old is None and len(self._by_name) >= self._maximum:
            raise ConfigurationError(f"more than max_peers={self._maximum} peers")
        if old is not None:
            del self._by_thumbprint[old.thumbprint]
        self._by_name[peer.name] = peer
        self._by_thumbprint[peer.thumbprint] = peer
        return old

    def remove(self, name: str) -> Peer | None:
        """Remove a peer, if it is there."""
        peer = self._by_name.pop(name, None)
        if peer is not None:
            del self._by_thumbprint[peer.thumbprint]
        return peer

    def by_name(self, name: str) -> Peer:
        """The peer of that name.

        Raises:
            ConfigurationError: it was not added.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise ConfigurationError(f"no peer {name!r}: add_peer() first") from None

    def by_thumbprint(self, thumbprint: str) -> Peer | None:
        """The peer with that key, or ``None`` for a stranger."""
        return self._by_thumbprint.get(thumbprint)

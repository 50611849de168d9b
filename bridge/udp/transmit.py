"""What a sans-IO core hands out to be sent: datagrams of one destination, back to back in one buffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

from bridge.udp.peers import Address


class Transmit(NamedTuple):
    """A run of datagrams for one destination, as UDP_SEGMENT takes it.

    Attributes:
        payload: the datagrams back to back, at least one byte.
        segment: bytes of each datagram, at least 1; the last may be shorter.
        address: where all of them go.
    """

    payload: bytes | memoryview
    segment: int
    address: Address

    @classmethod
    def of_one(cls, datagram: bytes | memoryview, address: Address) -> Self:
        """A run of a single datagram."""
        return cls(datagram, len(datagram), address)

    @property
    def datagram_count(self) -> int:
        """How many datagrams the run holds."""
        return -(-len(self.payload) // self.segment)

    def datagrams(self) -> Iterator[bytes | memoryview]:
        """Each datagram in order: slices of the payload, copied only where that is ``bytes``."""
        payload, segment = self.payload, self.segment
        if len(payload) <= segment:
            yield payload
            return
        for start in range(0, len(payload), segment):
            yield payload[start : start + segment]

"""How a connection behaves."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import ConfigurationError
from bridge.etf import DEFAULT_LIMITS, TermLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DistConfig:
    """How a connection behaves."""

    net_ticktime: float = 60.0
    """seconds of silence after which the peer is down; the same on all nodes of a cluster (OTP's default)"""
    max_tick_interval: float = 2.0
    """seconds between ticks at most, however long ``net_ticktime`` is here: a handshake does not tell the
    peer's, and a homeserver, whose is 8 s, takes a side that is silent for longer than 6 s for one that is down"""
    handshake_timeout: float = 7.0
    """seconds for the whole handshake (OTP's ``net_setuptime``)"""
    max_handshake_bytes: int = 2_048
    """bytes of one handshake frame; a name has at most 255 characters"""
    max_packet_bytes: int = 134_217_728
    """bytes of one packet, and of one message that came in fragments; more ends the connection"""
    max_sequences: int = 1_024
    """messages of a peer that are on their way in fragments at once; each is a process of its own"""
    max_held_bytes: int = 536_870_912
    """bytes of all messages on their way in fragments: four of the largest"""
    handshake_length_bytes: int = 2
    """bytes of the length before a handshake frame: 2 over TCP, 4 over TLS"""
    limits: TermLimits = DEFAULT_LIMITS
    """what one received term may ask for"""

    def __post_init__(self) -> None:
        if min(self.net_ticktime, self.max_tick_interval, self.handshake_timeout) <= 0:
            raise ConfigurationError(
                "net_ticktime, max_tick_interval and handshake_timeout are positive seconds"
            )
        if self.handshake_length_bytes not in (2, 4):
            raise ConfigurationError("handshake_length_bytes is 2 (TCP) or 4 (TLS)")
        if min(self.max_packet_bytes, self.max_sequences, self.max_held_bytes) < 1:
            raise ConfigurationError("a limit is at least 1")

    @property
    def tick_interval(self) -> float:
        """Seconds of this side's silence after which it ticks.

        OTP's ``net_kernel`` ticks four times in a ``net_ticktime`` and gives a peer up at the fourth of its own
        ticks in a row before which nothing came: after three quarters of its ``net_ticktime`` at the soonest.
        """
        return min(self.net_ticktime / 4, self.max_tick_interval)

"""Counters of sessions and endpoints, and the reasons for which a datagram is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DropReason(StrEnum):
    """Why a datagram, or a state in it, went no further."""

    MALFORMED = "malformed"
    """Not a datagram of this protocol."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """Sealed for, or a REPLY to, a connection that does not exist."""
    STRANGER = "stranger"
    """A handshake signed by nobody among the peers."""
    HANDSHAKE_RATE = "handshake_rate"
    """More handshakes than may be checked."""
    BAD_BOX = "bad_box"
    """A handshake box that must not be opened."""
    REPLAYED = "replayed"
    """A sequence or handshake that was seen before, or is too old to tell."""
    STALE_HANDSHAKE = "stale_handshake"
    """An INIT issued before the one that made the present session."""
    YIELDED = "yielded"
    """An INIT of a peer whose own gives way to ours: both began at once."""
    FORGED = "forged"
    """A sealed datagram whose tag does not hold."""
    KEY_PHASE = "key_phase"
    """Sealed under another key phase than the present one, and opened by no key of those next to it."""
    CLOSED = "closed"
    """For a session that is over."""
    REASSEMBLY_FULL = "reassembly_full"
    """Reliable bytes behind too many gaps; they come again."""
    STALE_STATE = "stale_state"
    """A state older than the newest of its stream."""
    STATE_STREAMS = "state_streams"
    """A state on one stream more than allowed."""
    UNPROVEN = "unproven"
    """The states of a datagram in a signed session whose proof is missing or does not hold."""
    STATE_OVERFLOW = "state_overflow"
    """A state that the application did not take in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStatistics:
    """One session, since it began. Times in seconds, sizes in bytes of UDP payload."""

    datagrams_sent: int
    datagrams_received: int
    bytes_sent: int
    bytes_received: int
    datagrams_lost: int
    states_superseded: int
    address_changes: int
    rekeys: int
    """Times this side moved on to its next keys."""
    rtt: float | None
    """Smoothed round-trip time; ``None`` before the first sample."""
    rtt_minimum: float | None
    reliable_buffered: int
    """Outgoing reliable bytes not yet acknowledged."""
    reliable_credit: int
    """Reliable bytes the peer would take now."""
    unordered_buffered: int
    """Bytes of outgoing unordered messages not yet acknowledged, and 64 for each."""
    unordered_credit: int
    """Bytes of unordered messages the peer would take now."""
    reassembly_bytes: int
    """Incoming reliable bytes that the application has not taken, of both kinds."""
    signatures_checked: int
    """Of ticks of the peer."""
    congestion_window: int
    rate: float
    """Bytes a second that it may send."""
    loss: float | None
    """Share of datagrams lost when the rate was last looked at; ``None`` before that."""
    paced: int
    """Flushes that left something waiting because of the rate."""
    drops: Mapping[DropReason, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointStatistics:
    """One endpoint, since it began; sums over sessions that ended included."""

    peers: int
    sessions: int
    handshakes_pending: int
    handshakes_checked: int
    """Signatures of handshakes that were checked."""
    retries: int
    """INITs that were answered by a RETRY: under load, or from another address than the first time."""
    signatures_made: int
    """Of ticks with states for signed sessions."""
    datagrams_received: int
    datagrams_sent: int
    drops: Mapping[DropReason, int]

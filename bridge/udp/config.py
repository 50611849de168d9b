"""Limits and timers of datagram sessions, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import ConfigurationError
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
    MESSAGE_PREFIX_BYTES,
)
from bridge.udp.loss import MAX_TRACKED

_SMALLEST_WINDOW_BYTES = 2 * (MAX_MESSAGE_BYTES + MESSAGE_PREFIX_BYTES)
_POSITIVE = (
    "handshake_timeout",
    "handshake_retry",
    "handshake_lifetime",
    "cookie_lifetime",
    "handshakes_per_second",
    "handshake_burst",
    "max_pending_handshakes",
    "max_pending_per_peer",
    "max_peers",
    "idle_timeout",
    "keepalive_interval",
    "acknowledge_every",
    "initial_rtt",
    "min_probe_timeout",
    "signatures_per_second",
    "signature_burst",
    "max_state_streams",
    "max_pending_states",
    "max_flight_datagrams",
    "initial_rate",
    "min_rate",
    "max_rate",
    "max_datagrams_per_key",
    "rekey_after_datagrams",
    "rekey_after",
    "receive_buffer_bytes",
    "send_buffer_bytes",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class UdpConfig:
    """Configuration of a datagram endpoint and its sessions.

    Durations are seconds, sizes bytes.

    Raises:
        ConfigurationError: values that cannot work together.
    """

    host: str = "127.0.0.1"
    """Numeric IPv4 or IPv6 address to bind. Loopback: reaching further is a decision, not a default."""

    port: int = 0
    """UDP port to bind; 0 lets the kernel choose."""

    receive_buffer_bytes: int = 4 << 20
    """Kernel receive buffer asked for: 40 ms at a gigabit, a long pause of a Python process."""

    send_buffer_bytes: int = 4 << 20
    """Kernel send buffer asked for."""

    offload: bool = True
    """Use UDP_SEGMENT and UDP_GRO where the kernel has them."""

    busy_poll: bool = False
    """Look at the socket on every turn of the event loop, which then never sleeps. It takes a core and a
    quarter off a round trip: for an engine in a process of its own."""

    handshake_timeout: float = 5.0
    """From the first datagram to key confirmation. Above any round trip, below a player's patience."""

    handshake_retry: float = 0.25
    """Until an unanswered INIT is sent again; doubled each time, four times."""

    handshake_lifetime: float = 10.0
    """Lifetime written into INIT and REPLY boxes: how long a captured one is worth anything."""

    handshakes_per_second: float = 200.0
    """Signature checks a second that strangers' datagrams can cause: at 0.3 ms each, 6 % of a core."""

    handshake_burst: int = 64
    """Signature checks at once after a quiet time: a server restarting greets all its peers."""

    cookie_lifetime: float = 10.0
    """For how long the cookie of a RETRY is good: whole seconds, above any round trip."""

    max_pending_handshakes: int = 256
    """Handshakes that wait for confirmation, both directions together."""

    max_pending_per_peer: int = 4
    """INITs of one peer that wait for confirmation: more than it has made in ``handshake_timeout``."""

    max_peers: int = 4096
    """Peers that may be added."""

    idle_timeout: float = 10.0
    """Without an authentic datagram for so long, the session is over."""

    keepalive_interval: float = 2.0
    """A session that sent nothing for so long sends a PING: several may be lost before ``idle_timeout``."""

    max_ack_delay: float = 0.025
    """The longest an acknowledgement waits for company: half a tick at 20 Hz. At most 0.25."""

    acknowledge_every: int = 32
    """Acknowledge at the latest after so many datagrams; far below the 1024 that one ACK can name."""

    initial_rtt: float = 0.1
    """Round trip assumed before the first sample."""

    min_probe_timeout: float = 0.02
    """The shortest retransmission timer: below it a scheduler's pause looks like loss."""

    reliable_window_bytes: int = 256 << 10
    """Credit: reliable bytes a peer may have sent that the application has not yet taken."""

    reliable_buffer_bytes: int = 1 << 20
    """Reliable bytes queued or unacknowledged on the sending side; beyond it ``send_reliable`` refuses."""

    signed: bool = False
    """Prove states to third parties, with every peer. A session is signed if either side wants it."""

    keep_evidence: bool = False
    """Hand out each state of a signed session with its evidence: three times the memory of the state."""

    signatures_per_second: float = 1000.0
    """Of one endpoint's ticks, and of those of a peer that are checked, twice as many: 13 % of a core."""

    signature_burst: int = 128
    """Ticks signed at once after a quiet time."""

    max_state_streams: int = 1024
    """State streams of one session in one direction, numbered from 0: each may hold one unsent datagram."""

    max_flight_datagrams: int = 4096
    """Datagrams sent whose arrival or loss is not known; states beyond them wait. At most 8192. Full ones are
    5 MB: what a gigabit path of 40 ms holds. It also ends what a silent peer costs."""

    initial_rate: float = 12.5e6
    """Bytes a second that a session sends at first; doubled until some are lost."""

    min_rate: float = 64e3
    """Bytes a second below which no loss brings a session: twice a peer's share of a scene at 256 kbit/s."""

    max_rate: float = 1.25e9
    """Bytes a second that a session never exceeds: 10 Gbit/s."""

    max_pending_states: int = 4096
    """Received states that wait for the application; then the oldest are dropped: they are the stalest."""

    max_datagrams_per_key: int = 1 << 32
    """Datagrams sealed under one key. With 75 AES blocks each, GCM's advantage stays near 2^-52."""

    rekey_after_datagrams: int = 1 << 24
    """Datagrams sealed under one key before moving on to the next: a few minutes of a fat link."""

    rekey_after: float = 3600.0
    """Seconds after which a key is left behind however little it sealed: what a stolen one is good for."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:  # which no NaN is
                raise ConfigurationError(f"{name} must be above zero")
        if self.rekey_after_datagrams * 2 > self.max_datagrams_per_key:
            raise ConfigurationError("rekey_after_datagrams must be at most half of max_datagrams_per_key")
        if not 0 <= self.port <= 0xFFFF:
            raise ConfigurationError("port must be 0 … 65535")
        if not 0 <= self.max_ack_delay <= 0.25:
            raise ConfigurationError("max_ack_delay must be 0 … 0.25 s")
        if self.handshake_lifetime > 60:
            raise ConfigurationError("handshake_lifetime must be at most 60 s, the limit of a signed box")
        if self.keepalive_interval * 2 > self.idle_timeout:
            raise ConfigurationError("idle_timeout must be at least twice keepalive_interval")
        if self.acknowledge_every > 512:
            raise ConfigurationError("acknowledge_every must be at most 512: an ACK names 1024 datagrams")
        if not _SMALLEST_WINDOW_BYTES <= self.reliable_window_bytes < 1 << 31:
            raise ConfigurationError(f"reliable_window_bytes must be {_SMALLEST_WINDOW_BYTES} … 2^31-1")
        if self.max_flight_datagrams > MAX_TRACKED:
            raise ConfigurationError(f"max_flight_datagrams must be at most {MAX_TRACKED}")
        if not self.min_rate <= self.initial_rate <= self.max_rate:
            raise ConfigurationError("initial_rate must be between min_rate and max_rate")
        if self.max_state_streams > 1 << 16:
            raise ConfigurationError("max_state_streams must be at most 65,536")
        if self.reliable_buffer_bytes < _SMALLEST_WINDOW_BYTES:
            raise ConfigurationError(f"reliable_buffer_bytes must be at least {_SMALLEST_WINDOW_BYTES}")

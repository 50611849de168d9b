"""What the control plane and its data plane say to each other over their socket pair.

Frames: ``u32`` length, then MessagePack of one tagged structure. Both ends are this package at one version,
so the frames are no public protocol; they are typed so that nothing a stranger sent reaches the control
plane except as a field of one of these.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bridge.errors import DecodeError

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""bytes; the report of a long run is the largest frame"""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """First frame: how to run. The answer is ``Ready``."""

    server: str
    run: bytes
    """16 bytes that name this process in records"""
    host: str
    port: int
    capacity: int
    rate_hz: float
    key_file: str | None = None
    signed: bool = False
    record_dir: str | None = None
    """directory where what happens is written as it does (``bridge.authority.recording``)"""
    keep_history: bool = False
    """keep every record in memory for ``Report``, not the newest ones alone"""
    network: str = ""
    """text of ``NetworkConditions`` that what it sends goes through; empty: straight to the kernel"""


class BeginSession(msgspec.Struct, frozen=True, kw_only=True, tag="begin_session"):
    """Act in the name of this session from now on: 16 bytes."""

    session: bytes


class EndSession(msgspec.Struct, frozen=True, kw_only=True, tag="end_session"):
    """Seal nothing more for anything. The answer is ``SessionEnded``."""

    id: int


class FindStreamed(msgspec.Struct, frozen=True, kw_only=True, tag="find_streamed"):
    """Of which of these is the newest state here, and not older than that? The answer is ``Streamed``."""

    id: int
    entities: tuple[str, ...]
    max_age_ns: int


class AddPeer(msgspec.Struct, frozen=True, kw_only=True, tag="add_peer"):
    """A server that the homeserver knows: its key as fetched there, and where it listens (R0-15)."""

    server: str
    session: bytes | None
    key: bytes
    thumbprint: str
    host: str
    port: int


class RemovePeer(msgspec.Struct, frozen=True, kw_only=True, tag="remove_peer"):
    """A server that the homeserver knows no more: its key counts for nothing from now on."""

    server: str


class RaiseFence(msgspec.Struct, frozen=True, kw_only=True, tag="fence"):
    """The homeserver's word on who holds an entity; ``server`` is empty while it is dormant."""

    entity: str
    epoch: int
    server: str


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """Seal the state of a slot from now on, under this epoch."""

    entity: str
    epoch: int
    slot: int


class Follow(msgspec.Struct, frozen=True, kw_only=True, tag="follow"):
    """Keep what other servers tell of an entity in a slot, until this one takes it over."""

    entity: str
    slot: int


class Unfollow(msgspec.Struct, frozen=True, kw_only=True, tag="unfollow"):
    """Keep no more what other servers tell of an entity.

    What its slot has stays, unless that is about to be another one's (``keeps_slot``).
    """

    entity: str
    keeps_slot: bool = True


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """The homeserver has the entity no more: seal, sign and accept nothing of it."""

    entity: str


class CatchUp(msgspec.Struct, frozen=True, kw_only=True, tag="catch_up"):
    """Is everything done that was told before? The answer is ``CaughtUp``."""

    id: int


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Stop sealing, then sign the release for ``to``, if anybody. The answer is ``Sealed``.

    ``linger_ns`` lets a test be a late ex-owner on purpose: records go on under the old epoch for so long.
    """

    id: int
    entity: str
    to: str | None
    linger_ns: int = 0


class OpenRelease(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Verify and open a release of ``giver``. The answer is ``Opened`` or ``Refused``."""

    id: int
    entity: str
    giver: str
    previous: int
    box: str


class SendMessage(msgspec.Struct, frozen=True, kw_only=True, tag="send"):
    """Send an encoded message of ``bridge.authority`` on the reliable stream to a server.

    With ``credited`` set ``Credited`` tells when the server has taken it.
    """

    to: str
    message: bytes
    credited: bool = False


class MakeReport(msgspec.Struct, frozen=True, kw_only=True, tag="make_report"):
    """Wait until nothing reliable is on its way, at most ``drain_seconds``. The answer is ``Report``."""

    id: int
    drain_seconds: float


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """How is the data plane doing? The answer is ``Measured``."""

    id: int


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    """Close the sessions and end."""


Command = (
    Start
    | BeginSession
    | EndSession
    | FindStreamed
    | AddPeer
    | RemovePeer
    | RaiseFence
    | Hold
    | Follow
    | Unfollow
    | Forget
    | CatchUp
    | Stop
    | OpenRelease
    | SendMessage
    | MakeReport
    | Measure
    | Shutdown
)


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The data plane listens; its private key never leaves it."""

    key: bytes
    thumbprint: str
    host: str
    port: int


class Sealed(msgspec.Struct, frozen=True, kw_only=True, tag="sealed"):
    """Nothing more is sealed for the entity; this is the release, where one was asked for."""

    id: int
    box: str | None


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The release holds; ``state`` is the last state, encoded."""

    id: int
    state: bytes


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The command could not be carried out."""

    id: int
    error: str


class SessionEnded(msgspec.Struct, frozen=True, kw_only=True, tag="session_ended"):
    """Nothing is sealed any more."""

    id: int


class CaughtUp(msgspec.Struct, frozen=True, kw_only=True, tag="caught_up"):
    """Everything is done that was told before the question."""

    id: int


class Streamed(msgspec.Struct, frozen=True, kw_only=True, tag="streamed"):
    """Entities of the question whose newest state lies in the shared world."""

    id: int
    entities: tuple[str, ...]


class WentSilent(msgspec.Struct, frozen=True, kw_only=True, tag="went_silent"):
    """The deadline is over: states of what is held are sealed no more, until it is set anew."""

    entities: int
    at_ns: int


class PeerUp(msgspec.Struct, frozen=True, kw_only=True, tag="peer_up"):
    """A session with the server stands."""

    server: str
    signed: bool = False
    """whether the states of both sides are signed"""


class PeerDown(msgspec.Struct, frozen=True, kw_only=True, tag="peer_down"):
    """The session with the server ended, or could not be made; it is tried again."""

    server: str
    reason: str


class PeerMessageReceived(msgspec.Struct, frozen=True, kw_only=True, tag="message"):
    """A message of ``bridge.authority`` from a server, decoded and encoded again by the data plane."""

    server: str
    message: bytes
    at_ns: int


class Credited(msgspec.Struct, frozen=True, kw_only=True, tag="credited"):
    """A server gave credit back for a message: it has taken it."""

    server: str
    message: bytes
    at_ns: int


class FirstAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="first_accepted"):
    """The first state of an entity under an epoch was accepted."""

    server: str
    entity: str
    epoch: int
    at_ns: int


class Fatal(msgspec.Struct, frozen=True, kw_only=True, tag="fatal"):
    """The data plane cannot run; it ends after this."""

    error: str


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """What happened.

    Attributes:
        history: encoded entries of ``bridge.authority.entries``: the newest ones, or all where they are kept.
        verdicts: state records: ``accepted``, ``late``, ``early``, ``foreign``, ``unknown``, ``stale``.
        sent: distinct reliable messages sent, by server.
        received: distinct reliable messages received, by server.
        malformed: payloads of authenticated peers that did not decode.
        dropped: records that were not kept, older than those of ``history``.
        kept: entries of all tables but the records.
    """

    id: int
    history: list[bytes]
    verdicts: dict[str, int]
    sent: dict[str, int]
    received: dict[str, int]
    malformed: int
    dropped: int = 0
    kept: int = 0


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """What metrics tell of the data plane.

    Attributes:
        udp: metrics of its UDP engine, as text for Prometheus.
        verdicts: as of ``Report``.
        malformed: as of ``Report``.
        kept: as of ``Report``.
    """

    id: int
    udp: str
    verdicts: dict[str, int]
    malformed: int
    kept: int


Event = (
    Ready
    | Sealed
    | Opened
    | Refused
    | SessionEnded
    | Streamed
    | CaughtUp
    | WentSilent
    | PeerUp
    | PeerDown
    | PeerMessageReceived
    | Credited
    | FirstAccepted
    | Fatal
    | Report
    | Measured
)

_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(Command)
_event_decoder = msgspec.msgpack.Decoder(Event)


def encode_frame(message: Command | Event) -> bytes:
    """A frame with its length."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_command(body: bytes) -> Command:
    """Body of a frame to the data plane, which trusts its control plane; raises ``msgspec.MsgspecError``."""
    command: Command = _command_decoder.decode(body)
    return command


def decode_event(body: bytes) -> Event:
    """Body of a frame to the control plane.

    Raises:
        DecodeError: it is none.
    """
    try:
        event: Event = _event_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"no frame of a data plane: {error}") from error
    return event

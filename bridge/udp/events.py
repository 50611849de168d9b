"""What an endpoint tells the application: a closed union of frozen events."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.udp.session import Session


class CloseReason(Enum):
    """Why a session ended. Values up to 63 go on the wire in a CLOSE frame; the rest are local."""

    APPLICATION = 0
    """The application closed it."""
    SHUTDOWN = 1
    """The whole endpoint closed."""
    PROTOCOL_ERROR = 2
    """Authentic bytes that the protocol does not allow."""
    KEY_EXHAUSTED = 3
    """As many datagrams as one key may seal; connect again."""
    PEER_REMOVED = 4
    """The peer was removed, or its key changed."""
    UNKNOWN = 63
    """The peer gave a reason that this version does not know."""
    IDLE = 64
    """Nothing authentic came for the idle time-out."""
    DISPLACED = 65
    """A newer session with the same peer was confirmed: one of the two restarted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEstablished:
    """Keys are confirmed both ways; the session takes state and messages."""

    peer: str
    session: Session


@dataclass(frozen=True, kw_only=True, slots=True)
class StateReceived:
    """A state newer than all before on its stream.

    Attributes:
        number: of the state on its stream, 32 bits, wrapping.
        received_at: the ``now`` of the call that brought it, seconds.
        echo_age: seconds since this side sealed the newest time stamp that the sender had seen when it
            sealed this; ``None`` before it saw any. A state from a sender that was frozen has a high age.
    """

    peer: str
    stream: int
    number: int
    payload: bytes
    received_at: float
    echo_age: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageReceived:
    """The next message of the reliable stream, in order, none missing."""

    peer: str
    payload: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionClosed:
    """A session ended.

    Attributes:
        by_peer: whether the peer said so.
        detail: text from the peer, or what this side found wrong; for people.
        undelivered: reliable messages that the peer did not wholly acknowledge, oldest first. It may have
            got some of them, so what carries them again must be safe to repeat.
    """

    peer: str
    reason: CloseReason
    by_peer: bool
    detail: str
    undelivered: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerUnreachable:
    """A handshake this side began was not completed in time."""

    peer: str


UdpEvent = SessionEstablished | StateReceived | MessageReceived | SessionClosed | PeerUnreachable

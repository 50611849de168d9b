"""What an endpoint tells the application: a closed union of frozen events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bridge.udp.evidence import Evidence, EvidenceRun
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
    FAULT = 66
    """This side could not go on, through a fault of its own or of its application: the log has the error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEstablished:
    """Keys are confirmed both ways; the session takes state and messages."""

    peer: str
    session: Session


class StateReceived(NamedTuple):
    """A state newer than all before on its stream.

    Attributes:
        number: which ``send_state`` call of the sender it came from, 32 bits, wrapping.
        received_at: the ``now`` of the call that brought it, seconds.
        echo_age: seconds since this side sealed the newest time stamp that the sender had seen when it
            sealed this; ``None`` before it saw any. A state from a sender that was frozen has a high age.
        evidence: of a signed session whose configuration keeps it; see ``bridge.udp.evidence``.
    """

    peer: str
    stream: int
    number: int
    payload: bytes
    received_at: float
    echo_age: float | None
    evidence: Evidence | None = None

    def states(self) -> Iterator[StateReceived]:
        """The state itself: what a :class:`StatesReceived` gives for many."""
        yield self


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StatesReceived:
    """Many states of one size that came together, each newer than all before on its stream.

    They come so where the sender sent a batch and the kernel merged its datagrams; others come one by one, as
    :class:`StateReceived`. Whoever does not care iterates over :meth:`states` of either.

    Attributes:
        streams: shape (n,).
        numbers: of each state, shape (n,).
        payloads: shape (n, size), the application's own.
        received_at: the ``now`` of the call that brought them, seconds.
        echo_age: of the oldest among them, see :class:`StateReceived`.
        evidence: of each of them, see :class:`StateReceived`.
    """

    peer: str
    streams: npt.NDArray[np.intp]
    numbers: npt.NDArray[np.int64]
    payloads: npt.NDArray[np.uint8]
    received_at: float
    echo_age: float | None
    evidence: EvidenceRun | None = None

    def __len__(self) -> int:
        return len(self.streams)

    def states(self) -> Iterator[StateReceived]:
        """Each of them alone."""
        for row, (stream, number, payload) in enumerate(
            zip(self.streams.tolist(), self.numbers.tolist(), self.payloads, strict=True)
        ):
            yield StateReceived(
                peer=self.peer,
                stream=stream,
                number=number,
                payload=payload.tobytes(),
                received_at=self.received_at,
                echo_age=self.echo_age,
                evidence=None if self.evidence is None else self.evidence[row],
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageReceived:
    """A reliable message.

    Attributes:
        ordered: from ``send_reliable``: the next one, in order, none missing; else from ``send_unordered``,
            as soon as it was whole.
    """

    peer: str
    payload: bytes
    ordered: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionClosed:
    """A session ended.

    Attributes:
        by_peer: whether the peer said so.
        detail: text from the peer, or what this side found wrong; for people.
        undelivered: reliable messages that the peer did not wholly acknowledge, oldest first. It may have
            got some of them, so what carries them again must be safe to repeat.
        undelivered_unordered: likewise those of ``send_unordered``.
    """

    peer: str
    reason: CloseReason
    by_peer: bool
    detail: str
    undelivered: tuple[bytes, ...]
    undelivered_unordered: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerUnreachable:
    """A handshake this side began was not completed in time."""

    peer: str


SessionEvent = StateReceived | StatesReceived | MessageReceived | SessionClosed
"""What a session tells; the end comes last."""
EndpointEvent = SessionEstablished | PeerUnreachable
"""What is of no session, or of one that begins."""
UdpEvent = SessionEvent | EndpointEvent

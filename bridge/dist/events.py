"""What a distribution connection reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.dist.control import ControlMessage
from bridge.dist.flags import DistFlag
from bridge.dist.handshake import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class NameReceived:
    """A peer that dialled us said its name; answer by ``DistConnection.answer_name``."""

    peer: str
    creation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """Both sides proved the cookie; messages may flow."""

    peer: str
    creation: int
    flags: DistFlag


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed:
    """No connection came about; close the socket."""

    failure: Failure
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message; ``payload`` is ``None`` where its kind carries none."""

    control: ControlMessage
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Messages ``{Reference, Result}`` to the process of ``answers_to``, those of one ``receive_data``.

    Attributes:
        answers: the reference's three words as 12 bytes, and the result; in the order in which they came.
    """

    answers: list[tuple[bytes, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The connection ended after it had stood; ``error`` is set when the peer broke the protocol."""

    detail: str
    error: Exception | None = None


DistEvent = NameReceived | Connected | HandshakeFailed | Received | Answered | Disconnected

"""One of two peers that send each other everything a session carries, and check what comes. Sans-IO.

Every message and every state says what it must be: its number, and bytes that follow from it. So the receiver
tells without the sender's help what is missing, repeated, out of order, changed, or older than what it saw.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np

from bridge.errors import LimitExceededError
from bridge.udp import (
    MAX_MESSAGE_BYTES,
    MessageReceived,
    PeerUnreachable,
    Session,
    SessionClosed,
    SessionEstablished,
    StateReceived,
    StatesReceived,
    UdpEvent,
)

STREAMS: Final = 16
_BATCHED: Final = 12
"""streams whose states go as one batch; the others one by one"""
_STATE: Final = struct.Struct(">HQd")
"""stream, number of the tick, when it was made (the sender's clock)"""
_STATE_BYTES: Final = 400
_NUMBER: Final = struct.Struct(">Q")
_MAX_WAITING: Final = 64
"""messages; more of them than the session takes means that it takes none, and then no more are made"""
_MAX_TEXTS: Final = 20
"""violations that are told in words; the rest is counted"""


@dataclass(slots=True)
class Talk:
    """What one side did and saw.

    Attributes:
        violations: what must not happen, in words, the first of them.
        longest_silence: seconds between two states of a stream, at most.
    """

    states_sent: int = 0
    states_seen: int = 0
    ordered_sent: int = 0
    ordered_seen: int = 0
    repeated: int = 0
    """After a session was made anew: the sender could not know what had arrived in the old one."""
    held_back: int = 0
    """Ticks in which the session took no more messages."""
    sessions: int = 0
    longest_silence: float = 0.0
    violations_count: int = 0
    violations: list[str] = field(default_factory=list)

    def violated(self, text: str) -> None:
        """Note what must not happen."""
        self.violations_count += 1
        if len(self.violations) < _MAX_TEXTS:
            self.violations.append(text)


def message(number: int) -> bytes:
    """The message of that number: mostly small, some of many datagrams, a few as large as they may be."""
    body = Random(number)
    size = body.randint(0, 400)
    if number % 600 == 599:
        size = MAX_MESSAGE_BYTES - _NUMBER.size
    elif number % 60 == 59:
        size = 20_000
    return _NUMBER.pack(number) + body.randbytes(size)


class Talker:
    """One side.

    Attributes:
        talk: what it did and saw so far.
        session: the present one.
    """

    def __init__(self) -> None:
        self.talk = Talk()
        self.session: Session | None = None
        self._tick = 0
        self._waiting: deque[bytes] = deque()
        self._may_repeat = False
        self._newest: dict[int, tuple[int, float, float]] = {}

    def send(self, *, now: float, messages: int) -> None:
        """A tick: a state on each stream, and so many new messages, as far as the session takes them."""
        talk = self.talk
        for _ in range(messages if len(self._waiting) < _MAX_WAITING else 0):
            self._waiting.append(message(talk.ordered_sent))
            talk.ordered_sent += 1
        if self.session is None:
            return
        self._tick += 1
        states = [
            _STATE.pack(stream, self._tick, now).ljust(_STATE_BYTES, b"\x5a") for stream in range(STREAMS)
        ]
        batch = np.frombuffer(b"".join(states[:_BATCHED]), np.uint8).reshape(_BATCHED, _STATE_BYTES)
        self.session.send_state(batch)
        for stream in range(_BATCHED, STREAMS):
            self.session.send_state(states[stream], stream)
        talk.states_sent += STREAMS
        while self._waiting:
            try:
                self.session.send_reliable(self._waiting[0])
            except LimitExceededError:
                talk.held_back += 1
                return
            self._waiting.popleft()

    def receive(self, event: UdpEvent, *, now: float) -> None:
        """Take an event and check it."""
        match event:
            case SessionEstablished(session=session):
                self.session = session
                self.talk.sessions += 1
                self._may_repeat = self.talk.sessions > 1
            case SessionClosed(undelivered=undelivered):
                self.session = None
                self._waiting.extendleft(reversed(undelivered))
            case StateReceived() | StatesReceived():
                for state in event.states():
                    self._check_state(state.stream, state.payload, now)
            case MessageReceived(payload=payload):
                self._check_ordered(payload)
            case PeerUnreachable():
                pass

    def _check_state(self, stream: int, payload: bytes, now: float) -> None:
        talk = self.talk
        talk.states_seen += 1
        told, tick, made_at = _STATE.unpack_from(payload)
        if told != stream or payload[_STATE.size :].strip(b"\x5a") or len(payload) != _STATE_BYTES:
            talk.violated(f"stream {stream} brought something else: {payload[: _STATE.size].hex()}")
            return
        newest = self._newest.get(stream)
        if newest is not None:
            last_tick, last_made_at, seen_at = newest
            if tick <= last_tick or made_at < last_made_at:
                talk.violated(f"stream {stream} showed state {tick} after {last_tick}")
            talk.longest_silence = max(talk.longest_silence, now - seen_at)
        self._newest[stream] = (tick, made_at, now)

    def _check_ordered(self, payload: bytes) -> None:
        talk = self.talk
        (number,) = _NUMBER.unpack_from(payload)
        if payload != message(number):
            talk.violated(f"ordered message {number} was changed")
        if number == talk.ordered_seen:
            talk.ordered_seen += 1
            self._may_repeat = False
        elif number < talk.ordered_seen and self._may_repeat:
            talk.repeated += 1
        else:
            talk.violated(f"ordered message {number} came where {talk.ordered_seen} was due")


def compare(talks: Sequence[Talk]) -> list[str]:
    """What two sides tell that does not fit together, or should not be."""
    found = []
    for talk, other, name in zip(talks, reversed(talks), "ab", strict=True):
        found += [f"{name}: {text}" for text in talk.violations]
        if talk.violations_count > len(talk.violations):
            found.append(f"{name}: {talk.violations_count - len(talk.violations)} violations more")
        if talk.ordered_seen != other.ordered_sent:
            found.append(f"{name}: {talk.ordered_seen} of {other.ordered_sent} ordered messages arrived")
        if not talk.states_seen:
            found.append(f"{name}: no state arrived")
    return found

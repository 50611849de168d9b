"""One of two peers that send each other everything a session carries, and check what comes. Sans-IO.

Every message and every state says what it must be: its number, and bytes that follow from it. So the receiver
tells without the sender's help what is missing, repeated, out of order, changed, or older than what it saw.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
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
_HEADER: Final = struct.Struct(">?Q")
"""ordered or not, number"""
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
    unordered_sent: int = 0
    unordered_seen: int = 0
    overtaken: int = 0
    """Unordered messages that came before one with a lower number."""
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


def message(number: int, *, ordered: bool = True) -> bytes:
    """The message of that number: mostly small, some of many datagrams, a few as large as they may be."""
    body = Random(2 * number + ordered)
    size = body.randint(0, 400)
    if number % 600 == 599:
        size = MAX_MESSAGE_BYTES - _HEADER.size
    elif number % 60 == 59:
        size = 20_000
    return _HEADER.pack(ordered, number) + body.randbytes(size)


class _Seen:
    """Which numbers came, in memory that does not grow with them."""

    def __init__(self) -> None:
        self.below = 0
        """all numbers below it came"""
        self.ahead: set[int] = set()
        self.highest = -1

    def __contains__(self, number: int) -> bool:
        return number < self.below or number in self.ahead

    def add(self, number: int) -> None:
        self.highest = max(self.highest, number)
        self.ahead.add(number)
        while self.below in self.ahead:
            self.ahead.remove(self.below)
            self.below += 1


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
        self._ordered: deque[bytes] = deque()
        self._unordered: deque[bytes] = deque()
        self._may_repeat = False
        self._seen = _Seen()
        self._may_repeat_below = 0
        self._newest: dict[int, tuple[int, float, float]] = {}

    def send(self, *, now: float, messages: int) -> None:
        """A tick: a state on each stream, and so many messages of each kind, as the session takes them."""
        talk = self.talk
        for _ in range(messages if len(self._ordered) < _MAX_WAITING else 0):
            self._ordered.append(message(talk.ordered_sent))
            talk.ordered_sent += 1
        for _ in range(messages if len(self._unordered) < _MAX_WAITING else 0):
            self._unordered.append(message(talk.unordered_sent, ordered=False))
            talk.unordered_sent += 1
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
        self._hand_over(self._ordered, self.session.send_reliable)
        self._hand_over(self._unordered, self.session.send_unordered)

    def _hand_over(self, waiting: deque[bytes], send: Callable[[bytes], None]) -> None:
        while waiting:
            try:
                send(waiting[0])
            except LimitExceededError:
                self.talk.held_back += 1
                return
            waiting.popleft()

    def receive(self, event: UdpEvent, *, now: float) -> None:
        """Take an event and check it."""
        match event:
            case SessionEstablished(session=session):
                self.session = session
                self.talk.sessions += 1
                self._may_repeat = self.talk.sessions > 1
                self._may_repeat_below = self._seen.highest + 1
            case SessionClosed(undelivered=ordered, undelivered_unordered=unordered):
                self.session = None
                self._ordered.extendleft(reversed(ordered))
                self._unordered.extendleft(reversed(unordered))
            case StateReceived() | StatesReceived():
                for state in event.states():
                    self._check_state(state.stream, state.payload, now)
            case MessageReceived(payload=payload, ordered=is_ordered):
                self._check_message(payload, ordered=is_ordered)
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

    def _check_message(self, payload: bytes, *, ordered: bool) -> None:
        said, number = _HEADER.unpack_from(payload)
        if said != ordered or payload != message(number, ordered=ordered):
            self.talk.violated(f"{'ordered' if ordered else 'unordered'} message {number} was changed")
        if ordered:
            self._check_ordered(number)
        else:
            self._check_unordered(number)

    def _check_ordered(self, number: int) -> None:
        talk = self.talk
        if number == talk.ordered_seen:
            talk.ordered_seen += 1
            self._may_repeat = False
        elif number < talk.ordered_seen and self._may_repeat:
            talk.repeated += 1
        else:
            talk.violated(f"ordered message {number} came where {talk.ordered_seen} was due")

    def _check_unordered(self, number: int) -> None:
        talk = self.talk
        if number not in self._seen:
            talk.overtaken += number < self._seen.highest
            self._seen.add(number)
            talk.unordered_seen += 1
        elif number < self._may_repeat_below:
            talk.repeated += 1
        else:
            talk.violated(f"unordered message {number} came again")


def missing(talks: Sequence[Talk]) -> list[str]:
    """What one of two sides sent and the other has not seen."""
    found = []
    for talk, other, name in zip(talks, reversed(talks), "ab", strict=True):
        for kind, seen, sent in (
            ("ordered", talk.ordered_seen, other.ordered_sent),
            ("unordered", talk.unordered_seen, other.unordered_sent),
        ):
            if seen != sent:
                found.append(f"{name}: {seen} of {sent} {kind} messages arrived")
        if not talk.states_seen:
            found.append(f"{name}: no state arrived")
    return found


def compare(talks: Sequence[Talk]) -> list[str]:
    """Everything that should not be, of two sides that have come to their end."""
    found = missing(talks)
    for talk, name in zip(talks, "ab", strict=True):
        found += [f"{name}: {text}" for text in talk.violations]
        if talk.violations_count > len(talk.violations):
            found.append(f"{name}: {talk.violations_count - len(talk.violations)} violations more")
    return found

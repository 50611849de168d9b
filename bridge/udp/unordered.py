"""Reliable messages without an order: each is handed over as soon as it is whole.

A lost datagram holds up only the messages it had a part of. As in :mod:`bridge.udp.reliable`, which datagram
carried what is the session's business, memory is bounded on both sides, and credit (the sizes of messages
begun) is given back as the application takes them. Source: docs/protocol.md §5, "Unordered messages".
"""

from __future__ import annotations

from collections import deque
from typing import Final

from bridge.errors import LimitExceededError, ProtocolError
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
    MAX_STREAM_OFFSET,
    Message,
)
from bridge.udp.runs import Runs, add_run, touches

MAX_AHEAD: Final = 1024
"""Messages that may be begun beyond the first one not yet taken: bounds what a receiver remembers."""
MAX_GAPS: Final = 1024
"""Separate runs a receiver keeps; beyond it what fills no gap goes unacknowledged and comes again."""
_OVERHEAD_BYTES: Final = 64
"""Counted for each message beside its bytes, so that a buffer does not hold endlessly many empty ones."""


class _Outgoing:
    """A message that the peer is not known to have."""

    __slots__ = ("payload", "unacknowledged")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.unacknowledged = len(payload)


class UnorderedSender:
    """Sending half. What :meth:`take` gave comes back once, by :meth:`acknowledge` or :meth:`lose`."""

    __slots__ = (
        "_begun",
        "_begun_bytes",
        "_buffer_limit",
        "_limit",
        "_lost",
        "_low_water",
        "_next_number",
        "_offset",
        "_outgoing",
        "_outstanding",
        "buffered",
    )

    def __init__(self, *, credit: int, buffer_limit: int) -> None:
        self._limit = credit
        self._buffer_limit = buffer_limit
        self.buffered = 0
        """Bytes of messages that the peer is not known to have, and 64 for each."""
        self._low_water = 0
        self._next_number = 0  # of the next message written
        self._outgoing: dict[int, _Outgoing] = {}  # by number, rising
        self._begun = 0  # messages of which something was sent; the last may be unfinished
        self._begun_bytes = 0
        self._offset: int | None = None  # how far the unfinished one is
        self._lost: deque[tuple[int, int, int]] = deque()
        self._outstanding = 0  # runs that were taken and did not come back

    @property
    def available_credit(self) -> int:
        """Bytes of further messages that the receiver would take now."""
        return self._limit - self._begun_bytes

    @property
    def in_flight(self) -> bool:
        """Whether something was sent of which nothing is known yet."""
        return self._outstanding > 0

    @property
    def is_blocked(self) -> bool:
        """Whether a message waits and may not begin before the peer says so."""
        return not self.has_pending and self._begun < self._next_number

    @property
    def has_pending(self) -> bool:
        """Whether :meth:`take` would give something."""
        return self._skip_delivered() or self._offset is not None or self._may_begin()

    def _may_begin(self) -> bool:
        number = self._begun
        return (
            number < self._next_number
            and number < self._low_water + MAX_AHEAD
            and len(self._outgoing[number].payload) <= self._limit - self._begun_bytes
        )

    def _skip_delivered(self) -> bool:
        while self._lost and self._lost[0][0] not in self._outgoing:
            self._lost.popleft()
        return bool(self._lost)

    def write(self, message: bytes) -> int:
        """Queue a message.

        Returns:
            Its number, from 0.

        Raises:
            LimitExceededError: above 64 KiB, or the buffer is full: try again once the peer has acknowledged.
        """
        if len(message) > MAX_MESSAGE_BYTES:
            raise LimitExceededError("MAX_MESSAGE_BYTES", MAX_MESSAGE_BYTES, "bytes")
        if self.buffered + len(message) + _OVERHEAD_BYTES > self._buffer_limit:
            raise LimitExceededError("reliable_buffer_bytes", self._buffer_limit, "bytes")
        number = self._next_number
        self._next_number += 1
        self._outgoing[number] = _Outgoing(bytes(message))
        self.buffered += len(message) + _OVERHEAD_BYTES
        return number

    def take(self, max_bytes: int) -> Message | None:
        """The next fragment to send, lost ones first, or ``None``.

        Args:
            max_bytes: of the fragment's own bytes, at least 1.
        """
        if self._skip_delivered():
            number, start, end = self._lost.popleft()
            stop = min(end, start + max_bytes)
            if stop < end:
                self._lost.appendleft((number, stop, end))
        else:
            if self._offset is None:
                if not self._may_begin():
                    return None
                self._begun_bytes += len(self._outgoing[self._begun].payload)
                self._begun += 1
                self._offset = 0
            number, start = self._begun - 1, self._offset
            end = len(self._outgoing[number].payload)
            stop = min(end, start + max_bytes)
            self._offset = None if stop == end else stop
        self._outstanding += 1
        payload = self._outgoing[number].payload
        return Message(number, len(payload), start, payload[start:stop])

    def acknowledge(self, number: int, start: int, end: int) -> None:
        """A fragment arrived."""
        self._outstanding -= 1
        message = self._outgoing.get(number)
        if message is None:
            return
        message.unacknowledged -= end - start
        if message.unacknowledged == 0:
            self._forget(number)

    def lose(self, number: int, start: int, end: int) -> None:
        """A fragment did not arrive: send it again, unless the peer has the message by now."""
        self._outstanding -= 1
        if number in self._outgoing:
            self._lost.append((number, start, end))

    def _forget(self, number: int) -> None:
        self.buffered -= len(self._outgoing.pop(number).payload) + _OVERHEAD_BYTES

    def update(self, low_water: int, limit: int) -> None:
        """Apply a MESSAGE_CREDIT frame; older ones than the newest change nothing.

        Raises:
            ProtocolError: the peer claims messages that were never sent.
        """
        finished = self._begun if self._offset is None else self._begun - 1
        if low_water > finished:
            raise ProtocolError("a message was taken that was never sent")
        self._limit = max(self._limit, limit)
        for number in range(self._low_water, low_water):
            if number in self._outgoing:
                self._forget(number)
        self._low_water = max(self._low_water, low_water)

    def undelivered(self) -> tuple[bytes, ...]:
        """Messages not wholly acknowledged, oldest first. The receiver may have got some of them."""
        return tuple(message.payload for message in self._outgoing.values())


class _Incoming:
    """A message of which parts are missing."""

    __slots__ = ("buffer", "runs")

    def __init__(self, total: int) -> None:
        self.buffer = bytearray(total)
        self.runs: Runs = []


class UnorderedReceiver:
    """Receiving half."""

    __slots__ = (
        "_gaps",
        "_incoming",
        "_ready",
        "_seen_bytes",
        "_taken",
        "_taken_bytes",
        "_whole",
        "_window",
        "low_water",
    )

    def __init__(self, *, window: int) -> None:
        self._window = window
        self.low_water = 0
        """All messages below this number were taken by the application."""
        self._incoming: dict[int, _Incoming] = {}
        self._ready: deque[tuple[int, bytes]] = deque()
        self._whole: set[int] = set()  # numbers at or beyond the low water that are whole, taken or not
        self._taken: set[int] = set()
        self._seen_bytes = 0  # sizes of all messages of which something came
        self._taken_bytes = 0
        self._gaps = 0  # runs in all of _incoming

    @property
    def has_begun(self) -> bool:
        """Whether any message was ever seen."""
        return bool(self.low_water or self._incoming or self._whole)

    @property
    def limit(self) -> int:
        """What the sizes of all messages the peer begins may sum up to."""
        return min(self._taken_bytes + self._window, MAX_STREAM_OFFSET)

    @property
    def buffered(self) -> int:
        """Bytes of memory that messages take, parts still missing included: never above the window."""
        return self._seen_bytes - self._taken_bytes

    @property
    def has_message(self) -> bool:
        """Whether :meth:`next_message` would give one."""
        return bool(self._ready)

    def can_accept(self, fragment: Message) -> bool:
        """Whether :meth:`insert` has room among the runs between gaps."""
        if self._gaps < MAX_GAPS or fragment.offset == 0:
            return True
        incoming = self._incoming.get(fragment.number)
        start = fragment.offset
        return incoming is not None and touches(incoming.runs, start, start + len(fragment.chunk))

    def insert(self, fragment: Message) -> None:
        """Take a fragment that :meth:`can_accept` allowed; of what is there already nothing happens.

        Raises:
            ProtocolError: beyond the credit or the numbers that were granted, or not of the size said before.
        """
        number, total, offset, chunk = fragment
        if number < self.low_water or number in self._whole:
            return
        incoming = self._incoming.get(number)
        if incoming is None:
            if number >= self.low_water + MAX_AHEAD or self._seen_bytes + total > self.limit:
                raise ProtocolError("message beyond the credit granted")
            self._seen_bytes += total
            if len(chunk) == total:
                self._finish(number, chunk)
                return
            incoming = self._incoming[number] = _Incoming(total)
        elif total != len(incoming.buffer):
            raise ProtocolError("message of a size other than was said before")
        end = offset + len(chunk)
        incoming.buffer[offset:end] = chunk
        self._gaps -= len(incoming.runs)
        add_run(incoming.runs, offset, end)
        if incoming.runs == [(0, total)]:
            del self._incoming[number]
            self._finish(number, bytes(incoming.buffer))
        else:
            self._gaps += len(incoming.runs)

    def _finish(self, number: int, payload: bytes) -> None:
        self._whole.add(number)
        self._ready.append((number, payload))

    def next_message(self) -> bytes | None:
        """Hand over a whole message, in the order they became whole, and with it the credit for its bytes."""
        if not self._ready:
            return None
        number, payload = self._ready.popleft()
        self._taken_bytes += len(payload)
        self._taken.add(number)
        while self.low_water in self._taken:
            self._taken.remove(self.low_water)
            self._whole.remove(self.low_water)
            self.low_water += 1
        return payload

"""The reliable stream: length-prefixed messages over an ordered byte stream, with credit in bytes.

Which datagram carried which run of bytes, and which datagrams were lost, is the session's business; the
halves here know offsets only. Memory is bounded on both sides: the sender refuses above its buffer, the
receiver holds at most the window it granted.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from bridge.errors import LimitExceededError, ProtocolError
from bridge.udp.frames import (
    MAX_MESSAGE_BYTES,
    MAX_STREAM_OFFSET,
    MESSAGE_PREFIX_BYTES,
)
from bridge.udp.runs import Runs, add_run

MAX_GAPS: Final = 1024
"""Separate runs a receiver keeps behind gaps; beyond it datagrams go unacknowledged and come again."""


class ReliableSender:
    """Sending half. Offsets count bytes since the session began."""

    __slots__ = (
        "_base",
        "_buffer",
        "_buffer_limit",
        "_ends",
        "_lost",
        "_sent",
        "_window",
        "acknowledged",
        "buffered",
        "credit",
    )

    def __init__(self, *, credit: int, buffer_limit: int) -> None:
        self.credit = credit
        """Offset up to which the receiver has room."""
        self.acknowledged = 0
        """Offset up to which the receiver has everything."""
        self.buffered = 0
        """Bytes held: unsent, unacknowledged, and the rest of a message acknowledged in part."""
        self._window = credit  # what it takes beyond what its application has taken
        self._buffer_limit = buffer_limit
        self._base = 0  # offset of _buffer[0]: start of the oldest message not wholly acknowledged
        self._buffer = bytearray()
        self._ends: deque[int] = deque()  # end offset of each message in _buffer
        self._sent = 0  # offset of the first byte never sent
        self._lost: Runs = []  # to send again

    @property
    def available_credit(self) -> int:
        """Bytes the receiver would take now."""
        return self.credit - self._sent

    @property
    def end(self) -> int:
        """Offset behind the last message written."""
        return self._base + len(self._buffer)

    @property
    def taken(self) -> int:
        """Offset up to which the receiver's application has taken messages, as its credit tells."""
        return self.credit - self._window

    @property
    def in_flight(self) -> bool:
        """Whether bytes were sent that the receiver has not confirmed."""
        return self._sent > self.acknowledged

    @property
    def is_blocked(self) -> bool:
        """Whether bytes wait and there is no credit for a single one."""
        return not self._lost and self._sent == self.credit and self._sent < self._base + len(self._buffer)

    @property
    def has_pending(self) -> bool:
        """Whether :meth:`take` would give something."""
        return bool(self._lost) or self._sent < min(self.credit, self._base + len(self._buffer))

    def write(self, message: bytes) -> None:
        """Queue a message.

        Raises:
            LimitExceededError: above 64 KiB, or the buffer is full: try again once the peer has acknowledged.
        """
        if len(message) > MAX_MESSAGE_BYTES:
            raise LimitExceededError("MAX_MESSAGE_BYTES", MAX_MESSAGE_BYTES, "bytes")
        size = MESSAGE_PREFIX_BYTES + len(message)
        if self.buffered + size > self._buffer_limit:
            raise LimitExceededError("reliable_buffer_bytes", self._buffer_limit, "bytes")
        self._buffer += len(message).to_bytes(MESSAGE_PREFIX_BYTES, "big")
        self._buffer += message
        self.buffered += size
        self._ends.append(self._base + self.buffered)

    def take(self, max_bytes: int) -> tuple[int, bytes] | None:
        """The next run to send, lost ones first: ``(offset, chunk)``, or ``None``."""
        if self._lost:
            start, end = self._lost[0]
            stop = min(end, start + max_bytes)
            if stop == end:
                del self._lost[0]
            else:
                self._lost[0] = (stop, end)
        else:
            start = self._sent
            stop = min(self.credit, self._base + len(self._buffer), start + max_bytes)
            if stop <= start:
                return None
            self._sent = stop
        return start, bytes(memoryview(self._buffer)[start - self._base : stop - self._base])

    def lose(self, start: int, end: int) -> None:
        """A run did not arrive: send it again, unless a later copy did."""
        start = max(start, self.acknowledged)
        if start < end:
            add_run(self._lost, start, end)

    def update(self, received: int, limit: int) -> None:
        """Apply a CREDIT frame; older ones than the newest change nothing.

        Raises:
            ProtocolError: the peer claims bytes that were never sent.
        """
        if received > self._sent:
            raise ProtocolError("acknowledgement of bytes that were never sent")
        self.credit = max(self.credit, limit)
        if received <= self.acknowledged:
            return
        self.acknowledged = received
        base = self._base
        while self._ends and self._ends[0] <= received:
            base = self._ends.popleft()
        if base > self._base:
            del self._buffer[: base - self._base]
            self._base = base
            self.buffered = len(self._buffer)
        self._lost = [(max(start, received), end) for start, end in self._lost if end > received]

    def undelivered(self) -> tuple[bytes, ...]:
        """Messages not wholly acknowledged, oldest first. The receiver may have got some of them."""
        start = 0
        messages = []
        for end in self._ends:
            messages.append(bytes(self._buffer[start + MESSAGE_PREFIX_BYTES : end - self._base]))
            start = end - self._base
        return tuple(messages)


class ReliableReceiver:
    """Receiving half."""

    __slots__ = ("_buffer", "_runs", "_taken", "_taken_in_buffer", "_window")

    def __init__(self, *, window: int) -> None:
        self._window = window
        self._taken = 0  # offset of _buffer[0]: everything before it went to the application
        self._buffer = bytearray()
        self._runs: Runs = []  # present at or beyond _taken

    @property
    def received(self) -> int:
        """Offset up to which there is no gap."""
        if self._runs and self._runs[0][0] == self._taken:
            return self._runs[0][1]
        return self._taken

    @property
    def limit(self) -> int:
        """Offset up to which the sender may send."""
        return min(self._taken + self._window, MAX_STREAM_OFFSET)

    @property
    def buffered(self) -> int:
        """Bytes of memory the stream takes, gaps included: never above the window."""
        return len(self._buffer)

    def can_accept(self, offset: int, length: int) -> bool:
        """Whether :meth:`insert` has room among the runs behind gaps.

        Raises:
            ProtocolError: beyond the credit that was granted.
        """
        if offset + length > self.limit:
            raise ProtocolError("reliable bytes beyond the credit granted")
        return len(self._runs) < MAX_GAPS or offset <= self.received

    def insert(self, offset: int, chunk: bytes) -> None:
        """Take a run that :meth:`can_accept` allowed; what is there already is kept."""
        end = offset + len(chunk)
        if offset < self._taken:
            chunk = chunk[self._taken - offset :]
            offset = self._taken
        if offset >= end:
            return
        start_index, end_index = offset - self._taken, end - self._taken
        if start_index == len(self._buffer):
            self._buffer += chunk
        else:
            if end_index > len(self._buffer):
                self._buffer += bytes(end_index - len(self._buffer))
            self._buffer[start_index:end_index] = chunk
        add_run(self._runs, offset, end)

    def next_message(self) -> bytes | None:
        """Hand over the next whole message, and with it the credit for its bytes.

        Raises:
            ProtocolError: a message that claims more than 64 KiB.
        """
        available = self.received - self._taken
        if available < MESSAGE_PREFIX_BYTES:
            return None
        length = int.from_bytes(self._buffer[:MESSAGE_PREFIX_BYTES], "big")
        if length > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"reliable message of {length} bytes; at most {MAX_MESSAGE_BYTES}")
        end = MESSAGE_PREFIX_BYTES + length
        if available < end:
            return None
        message = bytes(self._buffer[MESSAGE_PREFIX_BYTES:end])
        del self._buffer[:end]
        self._taken += end
        if self._runs[0][1] == self._taken:
            del self._runs[0]
        else:
            self._runs[0] = (self._taken, self._runs[0][1])
        return message

"""When to tell the peer what came from it, and the frames that do: ACK, and the credit for messages."""

from __future__ import annotations

import math
from typing import Final

from bridge.udp.columns import Columns, Row
from bridge.udp.config import UdpConfig
from bridge.udp.frames import (
    MessageCredit,
    encode_ack,
    encode_credit,
    encode_frame,
)
from bridge.udp.reliable import ReliableReceiver
from bridge.udp.replay import ReplayWindow
from bridge.udp.unordered import MAX_AHEAD, UnorderedReceiver

ACK_AT_ONCE: Final = 512
"""Datagrams in one receive batch after which an ACK is sealed without waiting for the batch to end."""
SOONEST: Final = 0.001
"""Seconds that what is acknowledged has waited at least when an ACK rides along with other frames."""


class Acknowledger:
    """Acknowledgements of one session.

    Attributes:
        is_due: whether one is to go now.
        due_at: when one is to go at the latest; ``None`` where nothing waits for it.
        waiting: datagrams that came since the last.
    """

    __slots__ = (
        "_config",
        "_credit_granted",
        "_messages_granted",
        "_reliable",
        "_replay",
        "_row",
        "_spare",
        "_unordered",
        "due_at",
        "is_due",
        "waiting",
    )

    def __init__(
        self,
        config: UdpConfig,
        *,
        replay: ReplayWindow,
        reliable: ReliableReceiver,
        unordered: UnorderedReceiver,
        row: Row | None = None,
    ) -> None:
        """Begin with nothing to tell.

        Args:
            row: of its session; ``None`` for one of its own.
        """
        self._config = config
        self._replay = replay
        self._reliable = reliable
        self._unordered = unordered
        self._credit_granted = reliable.limit
        self._messages_granted = MessageCredit(0, unordered.limit)
        # Seconds before it is due from which on it rides along.
        self._spare = max(0.0, config.max_ack_delay - SOONEST)
        self._row = row or Row(Columns())
        self.is_due = False
        self.due_at: float | None = None
        self.waiting = 0

    def note(self, *, urgent: bool, now: float, count: int = 1) -> bool:
        """So many datagrams came that want an answer; whether it cannot wait for the batch's end."""
        self.waiting += count
        if urgent or self.waiting >= self._config.acknowledge_every:
            self._come_due()
        elif self.due_at is None:
            self.due_at = now + self._config.max_ack_delay
            if not self.is_due:
                self._row.columns.acks_from[self._row.index] = self.due_at - self._spare
        return self.waiting >= ACK_AT_ONCE

    def rides(self, *, now: float) -> bool:
        """Whether to go along with what is sent now anyway.

        Where datagrams go back and forth within a millisecond, most of them need not carry it.
        """
        return now >= self._row.columns.acks_from[self._row.index]

    def _come_due(self) -> None:
        self.is_due = True
        self._row.columns.acks_from[self._row.index] = -math.inf

    def handle_timer(self, *, now: float) -> None:
        """Let what has waited long enough go."""
        if self.due_at is not None and now >= self.due_at:
            self._come_due()

    def message_taken(self) -> bool:
        """The application took a message; whether its credit is to be given back at once.

        It goes with an acknowledgement that waits; where that has gone already, nothing else would carry it.
        """
        low_water, limit = self._messages_granted
        half = self._config.reliable_window_bytes // 2
        if (
            self.due_at is None
            or self._reliable.limit - self._credit_granted > half
            or self._unordered.limit - limit > half
            or self._unordered.low_water - low_water > MAX_AHEAD // 2
        ):
            self._come_due()
        return self.is_due

    def frames(self) -> bytes:
        """What there is to tell, which is then told; empty where nothing ever came."""
        frames = self.peek()
        self.told()
        return frames

    def peek(self) -> bytes:
        """What :meth:`frames` would give."""
        largest, bits = self._replay.acknowledgement()
        if largest < 0:
            return b""
        frames = encode_ack(largest, bits) + encode_credit(self._reliable.received, self._reliable.limit)
        if self._unordered.has_begun:
            frames += encode_frame(MessageCredit(self._unordered.low_water, self._unordered.limit))
        return frames

    def told(self) -> None:
        """What :meth:`peek` gave goes."""
        self.is_due = False
        self.due_at = None
        self._row.columns.acks_from[self._row.index] = math.inf
        self.waiting = 0
        self._credit_granted = self._reliable.limit
        if self._unordered.has_begun and self._replay.largest >= 0:
            self._messages_granted = MessageCredit(self._unordered.low_water, self._unordered.limit)

"""Messages on their way out, both kinds side by side: what of them goes into a datagram, what goes again."""

from __future__ import annotations

from typing import Final

from bridge.udp.draft import Draft
from bridge.udp.frames import MESSAGE_HEADER_BYTES, RELIABLE_HEADER_BYTES, Reliable, encode_frame
from bridge.udp.loss import Carried
from bridge.udp.reliable import ReliableSender
from bridge.udp.unordered import UnorderedSender

_SMALLEST_CHUNK: Final = 64
"""Bytes of room below which a part of a message goes into a datagram of its own."""


class OutgoingMessages:
    """Messages of one session, until they are known to have arrived.

    Attributes:
        reliable: the ordered stream.
        unordered: messages without an order.
        may_be_held: where it is false, none is; where not, :meth:`are_held` tells. Most datagrams go while
            none is, so that their way asks for this first.
    """

    __slots__ = ("_prefers_unordered", "may_be_held", "reliable", "unordered")

    def __init__(self, *, credit: int, buffer_limit: int) -> None:
        """Begin with none.

        Args:
            credit: bytes of either kind that the peer takes before it grants more.
            buffer_limit: bytes of either kind that are held at most.
        """
        self.reliable = ReliableSender(credit=credit, buffer_limit=buffer_limit)
        self.unordered = UnorderedSender(credit=credit, buffer_limit=buffer_limit)
        self.may_be_held = False
        self._prefers_unordered = False  # whose turn it is, where both kinds wait

    def write_ordered(self, message: bytes) -> None:
        """Queue a message for the ordered stream.

        Raises:
            LimitExceededError: as :meth:`bridge.udp.reliable.ReliableSender.write`.
        """
        self.reliable.write(message)
        self.may_be_held = True

    def write_unordered(self, message: bytes) -> None:
        """Queue a message without an order.

        Raises:
            LimitExceededError: as :meth:`bridge.udp.unordered.UnorderedSender.write`.
        """
        self.unordered.write(message)
        self.may_be_held = True

    def are_held(self) -> bool:
        """Whether any are, sent or not."""
        self.may_be_held = bool(self.reliable.buffered or self.unordered.buffered)
        return self.may_be_held

    @property
    def has_pending(self) -> bool:
        """Whether :meth:`put` would find something, given room."""
        return self.reliable.has_pending or self.unordered.has_pending

    @property
    def are_waited_for(self) -> bool:
        """Whether it is the peer's turn: to acknowledge some, or to grant credit for the first of them."""
        return (
            self.reliable.in_flight
            or self.unordered.in_flight
            or (
                self.may_be_held
                and self.are_held()
                and (self.reliable.is_blocked or self.unordered.is_blocked)
            )
        )

    def put(self, draft: Draft) -> bool:
        """Add messages, or parts of them, of whichever kind waits, in turn; whether any found room."""
        before = draft.size
        for unordered in (self._prefers_unordered, not self._prefers_unordered):
            if unordered:
                self._put_unordered(draft)
            else:
                self._put_ordered(draft)
        self._prefers_unordered = not self._prefers_unordered
        return draft.size > before

    def _put_ordered(self, draft: Draft) -> None:
        room = draft.room - RELIABLE_HEADER_BYTES
        taken = self.reliable.take(room) if draft.run is None and room >= _SMALLEST_CHUNK else None
        if taken is not None:
            offset, chunk = taken
            draft.run = (offset, offset + len(chunk))
            draft.add(encode_frame(Reliable(offset, chunk)))

    def _put_unordered(self, draft: Draft) -> None:
        while (room := draft.room - MESSAGE_HEADER_BYTES) >= _SMALLEST_CHUNK:
            fragment = self.unordered.take(room)
            if fragment is None:
                return
            draft.fragments.append((fragment.number, fragment.offset, fragment.offset + len(fragment.chunk)))
            draft.add(encode_frame(fragment))

    def lose(self, carried: Carried) -> None:
        """A datagram with parts of some did not arrive: they go again."""
        if carried.run is not None:
            self.reliable.lose(*carried.run)
        for fragment in carried.fragments:
            self.unordered.lose(*fragment)

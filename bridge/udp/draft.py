"""A datagram being filled: its frames so far, and what of them somebody wants to know the fate of."""

from __future__ import annotations

from bridge.udp.loss import Carried
from bridge.udp.wire import (
    MAX_FRAMES_BYTES,
)


class Draft:
    """Frames of one datagram that is not sealed yet.

    Attributes:
        pieces: encoded frames.
        size: bytes of them together.
        run: bytes of the ordered stream in it, start and end offset.
        fragments: parts of unordered messages in it: number, start and end offset.
        states: (stream, number) of each.
        is_pinging: whether it asks for an acknowledgement for its own sake.
    """

    __slots__ = ("fragments", "is_pinging", "pieces", "run", "size", "states")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.run: tuple[int, int] | None = None
        self.fragments: list[tuple[int, int, int]] = []
        self.states: list[tuple[int, int]] = []
        self.is_pinging = False

    @property
    def room(self) -> int:
        """Bytes that frames may still take."""
        return MAX_FRAMES_BYTES - self.size

    def add(self, piece: bytes) -> None:
        """Append an encoded frame, or part of one."""
        self.pieces.append(piece)
        self.size += len(piece)

    @property
    def is_reliable(self) -> bool:
        """Whether something in it has to be sent again if it is lost."""
        return self.run is not None or bool(self.fragments)

    @property
    def carried(self) -> Carried | None:
        """What is to be remembered of it; ``None`` where it will not be acknowledged."""
        if not self.is_reliable:
            return Carried(None, tuple(self.states)) if self.states or self.is_pinging else None
        return Carried(self.run, tuple(self.states), None, tuple(self.fragments))

"""What waits to be written: small messages at once, large ones in fragments behind them.

Source: Erlang "External Term Format", section "Distribution Header for fragmented messages"; the order of
signals: "Processes", section "Signals", of the Erlang reference manual.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from bridge.etf import Atom, Pid, Reference

LARGE: Final = 65_536
"""bytes of a payload above which it goes in fragments; also the payload of one fragment, as OTP's"""
PORTION: Final = 262_144
"""bytes of large messages that ``take`` gives at once: what a small message waits for at most"""

_FIRST: Final = struct.Struct(">IBBQQB")
_NEXT: Final = struct.Struct(">IBBQQ")
_FIRST_BYTES: Final = _FIRST.size - 4
_NEXT_BYTES: Final = _NEXT.size - 4

Address = Pid | Atom | Reference
"""whom a message is for: a process, a name or an alias"""


@dataclass(slots=True)
class _Waiting:
    """A message in the queue: ``control`` and ``payload`` in fragments, or one packet behind a large one."""

    to: Address | None
    sequence: int
    control: bytes
    payload: bytes
    sent: int = 0


class Outbox:
    """Bytes of one connection that were not taken yet.

    Attributes:
        ready: packets that go out before anything else.
    """

    def __init__(self) -> None:
        self.ready: list[bytes] = []
        self._ready_bytes = 0
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._addresses: Counter[Address] = Counter()
        self._sequence = 0

    @property
    def bytes_at_once(self) -> int:
        """Bytes that ``take`` gives next."""
        return self._ready_bytes + min(self._waiting_bytes, PORTION)

    @property
    def waiting(self) -> int:
        """How many messages wait: large ones, and those behind them."""
        return len(self._waiting)

    def put(self, packet: bytes) -> int:
        """Add what goes out next; gives the bytes that do."""
        self.ready.append(packet)
        size = self._ready_bytes = self._ready_bytes + len(packet)
        return size

    def must_wait(self, to: Address) -> bool:
        """Whether a message to ``to`` has to keep its place behind one that waits.

        A process may be reached by pid, name and alias alike, so one kind of address waits for the others.
        """
        return any(to == address or type(to) is not type(address) for address in self._addresses)

    def put_behind(self, packet: bytes, to: Address) -> None:
        """Add a packet that must not overtake what waits."""
        self._wait(_Waiting(to, 0, packet, b""))

    def put_large(self, control: bytes, payload: bytes, to: Address | None) -> None:
        """Add a message that goes in fragments; ``to`` is ``None`` where later ones may overtake it.

        Args:
            control: encoded without 131.
            payload: encoded without 131.
            to: whom it is for.
        """
        self._sequence += 1
        self._wait(_Waiting(to, self._sequence, control, payload))

    def take(self, portion: int | None = PORTION) -> list[bytes]:
        """What to write now; of what waits ``portion`` bytes, to the end of a fragment, or all (``None``)."""
        chunks = self.ready
        self.ready = []
        self._ready_bytes = 0
        if self._waiting:
            pieces: list[bytes | memoryview] = []
            left = self._waiting_bytes if portion is None else portion
            while left > 0 and self._waiting:
                left -= self._step(self._waiting[0], pieces)
            if pieces:
                chunks.append(b"".join(pieces))
        return chunks

    def clear(self) -> None:
        """The connection ended: what waits is not sent."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._addresses.clear()

    def _wait(self, message: _Waiting) -> None:
        self._waiting.append(message)
        self._waiting_bytes += len(message.control) + len(message.payload)
        if message.to is not None:
            self._addresses[message.to] += 1

    def _step(self, message: _Waiting, pieces: list[bytes | memoryview]) -> int:
        """Add the next fragment to ``pieces``; its bytes without the header."""
        size = len(message.payload)
        start = message.sent
        end = min(start + LARGE, size)
        number = -(-(size - start) // LARGE)
        taken = end - start
        if not message.sequence:
            pieces.append(message.control)
            taken = len(message.control)
        else:
            if start:
                length = _NEXT_BYTES + taken
                pieces.append(_NEXT.pack(length, 131, 70, message.sequence, number))
            else:
                length = _FIRST_BYTES + len(message.control) + taken
                pieces.append(_FIRST.pack(length, 131, 69, message.sequence, number, 0))
                pieces.append(message.control)
                taken += len(message.control)
            pieces.append(memoryview(message.payload)[start:end])
        message.sent = end
        self._waiting_bytes -= taken
        if end == size:
            self._waiting.popleft()
            if message.to is not None:
                self._addresses[message.to] -= 1
                if not self._addresses[message.to]:
                    del self._addresses[message.to]
        return taken

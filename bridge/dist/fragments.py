"""Messages that come in fragments, put together without a pause for the event loop.

Source: Erlang "External Term Format", section "Distribution Header for fragmented messages". The first
fragment holds the whole control message; the others come in order, among those of other senders.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from bridge.dist.headers import Atoms
from bridge.errors import DecodeError, PeerLimitError
from bridge.etf import Decoding, Reference, TermLimits, decode_bare_untrusted

_TAIL_WITHIN: Final = 131_072
"""bytes of a first fragment that are looked through for a binary that goes on; OTP's has 64 KiB"""

_PAIR_BYTES: Final = 1_100
"""bytes that the beginning of a pair has up to the end of a reference: its node's name has 1,023 at the most"""


class FragmentedMessage:
    """One message on its way.

    Args:
        control: its control tuple.
        atoms: the table of its header.
        fragment: number of its first fragment, which is how many there are.
        data: the payload in that fragment.
        limits: what the payload may ask for.

    Attributes:
        control: as given.
        size: bytes of the payload so far.
        expected: bytes that it will have, or 0 where only its end tells.
        left: number of the next fragment; 0: it is whole.
    """

    __slots__ = (
        "_atoms",
        "_first",
        "_heads",
        "_limits",
        "_stream",
        "_tail",
        "control",
        "expected",
        "left",
        "size",
    )

    def __init__(self, control: Any, atoms: Atoms, fragment: int, data: bytes, limits: TermLimits) -> None:
        self.control = control
        self.left = fragment - 1
        self.size = len(data)
        self.expected = 0
        self._atoms = atoms
        self._limits = limits
        self._heads: list[list[Any]] = []
        self._tail = 0
        start = self._find_tail(data) if self.left and len(data) <= _TAIL_WITHIN else 0
        self._first = data[start:]
        self._stream: BytesIO | None = None

    def add(self, data: memoryview) -> None:
        """Take the next fragment."""
        self.left -= 1
        self.size += len(data)
        (self._stream or self._open()).write(data)

    def payload_untrusted(self) -> Any:
        """The payload of a whole message.

        Raises:
            DecodeError: no term, or something follows it.
            PeerLimitError: over one of the limits.
        """
        if not self.expected:
            decoding = self.decoding()
            while not decoding.step_untrusted():
                pass
            return decoding.value
        if self.size < self.expected:
            raise DecodeError(f"a payload of {self.expected} bytes came with {self.size}")
        value: Any = (self._stream or self._open()).getvalue()
        for head in reversed(self._heads):
            value = (*head, value)
        return value

    def answered(self) -> Reference | None:
        """The reference of a payload ``{Reference, Result}`` that is not decoded, or ``None`` of another."""
        start = bytes((self._stream or self._open()).getbuffer()[:_PAIR_BYTES])
        if not start.startswith(b"h\x02Z"):
            return None
        try:
            reference, _ = decode_bare_untrusted(start, 2, self._limits, self._atoms)
        except DecodeError:
            return None
        return reference if type(reference) is Reference else None

    def decoding(self) -> Decoding:
        """The same in steps, of a message whose size is not ``expected``."""
        return Decoding((self._stream or self._open()).getvalue(), self._limits, self._atoms)

    def _open(self) -> BytesIO:
        # Written into, BytesIO holds one bytes object that it gives away in the end, so nothing copies all of
        # it. A known size is asked for at once, since growing may move what is there: 10 to 30 ms in one step
        # for 64 MiB. Zeros that are asked for in one piece cost nothing until they are written to.
        self._stream = BytesIO(bytes(self._tail))
        self._stream.write(self._first)
        self._first = b""
        return self._stream

    def _find_tail(self, data: bytes) -> int:
        """Where in the first fragment a binary starts that ends the payload, or 0.

        What is large is mostly a binary at the end of a small tuple, an answer say. Collected alone it
        need not be cut out of the whole, which takes 30 ms for 64 MiB, and its size is known.
        """
        heads: list[list[Any]] = []
        at = 0
        try:
            while data[at] == 104 and data[at + 1] and len(heads) < self._limits.max_depth:  # SMALL_TUPLE_EXT
                arity = data[at + 1]
                at += 2
                head: list[Any] = []
                for _ in range(arity - 1):
                    value, at = decode_bare_untrusted(data, at, self._limits, self._atoms)
                    head.append(value)
                heads.append(head)
            # BINARY_EXT; a shorter one than what is here ends in this fragment, and more follows it
            if data[at] != 109 or int.from_bytes(data[at + 1 : at + 5], "big") <= len(data) - at - 5:
                return 0
        except (DecodeError, IndexError):
            return 0
        if len(data) < at + 5:
            return 0
        self._heads = heads
        self._tail = int.from_bytes(data[at + 1 : at + 5], "big")
        self.expected = at + 5 + self._tail
        return at + 5


class Assembler:
    """All messages of one connection that are on their way, within limits.

    Args:
        max_message_bytes: of one payload.
        max_sequences: messages at once.
        max_held_bytes: of the payloads of all of them, as far as they have come or are announced.
    """

    def __init__(self, *, max_message_bytes: int, max_sequences: int, max_held_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_sequences = max_sequences
        self._max_held_bytes = max_held_bytes
        self._messages: dict[int, FragmentedMessage] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def start(self, sequence: int, message: FragmentedMessage) -> FragmentedMessage | None:
        """Take a first fragment; gives the message where it is the only one.

        Raises:
            DecodeError: the sequence is under way already, or the fragment has number 0.
            PeerLimitError: over one of the limits.
        """
        if message.left < 0:
            raise DecodeError("fragments are counted down to 1")
        if sequence in self._messages:
            raise DecodeError(f"sequence {sequence} starts again before it has ended")
        # Each further fragment brings a byte at least.
        self._check_size(max(message.size + message.left, message.expected))
        if not message.left:
            return message
        if len(self._messages) >= self._max_sequences:
            raise PeerLimitError("max_sequences", self._max_sequences, "fragmented messages at once")
        self._messages[sequence] = message
        self._hold(message.expected or message.size)
        return None

    def add(self, sequence: int, fragment: int, data: memoryview) -> FragmentedMessage | None:
        """Take a further fragment; gives the message once it is whole.

        Raises:
            DecodeError: no such sequence, or not its next fragment.
            PeerLimitError: over one of the limits.
        """
        message = self._messages.get(sequence)
        if message is None:
            raise DecodeError(f"a fragment of sequence {sequence}, which did not start")
        if fragment != message.left:
            raise DecodeError(f"fragment {fragment} of sequence {sequence} where {message.left} belongs")
        size = message.size + len(data)
        if not message.expected:
            self._check_size(size)
            self._hold(len(data))
        elif size > message.expected:
            raise DecodeError(f"a payload of {message.expected} bytes comes with {size}")
        message.add(data)
        if message.left:
            return None
        del self._messages[sequence]
        self.held_bytes -= message.expected or message.size
        return message

    def clear(self) -> None:
        """The connection ended: nothing of it will be whole."""
        self._messages.clear()
        self.held_bytes = 0

    def _check_size(self, size: int) -> None:
        if size > self._max_message_bytes:
            raise PeerLimitError("max_packet_bytes", self._max_message_bytes, "bytes")

    def _hold(self, size: int) -> None:
        self.held_bytes += size
        if self.held_bytes > self._max_held_bytes:
            raise PeerLimitError("max_held_bytes", self._max_held_bytes, "bytes")

"""Latest-wins state: the newest supersedes what was not yet sent, and what arrives late is dropped.

Streams are independent slots. State numbers are 32 bits and compared by serial arithmetic (RFC 1982), by
subtraction of what we hold from what came, never the other way about.
"""

from __future__ import annotations

from bridge.errors import LimitExceededError
from bridge.udp.wire import MAX_STATE_BYTES, State

_NUMBER_MASK = 0xFFFFFFFF
_HALF = 1 << 31


class LatestSender:
    """Holds at most one unsent state per stream."""

    __slots__ = ("_acknowledged", "_max_streams", "_numbers", "pending", "superseded")

    def __init__(self, *, max_streams: int) -> None:
        self._max_streams = max_streams
        self._numbers: dict[int, int] = {}
        self._acknowledged: dict[int, int] = {}
        self.pending: dict[int, State] = {}
        """Stream to its unsent state, in the order the streams first became pending."""
        self.superseded = 0

    def put(self, stream: int, payload: bytes) -> int:
        """Make this the newest state of a stream.

        Returns:
            Its number.

        Raises:
            LimitExceededError: payload above 1152 bytes, a stream number above 65535, or one stream too many.
        """
        if len(payload) > MAX_STATE_BYTES:
            raise LimitExceededError("MAX_STATE_BYTES", MAX_STATE_BYTES, "bytes")
        last = self._numbers.get(stream)
        if last is None:
            if not 0 <= stream <= 0xFFFF or len(self._numbers) >= self._max_streams:
                raise LimitExceededError(
                    "max_state_streams", self._max_streams, "streams, numbered 0 … 65535"
                )
            last = -1
        number = self._numbers[stream] = (last + 1) & _NUMBER_MASK
        if stream in self.pending:
            self.superseded += 1
        self.pending[stream] = State(stream, number, payload)
        return number

    def acknowledge(self, stream: int, number: int) -> None:
        """The datagram with this state arrived."""
        known = self._acknowledged.get(stream)
        if known is None or 0 < (number - known) & _NUMBER_MASK < _HALF:
            self._acknowledged[stream] = number

    def acknowledged(self, stream: int) -> int | None:
        """Number of the newest state of the stream that is known to have arrived."""
        return self._acknowledged.get(stream)


class LatestReceiver:
    """Knows the newest state number of each stream."""

    __slots__ = ("_max_streams", "_newest")

    def __init__(self, *, max_streams: int) -> None:
        self._max_streams = max_streams
        self._newest: dict[int, int] = {}

    def accept(self, stream: int, number: int) -> bool:
        """Whether this state is newer than all before on its stream; then it becomes the newest.

        Raises:
            LimitExceededError: the peer uses more streams than allowed.
        """
        newest = self._newest.get(stream)
        if newest is None:
            if len(self._newest) >= self._max_streams:
                raise LimitExceededError("max_state_streams", self._max_streams, "streams")
        elif not 0 < (number - newest) & _NUMBER_MASK < _HALF:
            return False
        self._newest[stream] = number
        return True

"""What the control plane tells its data plane: some at a time, so that all else goes on.

Commands for a whole world come at once, and a turn of everything else may take longer than many of them. So
they get about as much time as all else does: a fixed number of them in each turn would make a busy data plane
obey the slower, the more it has to do.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bridge.sim.dataplane.messages import MAX_FRAME_BYTES, Command, decode_command

LEAST_BYTES: Final = 4_096
"""of commands between two looks at everything else: some 40 of them, a few milliseconds"""
MOST_BYTES: Final = 64 * 1_024
"""at one time, however long everything else takes; some 700 of them"""
LONGEST_SECONDS: Final = 0.05
"""that commands may take at one time: a server that makes no turn in a second is one that hangs"""


class Share:
    """How many bytes of commands are carried out in one turn."""

    def __init__(self) -> None:
        self.bytes = LEAST_BYTES

    def took(self, *, commands: float, others: float) -> None:
        """Hear how many seconds the last of them took, and everything else after that."""
        if commands > max(others, LONGEST_SECONDS / 10) or commands > LONGEST_SECONDS:
            self.bytes = max(LEAST_BYTES, self.bytes // 2)
        elif commands < others / 2:
            self.bytes = min(MOST_BYTES, self.bytes * 2)


class CommandReader:
    """Commands as they come.

    Args:
        stream: the data plane's end of the socket.

    Attributes:
        share: how many at a time.
    """

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.share = Share()
        self._stream = stream
        self._buffer = b""

    async def waiting(self) -> list[Command]:
        """Commands that have come, at least one, in their order; none once the control plane has ended.

        Raises:
            msgspec.MsgspecError: something else than a command came.
        """
        while not (some := self._whole()):
            chunk = b"" if self._is_too_long() else await self._read()
            if not chunk:
                return []
            self._buffer += chunk
        return some

    def _is_too_long(self) -> bool:
        return len(self._buffer) >= 4 and int.from_bytes(self._buffer[:4], "big") > MAX_FRAME_BYTES

    def _whole(self) -> list[Command]:
        buffer, some, start = self._buffer, [], 0
        while len(buffer) - start >= 4:
            end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if len(buffer) < end:
                break
            some.append(decode_command(buffer[start + 4 : end]))
            start = end
        self._buffer = buffer[start:]
        return some

    async def _read(self) -> bytes:
        try:
            return await self._stream.read(self.share.bytes)
        except ConnectionError:
            return b""

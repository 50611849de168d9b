"""What a server keeps of the control messages that cross, and its log of them."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from bridge.authority import Message

MAX_KEPT: Final = 1_024
"""messages kept in memory, some two hundred transfers, unless the whole history is wanted"""

_log = logging.getLogger("bridge.sim.transfers")


class Traces:
    """The newest control messages of a server, in the order in which they crossed.

    Each is a line of the log as well, at level info: its ``trace`` (hexadecimal) is that of its transfer in
    the logs of every process that took part, and its ``hop`` says how many messages came before it.

    Args:
        server: whose they are, for the log.
        keep_history: whether all are kept, instead of the newest ``MAX_KEPT``.

    Attributes:
        crossed: how many there were, kept or not.
        kinds: how many of each kind.
    """

    def __init__(self, server: str, *, keep_history: bool = False) -> None:
        self.crossed = 0
        self.kinds: Counter[str] = Counter()
        self._server = server
        self._kept: deque[Message] = deque(maxlen=None if keep_history else MAX_KEPT)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._kept)

    def add(self, message: Message) -> None:
        """A message has crossed."""
        self.crossed += 1
        self.kinds[message.kind] += 1
        self._kept.append(message)
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "%s from %s to %s",
                message.kind,
                message.sender,
                message.receiver,
                extra={"trace": message.trace.hex(), "hop": message.hop, "server": self._server},
            )

"""How many different messages crossed, counted without keeping them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

RECENT: Final = 4_096
"""messages among which a repetition is noticed: fewer are left undelivered by a session, to be sent again"""


class Distinct:
    """Counts messages; one that comes again among the newest ``RECENT`` counts once.

    Attributes:
        count: of different messages.
    """

    __slots__ = ("_recent", "count")

    def __init__(self) -> None:
        self.count = 0
        self._recent: OrderedDict[bytes, None] = OrderedDict()

    def add(self, message: bytes) -> None:
        """A message was sent, or received."""
        digest = hashlib.blake2b(message, digest_size=8).digest()
        if digest in self._recent:
            return
        self.count += 1
        self._recent[digest] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

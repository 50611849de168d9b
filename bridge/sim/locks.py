"""One at a time for each entity."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0
    """by how many, the one who has it included"""


class Locks:
    """A lock for each entity that somebody is at work with; none is kept of any other.

    ``async with locks["ball"]: …`` waits for its turn.
    """

    def __init__(self) -> None:
        self._turns: dict[str, _Turns] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, entity: str) -> bool:
        return entity in self._turns

    @contextlib.asynccontextmanager
    async def __getitem__(self, entity: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(entity, _Turns())
        turns.wanted += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[entity]

"""Which writes with operation ids may be under way at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from bridge.errors import DeadlineError
from bridge.khepri.operations import OperationId, OperationIds

KEPT_RESULTS: Final = 256
"""results of one client that a homeserver keeps (``docs/protocol.md`` §1, "Operation ids")"""


class Window:
    """Opens operation ids for writes, and lets a write wait while the oldest one is too far behind.

    A homeserver that has let go of a result refuses every id that is not newer, also one that it never saw:
    it cannot tell. Calls overtake one another, so without this the first of a thousand writes sent at once
    would be refused.
    """

    def __init__(self, ids: OperationIds) -> None:
        self._ids = ids
        self._running: OrderedDict[int, None] = OrderedDict()
        self._waiters: deque[asyncio.Future[OperationId]] = deque()

    async def begin(self, *, deadline: float) -> OperationId:
        """An id for a write that begins now; ``end`` it in any case.

        Args:
            deadline: in the event loop's time.

        Raises:
            DeadlineError: the writes before it took too long; nothing was sent.
        """
        if not self._waiters and self._has_room():
            return self._open()
        waiter: asyncio.Future[OperationId] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                # Its turn had come in the same moment.
                self.end(waiter.result())
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineError(
                    f"{len(self._running)} writes before this one are under way; nothing was sent"
                ) from None
            raise

    def end(self, operation: OperationId) -> None:
        """Its answer came, or nobody waits for it any longer."""
        self._running.pop(operation.sequence, None)
        self._ids.close(operation)
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._open())

    def _has_room(self) -> bool:
        return not self._running or self._ids.last + 2 - next(iter(self._running)) <= KEPT_RESULTS

    def _open(self) -> OperationId:
        operation = self._ids.open()
        self._running[operation.sequence] = None
        return operation

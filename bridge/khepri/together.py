"""Which requests of a client go in one message when they are made at once, and how.

Only those with default options: their deadlines are the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import DeadlineError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.grouped import Grouped
from bridge.khepri.operations import OperationId
from bridge.khepri.options import milliseconds
from bridge.khepri.reply import StoreTimeoutError, unwrap

if TYPE_CHECKING:
    from bridge.khepri.calls import StoreCalls

_MODULE: Final = "kb_khepri"
_TIMEOUT: Final = Atom("timeout")
_LEAST_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction: its operations on the wire, its id, and the time of the loop at which its wait ends."""

    operations: list[Any]
    operation: OperationId
    deadline: float


class Together:
    """Reads of data, plain writes and transactions of one client.

    Attributes:
        gets: of paths on the wire; gives properties.
        writes: of ``(put, path, data)`` and ``(delete, path)`` on the wire.
        commits: of transactions; gives results.
    """

    def __init__(self, calls: StoreCalls) -> None:
        self._calls = calls
        self.gets: Grouped[Any] = Grouped(self._get, self._get_each)
        self.writes: Grouped[tuple[Any, ...]] = Grouped(self._write, self._pipeline)
        self.commits: Grouped[Commit] = Grouped(self._commit, self._commit_each)

    async def _get(self, path: Any) -> Any:
        return await self._calls.read(_MODULE, "get", [path], {})

    async def _get_each(self, paths: list[Any]) -> list[Any] | None:
        replies = await self._calls.read(_MODULE, "get_each", [paths], {})
        return replies if isinstance(replies, list) else None

    async def _write(self, write: tuple[Any, ...]) -> Any:
        function, *args = write
        return await self._calls.write(_MODULE, str(function), args, None)

    async def _pipeline(self, writes: list[tuple[Any, ...]]) -> list[Any] | None:
        try:
            answer = await self._calls.write(_MODULE, "pipeline", [list(enumerate(writes))], None)
        except OutcomeUnknownError as error:
            # Not to be made again: they may have been applied.
            return [_unknown(error) for _ in writes]
        replies: list[Any] = [None] * len(writes)
        for place, reply in answer:
            replies[place] = reply
        return [_told(reply) for reply in replies]

    async def _commit(self, commit: Commit) -> Any:
        left = commit.deadline - asyncio.get_running_loop().time()
        return await self._calls.repeat(
            _MODULE,
            "transaction",
            commit.operations,
            operation_id=commit.operation,
            timeout=max(_LEAST_SECONDS, left),
            options=True,
        )

    async def _commit_each(self, commits: list[Commit]) -> list[Any] | None:
        # Whatever goes wrong here is harmless: each is made again, and its id says whether it was applied.
        seconds = self._calls.config.attempt_timeout
        requests = [(commit.operations, commit.operation.term()) for commit in commits]
        answer = await self._calls.caller.call(
            _MODULE,
            "transactions",
            [self._calls.store, requests, {_TIMEOUT: milliseconds(seconds)}],
            timeout=2 * seconds,
            idempotent=True,
        )
        replies = unwrap(answer)
        return replies if isinstance(replies, list) else None


def _unknown(error: BaseException) -> OutcomeUnknownError:
    unknown = OutcomeUnknownError(str(error))
    unknown.__cause__ = error
    return unknown


def _told(reply: Any) -> Any:
    """The reply to a write; one that the homeserver knows no outcome of becomes an exception."""
    try:
        unwrap(reply)
    except (StoreTimeoutError, DeadlineError) as error:
        return _unknown(error)
    except Exception:
        return reply
    return reply

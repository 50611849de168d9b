"""Which requests of a client go in one message when they are made at once, and how.

Only those with default options: their deadlines are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import BridgeError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.grouped import Grouped
from bridge.khepri.operations import OperationId
from bridge.khepri.options import milliseconds
from bridge.khepri.reply import is_transient, unwrap

if TYPE_CHECKING:
    from bridge.khepri.calls import StoreCalls

_MODULE: Final = "kb_khepri"
_OK: Final = Atom("ok")
_DONE: Final = (_OK, None)


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
        self._options = {Atom("timeout"): milliseconds(calls.config.timeout)}
        self.gets: Grouped[Any] = Grouped(self._get, self._get_each)
        self.writes: Grouped[tuple[Any, ...]] = Grouped(self._write, self._write_each)
        self.commits: Grouped[Commit] = Grouped(self._commit, self._commit_each)

    async def _get(self, path: Any) -> Any:
        calls = self._calls
        seconds = calls.config.timeout
        reply = await calls.caller.call(
            _MODULE, "get", [calls.store, path, self._options], timeout=seconds, idempotent=True
        )
        if type(reply) is tuple and reply and reply[0] is _OK:
            return reply[1]
        if is_transient(_error(reply)):
            # Asked again, and elsewhere.
            return await calls.read(_MODULE, "get", [path], {})
        return unwrap(reply)

    async def _get_each(self, paths: list[Any]) -> list[Any] | None:
        replies = await self._calls.read(_MODULE, "get_each", [paths], {})
        # A read that a member cannot answer is made again, and elsewhere; each does that by itself.
        return None if any(is_transient(_error(reply)) for reply in replies) else list(replies)

    async def _write(self, write: tuple[Any, ...]) -> Any:
        function, *args = write
        return await self._calls.write(_MODULE, str(function), args, None)

    async def _write_each(self, writes: list[tuple[Any, ...]]) -> list[Any] | None:
        try:
            await self._calls.write(_MODULE, "writes", [writes], None)
        except OutcomeUnknownError as error:
            # Not to be made again: they may have been applied.
            return [_unknown(error) for _ in writes]
        return [_DONE] * len(writes)

    async def _commit(self, commit: Commit) -> Any:
        calls = self._calls
        arguments = [calls.store, commit.operations, commit.operation.term(), calls.attempt_options()]
        return await calls.until_known(_MODULE, "transaction", arguments, commit.deadline)

    async def _commit_each(self, commits: list[Commit]) -> list[Any] | None:
        # Whatever goes wrong here is harmless: each is made again, and its id says whether it was applied.
        calls = self._calls
        requests = [(commit.operations, commit.operation.term()) for commit in commits]
        arguments = [calls.store, requests, calls.attempt_options()]
        timeout = 2 * calls.config.attempt_timeout
        replies = unwrap(
            await calls.caller.call(_MODULE, "transactions", arguments, timeout=timeout, idempotent=True)
        )
        return replies if isinstance(replies, list) else None


def _unknown(error: BaseException) -> OutcomeUnknownError:
    unknown = OutcomeUnknownError(str(error))
    unknown.__cause__ = error
    return unknown


def _error(reply: Any) -> BridgeError | None:
    """What a reply raises; without a second look at those that say ``ok``."""
    if type(reply) is tuple and reply and reply[0] is _OK:
        return None
    try:
        unwrap(reply)
    except BridgeError as error:
        return error
    return None

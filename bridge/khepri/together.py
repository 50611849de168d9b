"""Which requests of a client go in one message when they are made at once, and how.

Of reads and writes only those with default options, whose deadlines are the same; what has an operation id is
made again by itself, with its own deadline, where the group was not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from bridge.errors import BridgeError, DeadlineError, KhepriError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.caller import Caller
from bridge.khepri.config import KhepriConfig
from bridge.khepri.grouped import Grouped
from bridge.khepri.operations import OperationId
from bridge.khepri.options import milliseconds
from bridge.khepri.reply import TRANSIENT, StoreUnavailableError, UngroupedError, is_transient, unwrap

_MODULE: Final = "kb_khepri"
_API: Final = "kb_api"
GROUPED_REQUESTS: Final = frozenset(
    {
        "create_entity",
        "give",
        "push",
        "pull",
        "release",
        "enter",
        "leave",
        "request",
        "answer",
        "withdraw",
        "set_rule",
        "set_master",
        "set_default_owner",
        "transfer",
        "revoke",
    }
)
"""functions of ``kb_api`` that ``kb_api:requests`` takes (``docs/protocol.md`` §7)"""
_OK: Final = Atom("ok")
_DONE: Final = (_OK, None)


class Commit(NamedTuple):
    """A transaction: its operations on the wire, its id, and the time of the loop at which its wait ends."""

    operations: list[Any]
    operation: OperationId
    deadline: float


class AuthorityRequest(NamedTuple):
    """A request of ``docs/protocol.md`` §7: its function, map and id, and when its wait ends as above."""

    function: str
    argument: Any
    operation: OperationId
    deadline: float


class Requests(Protocol):
    """What is needed from below (``StoreCalls``): requests one by one."""

    caller: Caller
    store: Atom
    config: KhepriConfig

    async def read(
        self, module: str, function: str, args: Sequence[Any], options: Mapping[str, Any], /
    ) -> Any:
        """A read; asked again, and elsewhere, until its deadline."""

    async def write(self, module: str, function: str, args: Sequence[Any], timeout: float | None, /) -> Any:
        """A write that is sent once."""

    async def until_known(self, module: str, function: str, arguments: list[Any], deadline: float, /) -> Any:
        """A write with an operation id, repeated until it is known."""

    def attempt_options(self) -> dict[Atom, Any]:
        """Of one attempt of such a write."""


class Together:
    """Reads of data, plain writes, transactions and requests about authority of one client.

    Attributes:
        gets: of paths on the wire; gives properties.
        writes: of ``(put, path, data)`` and ``(delete, path)`` on the wire.
        commits: of transactions; gives results.
        requests: about authority; gives the values of their answers.
    """

    def __init__(self, calls: Requests) -> None:
        self._calls = calls
        self._options = {Atom("timeout"): milliseconds(calls.config.timeout)}
        self.gets: Grouped[Any] = Grouped(self._get, self._get_each)
        self.writes: Grouped[tuple[Any, ...]] = Grouped(self._write, self._write_each)
        self.commits: Grouped[Commit] = Grouped(self._commit, self._commit_each)
        self.requests: Grouped[AuthorityRequest] = Grouped(self._request, self._request_each)

    async def _get(self, path: Any, began: float | None) -> Any:
        calls = self._calls
        seconds = calls.config.timeout if began is None else self._left(began)
        reply = await calls.caller.call(
            _MODULE, "get", [calls.store, path, self._options], timeout=seconds, idempotent=True
        )
        if type(reply) is tuple and reply and reply[0] is _OK:
            return reply[1]
        if is_transient(_error(reply)):
            # Asked again, and elsewhere.
            return await calls.read(_MODULE, "get", [path], {"timeout": seconds})
        return unwrap(reply)

    async def _get_each(self, paths: list[Any]) -> list[Any] | None:
        try:
            replies = await self._calls.read(_MODULE, "get_each", [paths], {})
        except (*TRANSIENT, DeadlineError) as error:
            # The time of each is over too.
            return [_alike(error) for _ in paths]
        # A read that a member cannot answer is made again, and elsewhere; each does that by itself.
        return None if any(is_transient(_error(reply)) for reply in replies) else _grouped(replies)

    async def _write(self, write: tuple[Any, ...], began: float | None) -> Any:
        function, *args = write
        seconds = None if began is None else self._left(began)
        return await self._calls.write(_MODULE, str(function), args, seconds)

    async def _write_each(self, writes: list[tuple[Any, ...]]) -> list[Any] | None:
        try:
            await self._calls.write(_MODULE, "writes", [writes], None)
        except (OutcomeUnknownError, StoreUnavailableError) as error:
            # Not to be made again: they may have been applied, or would be refused again.
            return [_alike(error) for _ in writes]
        return [_DONE] * len(writes)

    async def _commit(self, commit: Commit, _: float | None) -> Any:
        calls = self._calls
        arguments = [calls.store, commit.operations, commit.operation.term(), calls.attempt_options()]
        return await calls.until_known(_MODULE, "transaction", arguments, commit.deadline)

    async def _commit_each(self, commits: list[Commit]) -> list[Any] | None:
        requests = [(commit.operations, commit.operation.term()) for commit in commits]
        arguments = [self._calls.store, requests, self._calls.attempt_options()]
        return await self._known(_MODULE, "transactions", arguments, commits)

    async def _request(self, request: AuthorityRequest, _: float | None) -> Any:
        calls = self._calls
        arguments = [calls.store, request.argument, request.operation.term()]
        return await calls.until_known(_API, request.function, arguments, request.deadline)

    async def _request_each(self, requests: list[AuthorityRequest]) -> list[Any] | None:
        terms = [(Atom(one.function), one.argument, one.operation.term()) for one in requests]
        return await self._known(_API, "requests", [self._calls.store, terms], requests)

    async def _known(
        self,
        module: str,
        function: str,
        arguments: list[Any],
        items: Sequence[Commit | AuthorityRequest],
    ) -> list[Any] | None:
        # Whatever goes wrong here is harmless: each is made again, and its id says whether it was applied.
        left = min(item.deadline for item in items) - asyncio.get_running_loop().time()
        # Each must have time for an attempt of its own.
        timeout = min(2 * self._calls.config.attempt_timeout, left / 2)
        replies = unwrap(
            await self._calls.caller.call(module, function, arguments, timeout=timeout, idempotent=True)
        )
        return _grouped(replies) if isinstance(replies, list) else None

    def _left(self, began: float) -> float:
        """Seconds; a millisecond at least, in which to be told that it is too late."""
        return max(0.001, began + self._calls.config.timeout - asyncio.get_running_loop().time())


def _grouped(replies: list[Any]) -> list[Any]:
    """``None`` in place of those that were left out, since those before them are large."""
    return [None if isinstance(_error(reply), UngroupedError) else reply for reply in replies]


def _alike(error: BridgeError) -> BridgeError:
    """For each of a group an error of its own: who catches it may add to it."""
    if isinstance(error, KhepriError):
        alike: BridgeError = type(error)(str(error), reason=error.reason, props=error.props)
    else:
        alike = type(error)(str(error))
    alike.__cause__ = error
    return alike


def _error(reply: Any) -> BridgeError | None:
    """What a reply raises; without a second look at those that say ``ok``."""
    if type(reply) is tuple and reply and reply[0] is _OK:
        return None
    try:
        unwrap(reply)
    except BridgeError as error:
        return error
    return None

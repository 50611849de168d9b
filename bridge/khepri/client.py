"""A Khepri store through the homeservers of its cluster."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from bridge.errors import ConfigurationError, DeadlineError, HandshakeError, OutcomeUnknownError
from bridge.etf import Atom
from bridge.khepri.caller import Caller
from bridge.khepri.feed import Feed
from bridge.khepri.node_caller import NodeCaller
from bridge.khepri.operations import Operation, OperationId, OperationIds, Put, wire_operations
from bridge.khepri.paths import NativePath, Path, native_path, wire_path
from bridge.khepri.reply import StoreTimeoutError, is_transient, unwrap
from bridge.node import Gateway, HiddenNode

_API: Final = "kb_api"
_DATA: Final = Atom("data")
_instances = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KhepriConfig:
    """Deadlines of a client, in seconds. Khepri's own default is to wait for ever; here nothing does."""

    timeout: float = 5.0
    """seconds a call may take as a whole, repeats included"""
    attempt_timeout: float = 1.0
    """seconds the homeserver may spend on one attempt of a write that can be repeated: a call in flight
    to a leader that is cut off waits out its whole time, and an election takes 0.2 to 0.6 s"""
    retry_delay: float = 0.05
    """seconds between attempts while the store has no leader"""

    def __post_init__(self) -> None:
        if not 0.001 <= self.attempt_timeout <= 60 or not 0.001 <= self.timeout <= 60:
            raise ConfigurationError("time-outs are 0.001 to 60 seconds")


class Khepri:
    """Client of one store.

    Reads go to the member that the node is connected to and survive its death. A plain ``put`` or
    ``delete`` whose answer is lost raises ``OutcomeUnknownError``; a ``transaction`` carries an operation id
    and is repeated, through another member where need be, until it is known to have been applied once.

    Args:
        caller: what calls go through; it stays open when the client closes, so several may share it.
        store: the store's id.
        client: stable name for operation ids; by default the caller's name and a number.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        store: str = "homeserver",
        client: str | None = None,
        config: KhepriConfig | None = None,
    ) -> None:
        self.caller = caller
        self._owns_caller = False
        self.store = Atom(store)
        self.config = config or KhepriConfig()
        # Nanoseconds since 1970 rise from start to start of a client of the same name; where a clock went
        # back, the homeserver refuses the ids as of an older incarnation instead of mixing them up.
        self._ids = OperationIds(client or f"{caller.name}#{next(_instances)}", time.time_ns())

    @classmethod
    def connect(
        cls,
        node: HiddenNode,
        members: str | Sequence[str] | Gateway,
        *,
        store: str = "homeserver",
        client: str | None = None,
        config: KhepriConfig | None = None,
    ) -> Self:
        """A client that calls from a hidden node; the first call dials.

        Args:
            node: stays open when the client closes.
            members: one or more node names of the cluster, or a ``Gateway`` that several clients share.
            store: as in the constructor, like the rest.
            client: stable name for operation ids; by default the node's name and a number.
            config: deadlines.
        """
        if isinstance(members, Gateway):
            return cls(NodeCaller(members), store=store, client=client, config=config)
        gateway = Gateway(node, [members] if isinstance(members, str) else members)
        made = cls(NodeCaller(gateway), store=store, client=client, config=config)
        made._owns_caller = True
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the client; a shared caller, and the node in any case, stay."""
        if self._owns_caller:
            await self.caller.close()

    async def health(self, *, timeout: float | None = None) -> Mapping[Any, Any]:
        """State of the store as the connected member sees it (``docs/protocol.md`` §1)."""
        health: Mapping[Any, Any] = unwrap(
            await self.caller.call(
                _API, "health", [self.store], timeout=timeout or self.config.timeout, idempotent=True
            )
        )
        return health

    async def get(
        self,
        path: Path,
        *,
        favor: Literal["low_latency", "consistency"] = "low_latency",
        timeout: float | None = None,
    ) -> Any:
        """Data of one node, or ``None`` where it has none.

        Raises:
            NodeNotFoundError: there is no such node.
        """
        value = await self._read("get", wire_path(path), favor, timeout)
        return value.get(_DATA)

    async def get_many(
        self,
        pattern: Path,
        *,
        favor: Literal["low_latency", "consistency"] = "low_latency",
        timeout: float | None = None,
    ) -> dict[NativePath, Any]:
        """Data of every node that the pattern matches, by native path; ``None`` where one has none."""
        value = await self._read("get_many", wire_path(pattern), favor, timeout)
        return {native_path(path): node.get(_DATA) for path, node in value.items()}

    async def put(self, path: Path, data: Any, *, timeout: float | None = None) -> None:
        """Create or replace one node, unconditionally: the cheapest write.

        Raises:
            OutcomeUnknownError: the answer was lost; the write may have been applied. ``transaction``
                with one ``Put`` is repeated safely instead.
        """
        await self._plain_write("put", [wire_path(path), data], timeout)

    async def delete(self, path: Path, *, timeout: float | None = None) -> None:
        """Delete one node and what is below it; nothing happens where there is none.

        Raises:
            OutcomeUnknownError: as for ``put``.
        """
        await self._plain_write("delete", [wire_path(path)], timeout)

    async def transaction(
        self,
        operations: Sequence[Operation],
        *,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Run operations in order, all or nothing, exactly once.

        Args:
            operations: 1 to 1,000 of ``Put``, ``Create``, ``Update``, ``CompareAndSwap``, ``Delete``,
                ``Get``, ``Exists``, ``Abort``.
            operation_id: of an earlier try whose outcome stayed unknown, from ``new_operation``.
            timeout: seconds for all attempts together.

        Returns:
            One result for each operation: ``None`` for a write, data (or ``None``) for ``Get``, a bool for
            ``Exists``.

        Raises:
            TransactionAbortedError, MismatchingNodeError, …: refused, nothing was changed.
            OutcomeUnknownError: the deadline passed before an answer came.
        """
        results = await self.request(
            "transaction",
            wire_operations(operations),
            operation_id=operation_id,
            timeout=timeout,
            options=True,
        )
        return [_result(result) for result in results]

    def new_operation(self) -> OperationId:
        """An operation id for a write that the caller wants to be able to repeat by hand."""
        return self._ids.open()

    def forget_operation(self, operation: OperationId) -> None:
        """The caller will not repeat it any more."""
        self._ids.close(operation)

    async def request(
        self,
        function: str,
        argument: Any,
        *,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
        options: bool = False,
    ) -> Any:
        """Call a writing function of ``kb_api`` with an operation id until its outcome is known.

        Args:
            function: ``transaction`` or one of ``docs/protocol.md`` §7.
            argument: the term after the store.
            options: whether the function takes an options map after the id.

        Raises:
            KhepriError: refused.
            OutcomeUnknownError: the deadline passed first.
        """
        operation = operation_id or self._ids.open()
        deadline = asyncio.get_running_loop().time() + (timeout or self.config.timeout)
        arguments = [self.store, argument, operation.term()]
        if options:
            arguments.append({Atom("timeout"): max(1, int(self.config.attempt_timeout * 1000))})
        try:
            return await self._until_known(function, arguments, deadline)
        finally:
            if operation_id is None:
                self._ids.close(operation)

    async def _until_known(self, function: str, arguments: list[Any], deadline: float) -> Any:
        clock = asyncio.get_running_loop().time
        last: BaseException | None = None
        refusing: str | None = None
        while (left := deadline - clock()) > 0:
            member = self.caller.current
            try:
                return unwrap(
                    await self.caller.call(
                        _API,
                        function,
                        arguments,
                        timeout=min(left, 2 * self.config.attempt_timeout),
                        idempotent=True,
                    )
                )
            except Exception as error:
                if not is_transient(error):
                    raise
                # A first dial that fails sent nothing; after a try that may have arrived it says nothing.
                if last is None or not isinstance(error, HandshakeError):
                    last = error
                # Once may be an election; a member that says it twice may be cut off from its cluster.
                if member is not None and member == refusing:
                    self.caller.suspect(member)
                refusing = member
            await asyncio.sleep(min(self.config.retry_delay, max(0.0, deadline - clock())))
        if isinstance(last, HandshakeError):
            raise last
        raise OutcomeUnknownError(
            f"{function}: no answer before the deadline; it may have been applied ({last})"
        ) from last

    async def _read(self, function: str, path: Any, favor: str, timeout: float | None) -> Any:
        seconds = timeout or self.config.timeout
        options = {Atom("favor"): Atom(favor), Atom("timeout"): max(1, int(seconds * 1000))}
        return unwrap(
            await self.caller.call(
                _API, function, [self.store, path, options], timeout=seconds, idempotent=True
            )
        )

    async def _plain_write(self, function: str, arguments: list[Any], timeout: float | None) -> None:
        seconds = timeout or self.config.timeout
        options = {Atom("timeout"): max(1, int(seconds * 1000))}
        try:
            unwrap(
                await self.caller.call(
                    _API,
                    function,
                    [self.store, *arguments, options],
                    # The homeserver answers within its own time-out; the margin keeps the two apart.
                    timeout=seconds + 0.5,
                    idempotent=False,
                )
            )
        except OutcomeUnknownError:
            raise
        except (DeadlineError, StoreTimeoutError) as error:
            raise OutcomeUnknownError(
                f"{function}: no answer in {seconds} s; it may have been applied"
            ) from error

    @asynccontextmanager
    async def watch(self, *prefixes: Path, window: int = 1_000) -> AsyncIterator[Feed]:
        """Changes below the prefixes; iterate over the feed inside the ``async with``.

        Attached to one member: every change, in the order that member applied them, at least once. When
        that member dies the feed goes on at another one with a ``Snapshot``: intermediate versions have
        collapsed, and deletions show as absence from it.

        Args:
            prefixes: exact paths; a change at or below one of them is told.
            window: changes that may be on their way unacknowledged, 1 to 10,000.
        """
        feed = Feed(self.caller, self.store, [wire_path(p) for p in prefixes], window=window)
        try:
            yield feed
        finally:
            await feed.close()

    async def put_once(self, path: Path, data: Any, *, timeout: float | None = None) -> None:
        """``put`` as a transaction with an operation id: dearer, and repeated until applied once."""
        await self.transaction([Put(path, data)], timeout=timeout)


def _result(term: Any) -> Any:
    match term:
        case Atom():
            return None
        case Mapping():
            return term.get(_DATA)
        case _:
            return term

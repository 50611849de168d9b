"""Writes of a store: plain ones, single operations that are applied once, transactions, pipelines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri.calls import KHEPRI, StoreCalls
from bridge.khepri.operations import (
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Create,
    Delete,
    DeleteMany,
    KeepWhile,
    Operation,
    OperationId,
    Put,
    PutMany,
    Update,
)
from bridge.khepri.paths import Pattern, has_conditions, wire_path
from bridge.khepri.pipeline import Outcome, outcomes, wire_pipeline
from bridge.khepri.transactions import run_transaction

_PUT: Final = Atom("put")
_DELETE: Final = Atom("delete")

Correlation = TypeVar("Correlation", bound=Hashable)


class Writes:
    """The writing half of ``Khepri``.

    ``put`` and ``delete`` of one node without conditions are Khepri's plain commands. Everything else is a
    transaction with an operation id: repeated, through another member where need be, until it is known to
    have been applied once.

    Arguments of most methods:

    - ``keep_while``: conditions by path; the node is deleted as soon as one of them does not hold.
    - ``operation_id``: of an earlier try whose outcome stayed unknown, from ``new_operation``.
    - ``timeout``: seconds for all attempts together.

    All of them raise ``OutcomeUnknownError`` when the answer is lost or late, and these refusals, after which
    nothing was changed: ``MismatchingNodeError``, ``NodeNotFoundError``, ``KeepWhileConditionsNotMetError``,
    ``InvalidRequestError``, ``PoisonError``, ``ReservedPathError``, ``TooLargeError``, ``AtomBudgetError``.
    """

    _calls: StoreCalls

    async def put(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> None:
        """Create or replace one node; without conditions and operation id the cheapest write.

        Raises:
            OutcomeUnknownError: the answer was lost; the write may have been applied. ``put_once`` is
                repeated safely instead.
        """
        if keep_while is None and operation_id is None and not has_conditions(path):
            await self._calls.plain_write((_PUT, wire_path(path), data), timeout)
        else:
            await self._one(Put(path, data, keep_while), operation_id, timeout)

    async def put_once(self, path: Pattern, data: Any, *, timeout: float | None = None) -> None:
        """``put`` as a transaction with an operation id: dearer, and repeated until applied once."""
        await self._one(Put(path, data), None, timeout)

    async def put_many(
        self,
        pattern: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> None:
        """Replace the data of every node that the pattern matches; an exact path is made where missing."""
        await self._one(PutMany(pattern, data, keep_while), operation_id, timeout)

    async def create(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> None:
        """Create one node.

        Raises:
            MismatchingNodeError: it exists.
        """
        await self._one(Create(path, data, keep_while), operation_id, timeout)

    async def update(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> None:
        """Replace the data of one node.

        Raises:
            NodeNotFoundError: it does not exist.
        """
        await self._one(Update(path, data, keep_while), operation_id, timeout)

    async def compare_and_swap(
        self,
        path: Pattern,
        expected: Any,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> None:
        """Replace the data of one node if it is ``expected`` now, by Erlang's ``=:=``.

        Raises:
            MismatchingNodeError: it is something else.
            NodeNotFoundError: the node does not exist.
        """
        await self._one(CompareAndSwap(path, expected, data, keep_while), operation_id, timeout)

    async def delete(
        self, path: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> None:
        """Delete one node and what is below it; nothing happens where there is none, or not as demanded.

        Raises:
            OutcomeUnknownError: as for ``put``.
        """
        if operation_id is None and not has_conditions(path):
            await self._calls.plain_write((_DELETE, wire_path(path)), timeout)
        else:
            await self._one(Delete(path), operation_id, timeout)

    async def delete_many(
        self, pattern: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> None:
        """Delete every node that the pattern matches, and what is below them."""
        await self._one(DeleteMany(pattern), operation_id, timeout)

    async def clear_payload(
        self, path: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> None:
        """Take the data or the procedure of one node away."""
        await self._one(ClearPayload(path), operation_id, timeout)

    async def clear_many_payloads(
        self, pattern: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> None:
        """Take data or procedure away from every node that the pattern matches."""
        await self._one(ClearManyPayloads(pattern), operation_id, timeout)

    async def transaction(
        self,
        operations: Sequence[Operation],
        *,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """Run operations in order, all or nothing, exactly once.

        Args:
            operations: 1 to 1,000 of ``Put``, ``CompareAndSwap``, ``Get``, ``Exists``, ``Adv``, ``Abort``, ….
            operation_id: see above.
            timeout: see above.

        Returns:
            One result for each operation: ``None`` for a write, data (or ``None``) for ``Get``, data by
            native path for ``GetMany``, a bool or an int for questions, ``NodeProps`` by native path for
            ``Adv``.

        Raises:
            TransactionAbortedError: an ``Abort`` ran.
            KhepriError: another refusal, after which nothing was changed; ``props["index"]`` is where.
        """
        return await run_transaction(self._calls, operations, operation_id=operation_id, timeout=timeout)

    async def pipeline(
        self, writes: Mapping[Correlation, Put | Delete], *, timeout: float | None = None
    ) -> dict[Correlation, Outcome]:
        """Send many plain writes at once, and await their answers together.

        They are not one transaction: each is applied or not for itself, in the order of the mapping.

        Args:
            writes: 1 to 10,000, without conditions; the keys say which outcome belongs to which.
            timeout: seconds for all of them.

        Returns:
            What became of each.

        Raises:
            KhepriError: one of them is refused, and none was sent.
            OutcomeUnknownError: the answer was lost; any of them may have been applied.
        """
        if not isinstance(writes, Mapping):
            raise ConfigurationError(
                f"a pipeline is a dict of writes by what you call them, not {writes!r:.100}"
            )
        term = await self._calls.write(KHEPRI, "pipeline", [wire_pipeline(list(writes.values()))], timeout)
        return dict(zip(writes, outcomes(term, len(writes)), strict=True))

    async def fence(self, *, timeout: float | None = None) -> None:
        """Wait until the connected member has applied everything that was committed before."""
        await self._calls.read(KHEPRI, "fence", [], {"timeout": timeout})

    def new_operation(self) -> OperationId:
        """An operation id for a write that the caller wants to be able to repeat by hand.

        The store keeps the results of a client's last 256 writes: a repeat after more of them raises
        ``UnknownOutcomeError``.
        """
        return self._calls.ids.open()

    def forget_operation(self, operation: OperationId) -> None:
        """The caller will not repeat it any more."""
        self._calls.ids.close(operation)

    async def _one(
        self, operation: Operation, operation_id: OperationId | None, timeout: float | None
    ) -> None:
        await run_transaction(self._calls, [operation], operation_id=operation_id, timeout=timeout)

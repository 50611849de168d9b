"""Reads and writes that tell the properties of the nodes touched: ``khepri_adv``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from bridge.etf import Atom
from bridge.khepri.calls import KHEPRI, StoreCalls, in_turns
from bridge.khepri.operations import (
    Adv,
    AdvOperation,
    ClearManyPayloads,
    ClearPayload,
    CompareAndSwap,
    Create,
    Delete,
    DeleteMany,
    KeepWhile,
    OperationId,
    Put,
    PutMany,
    Update,
)
from bridge.khepri.options import DEFAULT_PROPS, Prop, ReadOptions
from bridge.khepri.paths import NativePath, Pattern, wire_path
from bridge.khepri.props import NodeProps, props_from_term, told_in_parts
from bridge.khepri.reply import MismatchingNodeError
from bridge.khepri.transactions import run_transaction

PropsByPath = dict[NativePath, NodeProps]


class AdvCalls:
    """``store.adv``: every verb gives properties by native path, in one shape on every version of Khepri.

    A write tells the *old* payload and the *new* versions of what it touched, with all properties, and from
    Khepri 0.17 on also the nodes that went because of it. Arguments and errors are those of the same verbs of
    ``Khepri``; each write is a transaction with an operation id.
    """

    def __init__(self, calls: StoreCalls) -> None:
        self._calls = calls

    async def get(
        self, path: Pattern, *, props: Iterable[Prop] = DEFAULT_PROPS, **options: Unpack[ReadOptions]
    ) -> PropsByPath:
        """Properties of one node.

        Raises:
            NodeNotFoundError: there is no such node.
            MismatchingNodeError: there is, and it is not as the path demands.
            InvalidRequestError: the pattern may match several nodes.
        """
        options["expect_specific_node"] = True
        found = await self.get_many(path, props=props, **options)
        if not found:
            raise MismatchingNodeError(
                "mismatching_node: the node is there and is not as demanded", reason=Atom("mismatching_node")
            )
        return found

    async def get_many(
        self, pattern: Pattern, *, props: Iterable[Prop] = DEFAULT_PROPS, **options: Unpack[ReadOptions]
    ) -> PropsByPath:
        """Properties of every node that the pattern matches."""
        found = await self._calls.read(KHEPRI, "get_many", [wire_path(pattern)], options, props)
        return await in_turns(told_in_parts(found, props_from_term))

    async def put(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> PropsByPath:
        """Create or replace one node."""
        return await self._one(Put(path, data, keep_while), operation_id, timeout)

    async def put_many(
        self,
        pattern: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> PropsByPath:
        """Replace the data of every node that the pattern matches."""
        return await self._one(PutMany(pattern, data, keep_while), operation_id, timeout)

    async def create(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> PropsByPath:
        """Create one node."""
        return await self._one(Create(path, data, keep_while), operation_id, timeout)

    async def update(
        self,
        path: Pattern,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> PropsByPath:
        """Replace the data of one node."""
        return await self._one(Update(path, data, keep_while), operation_id, timeout)

    async def compare_and_swap(
        self,
        path: Pattern,
        expected: Any,
        data: Any,
        *,
        keep_while: KeepWhile | None = None,
        operation_id: OperationId | None = None,
        timeout: float | None = None,
    ) -> PropsByPath:
        """Replace the data of one node if it is ``expected`` now."""
        return await self._one(CompareAndSwap(path, expected, data, keep_while), operation_id, timeout)

    async def delete(
        self, path: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> PropsByPath:
        """Delete one node and what is below it; ``{}`` where there was none."""
        return await self._one(Delete(path), operation_id, timeout)

    async def delete_many(
        self, pattern: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> PropsByPath:
        """Delete every node that the pattern matches."""
        return await self._one(DeleteMany(pattern), operation_id, timeout)

    async def clear_payload(
        self, path: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> PropsByPath:
        """Take the data or the procedure of one node away."""
        return await self._one(ClearPayload(path), operation_id, timeout)

    async def clear_many_payloads(
        self, pattern: Pattern, *, operation_id: OperationId | None = None, timeout: float | None = None
    ) -> PropsByPath:
        """Take data or procedure away from every node that the pattern matches."""
        return await self._one(ClearManyPayloads(pattern), operation_id, timeout)

    async def _one(
        self, operation: AdvOperation, operation_id: OperationId | None, timeout: float | None
    ) -> PropsByPath:
        results = await run_transaction(
            self._calls, [Adv(operation)], operation_id=operation_id, timeout=timeout
        )
        found: PropsByPath = results[0]
        return found

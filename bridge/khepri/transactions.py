"""Transactions of operations, applied once however often they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.errors import ProtocolError
from bridge.khepri.calls import KHEPRI, StoreCalls
from bridge.khepri.operations import Operation, OperationId, operation_result, wire_operations


async def run_transaction(
    calls: StoreCalls,
    operations: Sequence[Operation],
    *,
    operation_id: OperationId | None,
    timeout: float | None,
) -> list[Any]:
    """One result for each operation; see ``Writes.transaction``."""
    results = await calls.repeat(
        KHEPRI,
        "transaction",
        wire_operations(operations),
        operation_id=operation_id,
        timeout=timeout,
        options=True,
    )
    if not isinstance(results, list) or len(results) != len(operations):
        raise ProtocolError(f"no result for each operation: {results!r:.200}")
    return [operation_result(*pair) for pair in zip(operations, results, strict=True)]

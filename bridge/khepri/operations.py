"""Operations of a transaction, and the ids that make a repeated one harmless.

The shapes on the wire are in ``docs/protocol.md`` §1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from bridge.errors import ConfigurationError
from bridge.etf import Atom
from bridge.khepri.paths import Path, wire_path

MAX_OPERATIONS: Final = 1_000
"""operations in one transaction: it runs on every member while nothing else does"""


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace; with ``keep_while`` the node lives only as long as those conditions hold."""

    path: Path
    data: Any
    keep_while: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """Create; fails where the node exists."""

    path: Path
    data: Any


@dataclass(frozen=True, slots=True)
class Update:
    """Replace; fails where the node does not exist."""

    path: Path
    data: Any


@dataclass(frozen=True, slots=True)
class CompareAndSwap:
    """Replace ``expected`` by ``data``; fails where the node holds something else."""

    path: Path
    expected: Any
    data: Any


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the node and what is below it; no failure where there is none."""

    path: Path


@dataclass(frozen=True, slots=True)
class Get:
    """Read; the result is the data, or ``None`` where the node has none."""

    path: Path


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether the node exists."""

    path: Path


@dataclass(frozen=True, slots=True)
class Abort:
    """Undo everything and raise ``TransactionAbortedError`` with this reason."""

    reason: Any


Operation = Put | Create | Update | CompareAndSwap | Delete | Get | Exists | Abort


def wire_operations(operations: Sequence[Operation]) -> list[Any]:
    """The terms to send.

    Raises:
        ConfigurationError: none, or more than ``MAX_OPERATIONS``.
    """
    if not 0 < len(operations) <= MAX_OPERATIONS:
        raise ConfigurationError(f"a transaction has 1 to {MAX_OPERATIONS} operations, not {len(operations)}")
    return [_wire(operation) for operation in operations]


def _wire(operation: Operation) -> Any:
    match operation:
        case Put(path, data, keep_while):
            if keep_while is None:
                return (Atom("put"), wire_path(path), data)
            conditions = {wire_path(p): condition for p, condition in keep_while.items()}
            return (Atom("put"), wire_path(path), data, {Atom("keep_while"): conditions})
        case Create(path, data):
            return (Atom("create"), wire_path(path), data)
        case Update(path, data):
            return (Atom("update"), wire_path(path), data)
        case CompareAndSwap(path, expected, data):
            return (Atom("compare_and_swap"), wire_path(path), expected, data)
        case Delete(path):
            return (Atom("delete"), wire_path(path))
        case Get(path):
            return (Atom("get"), wire_path(path))
        case Exists(path):
            return (Atom("exists"), wire_path(path))
        case Abort(reason):
            return (Atom("abort"), reason)
        case _:
            assert_never(operation)


@dataclass(frozen=True, slots=True)
class OperationId:
    """Names one write for ever, so that the store applies it once however often it is sent.

    Attributes:
        client: stable name of the client, 1 to 255 bytes.
        incarnation: rises each time the client starts.
        sequence: of this write, from 1.
        low_water: every write up to this sequence was answered.
    """

    client: bytes
    incarnation: int
    sequence: int
    low_water: int

    def term(self) -> tuple[bytes, int, int, int]:
        """The tuple on the wire."""
        return (self.client, self.incarnation, self.sequence, self.low_water)


class OperationIds:
    """Hands out operation ids and knows which answers are still due.

    The low-water mark is what lets a homeserver forget results, so an id stays open until ``close``.
    """

    def __init__(self, client: str, incarnation: int) -> None:
        name = client.encode()
        if not 1 <= len(name) <= 255:
            raise ConfigurationError(f"a client name has 1 to 255 bytes, not {len(name)}")
        self._client = name
        self._incarnation = incarnation
        self._last = 0
        self._open: set[int] = set()

    def open(self) -> OperationId:
        """A fresh id."""
        self._last += 1
        self._open.add(self._last)
        return OperationId(self._client, self._incarnation, self._last, min(self._open) - 1)

    def close(self, operation: OperationId) -> None:
        """Its answer came, or nobody waits for it any longer. Closing twice is harmless."""
        self._open.discard(operation.sequence)

"""Operations of a transaction, and the ids that make a repeated one harmless.

The shapes on the wire are in ``docs/protocol.md`` §1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom, ErlangMap
from bridge.khepri.conditions import Condition, keep_while_term
from bridge.khepri.paths import Pattern, wire_path, wire_relative_path
from bridge.khepri.props import data_of, many_data, many_props

MAX_OPERATIONS: Final = 1_000
"""operations in one transaction: it runs on every member while nothing else does"""

KeepWhile = Mapping[Any, Condition]
"""Conditions on other nodes by their path, absolute or relative to the node that they keep."""


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace; with ``keep_while`` the node lives only as long as those conditions hold."""

    path: Pattern
    data: Any
    keep_while: KeepWhile | None = None


@dataclass(frozen=True, slots=True)
class PutMany:
    """Replace the data of every node that the pattern matches; a path of one node is made where missing."""

    path: Pattern
    data: Any
    keep_while: KeepWhile | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """Create; fails where the node exists."""

    path: Pattern
    data: Any
    keep_while: KeepWhile | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace; fails where the node does not exist."""

    path: Pattern
    data: Any
    keep_while: KeepWhile | None = None


@dataclass(frozen=True, slots=True)
class CompareAndSwap:
    """Replace ``expected`` by ``data``; fails where the node holds something else."""

    path: Pattern
    expected: Any
    data: Any
    keep_while: KeepWhile | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the node and what is below it; no failure where there is none, or not as demanded."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class DeleteMany:
    """Delete every node that the pattern matches, and what is below them."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class ClearPayload:
    """Take the node's data or procedure away; no failure where there is no such node."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class ClearManyPayloads:
    """Take data or procedure away from every node that the pattern matches."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class Get:
    """Read; the result is the data, or ``None`` where the node has none; fails where there is no node."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class GetMany:
    """Read; the result is the data of every node that the pattern matches, by native path."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether the node exists."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class HoldsData:
    """Whether the node exists and has data."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class IsSproc:
    """Whether the node exists and has a stored procedure."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class Count:
    """How many nodes the pattern matches."""

    path: Pattern


@dataclass(frozen=True, slots=True)
class IsEmpty:
    """Whether the store holds nothing beside ``/:bridge``."""


AdvOperation = (
    Put
    | PutMany
    | Create
    | Update
    | CompareAndSwap
    | Delete
    | DeleteMany
    | ClearPayload
    | ClearManyPayloads
    | Get
    | GetMany
)


@dataclass(frozen=True, slots=True)
class Adv:
    """Any of these operations, with ``NodeProps`` of the nodes touched as its result, by native path.

    Of a write these are the *old* payload and the *new* versions.
    """

    operation: AdvOperation


@dataclass(frozen=True, slots=True)
class Abort:
    """Undo everything and raise ``TransactionAbortedError`` with this reason."""

    reason: Any


Operation = AdvOperation | Exists | HoldsData | IsSproc | Count | IsEmpty | Adv | Abort


def wire_operations(operations: Sequence[Operation]) -> list[Any]:
    """The terms to send.

    Raises:
        ConfigurationError: no list, none, more than ``MAX_OPERATIONS``, or one that is no operation.
        PoisonError: ``keep_while`` watches data.
    """
    if not isinstance(operations, Sequence):
        raise ConfigurationError(f"a transaction takes a list of operations, not {operations!r:.100}")
    if not 0 < len(operations) <= MAX_OPERATIONS:
        raise ConfigurationError(f"a transaction has 1 to {MAX_OPERATIONS} operations, not {len(operations)}")
    return [wire_operation(operation) for operation in operations]


def wire_operation(operation: Operation) -> tuple[Any, ...]:
    """The term of one operation.

    Raises:
        ConfigurationError: no operation, or a path or condition that is none.
        PoisonError: ``keep_while`` watches data.
    """
    match operation:
        case (
            Put(path, data, keep_while)
            | PutMany(path, data, keep_while)
            | Create(path, data, keep_while)
            | Update(path, data, keep_while)
        ):
            return (_TAGS[type(operation)], wire_path(path), data, *_kept(keep_while))
        case CompareAndSwap(path, expected, data, keep_while):
            return (_TAGS[CompareAndSwap], wire_path(path), expected, data, *_kept(keep_while))
        case (
            Delete(path)
            | DeleteMany(path)
            | ClearPayload(path)
            | ClearManyPayloads(path)
            | Get(path)
            | GetMany(path)
            | Exists(path)
            | HoldsData(path)
            | IsSproc(path)
            | Count(path)
        ):
            return (_TAGS[type(operation)], wire_path(path))
        case IsEmpty():
            return (_TAGS[IsEmpty],)
        case Adv(inner) if isinstance(inner, get_args(AdvOperation)):
            return (_TAGS[Adv], wire_operation(inner))
        case Abort(reason):
            return (_TAGS[Abort], reason)
    raise ConfigurationError(f"{operation!r:.200} is no operation of a transaction")


def operation_result(operation: Operation, term: Any) -> Any:
    """What an operation gave, from the term that a homeserver sent.

    Returns:
        ``None`` for a write, data (or ``None``) for ``Get``, data by native path for ``GetMany``, a bool
        or an int for questions, ``NodeProps`` by native path for ``Adv``.

    Raises:
        ProtocolError: a term that this operation cannot give.
    """
    match operation:
        case Get():
            return data_of(term)
        case GetMany():
            return many_data(term)
        case Adv():
            return many_props(term)
        case Exists() | HoldsData() | IsSproc() | IsEmpty() | Count():
            if type(term) is (int if isinstance(operation, Count) else bool):
                return term
        case Abort():
            # It never succeeds.
            pass
        case _:
            if term == _OK:
                return None
    raise ProtocolError(f"no result of {type(operation).__name__}: {term!r:.200}")


def _kept(keep_while: KeepWhile | None) -> tuple[Any, ...]:
    if keep_while is None:
        return ()
    if not isinstance(keep_while, Mapping):
        raise ConfigurationError(f"keep_while is a dict of conditions by path, not {keep_while!r:.100}")
    watched = ErlangMap(
        (wire_relative_path(path), keep_while_term(condition)) for path, condition in keep_while.items()
    )
    return ({_KEEP_WHILE: watched},)


_OK: Final = Atom("ok")
_KEEP_WHILE: Final = Atom("keep_while")
_TAGS: Final[Mapping[type, Atom]] = {
    Put: Atom("put"),
    PutMany: Atom("put_many"),
    Create: Atom("create"),
    Update: Atom("update"),
    CompareAndSwap: Atom("compare_and_swap"),
    Delete: Atom("delete"),
    DeleteMany: Atom("delete_many"),
    ClearPayload: Atom("clear_payload"),
    ClearManyPayloads: Atom("clear_many_payloads"),
    Get: Atom("get"),
    GetMany: Atom("get_many"),
    Exists: Atom("exists"),
    HoldsData: Atom("has_data"),
    IsSproc: Atom("is_sproc"),
    Count: Atom("count"),
    IsEmpty: Atom("is_empty"),
    Adv: Atom("adv"),
    Abort: Atom("abort"),
}


class OperationId(msgspec.Struct, frozen=True):
    """Names one write for ever, so that the store applies it once however often it is sent.

    Attributes:
        client: stable name of the client, 1 to 255 bytes.
        incarnation: rises each time the client starts.
        sequence: of this write, from 1.
        low_water: every write up to this sequence was answered.
        purpose: what the client's writes of this incarnation are for, 1 to 255 bytes; with another one than
            the first nothing is executed. ``None`` says nothing.
    """

    client: bytes
    incarnation: int
    sequence: int
    low_water: int
    purpose: bytes | None = None

    def term(self) -> tuple[bytes, int, int, int] | tuple[bytes, int, int, int, bytes]:
        """The tuple on the wire."""
        plain = (self.client, self.incarnation, self.sequence, self.low_water)
        return plain if self.purpose is None else (*plain, self.purpose)


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
        self._open: OrderedDict[int, None] = OrderedDict()

    @property
    def last(self) -> int:
        """The sequence handed out last, or 0."""
        return self._last

    def open(self) -> OperationId:
        """A fresh id."""
        self._last += 1
        self._open[self._last] = None
        return OperationId(self._client, self._incarnation, self._last, next(iter(self._open)) - 1)

    def close(self, operation: OperationId) -> None:
        """Its answer came, or nobody waits for it any longer. Closing twice is harmless."""
        self._open.pop(operation.sequence, None)

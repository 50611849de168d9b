"""Operations of a transaction: checked all, then run in order, all or nothing.

Source: ``docs/protocol.md`` §1; the Erlang modules ``kb_operations`` and ``kb_tx``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from bridge.etf import Atom, ErlangMap, encode_term
from bridge.khepri.conditions import NodeExists
from bridge.khepri.memory import requests
from bridge.khepri.memory.keep_while import Pattern
from bridge.khepri.memory.nodes import DATA, Node, Payload, properties
from bridge.khepri.memory.order import names_key, same
from bridge.khepri.memory.requests import ALL_PROPS, BRIDGE, MAX_DATA_BYTES, RefusedError
from bridge.khepri.memory.tree import Change, KeepWhile, Put, Tree
from bridge.khepri.memory.walk import TreeError
from bridge.khepri.operations import MAX_OPERATIONS
from bridge.khepri.paths import (
    NativePath,
    combine_with_conditions,
    component_targets_specific_node,
    targets_specific_node,
)

_OK: Final = Atom("ok")
_EXISTING: Final = {"create": NodeExists(False), "update": NodeExists(True)}
Found = TypeVar("Found")
Touched = Mapping[NativePath, Node | Put]
"""nodes that an operation read or wrote"""
Instruction = Callable[["Transaction"], Any]
"""runs one operation; the value is its result"""


class Transaction:
    """One run over a tree; ``changes`` are in the order of the feed.

    In a transaction Khepri tells the changes of one operation in the opposite order.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.changes: list[Change] = []

    def put(
        self, pattern: Pattern, payload: Payload | None, kept: KeepWhile | None, *, one: bool
    ) -> dict[NativePath, Put]:
        """``Tree.put``."""
        written, changes = self.tree.put(pattern, payload, keep_while=kept, one=one)
        self.changes.extend(reversed(changes))
        return written

    def delete(self, pattern: Pattern, *, one: bool) -> dict[NativePath, Node]:
        """``Tree.delete``."""
        deleted, changes = self.tree.delete(pattern, one=one)
        self.changes.extend(reversed(changes))
        return deleted


def checked(operations: Any) -> list[tuple[Pattern, Instruction]]:
    """Operations with their paths, as they can be run.

    Raises:
        RefusedError: one of them is refused; ``index`` says which.
    """
    if type(operations) is not list or not 1 <= len(operations) <= MAX_OPERATIONS:
        raise RefusedError("invalid_operation", "a transaction has a list of 1 to 1000 operations")
    requests.bounded(operations)
    made = []
    for index, operation in enumerate(operations):
        try:
            made.append(_instruction(operation, adv=False))
        except RefusedError as refused:
            refused.props["index"] = index
            raise
    return made


def run(tree: Tree, instructions: list[tuple[Pattern, Instruction]]) -> tuple[list[Any], list[Change]]:
    """Results and changes.

    Raises:
        RefusedError: nothing was changed; ``index`` says at which.
    """
    root, mark = tree.root, tree.keep_while.mark()
    transaction = Transaction(tree)
    results: list[Any] = []
    try:
        for index, (path, instruction) in enumerate(instructions):
            results.append(_run_one(transaction, index, path, instruction))
        if len(encode_term(results)) > MAX_DATA_BYTES:
            raise RefusedError("too_large", "the results are beyond 1 MiB: read fewer nodes")
    except RefusedError:
        tree.root = root
        tree.keep_while.undo(mark)
        raise
    return results, transaction.changes


def _run_one(transaction: Transaction, index: int, path: Pattern, instruction: Instruction) -> Any:
    try:
        return instruction(transaction)
    except TreeError as error:
        # What raises inside the homeserver's transaction is told without a place.
        refused = requests.refusal(error, path if error.reason != "unknown" else None)
        if error.reason != "unknown":
            refused.props["index"] = index
        raise refused from None
    except RefusedError as refused:
        refused.props["index"] = index
        raise


def nodes_term(touched: Touched, wanted: tuple[Atom, ...]) -> ErlangMap:
    """``#{NativePath => Props}``."""
    return ErlangMap.of_distinct(
        [list(path) for path in touched], [_props(found, wanted) for found in touched.values()]
    )


def _props(found: Node | Put, wanted: tuple[Atom, ...]) -> dict[Atom, Any]:
    """Of a write the old payload, and all else as it is now."""
    if isinstance(found, Node):
        return properties(found, wanted)
    old = {} if found.before is None else properties(found.before, wanted)
    new = properties(found.after, wanted)
    new.pop(DATA, None)
    return old | new


def _instruction(operation: Any, *, adv: bool) -> tuple[Pattern, Instruction]:
    if type(operation) is not tuple or not operation or not isinstance(operation[0], Atom):
        raise _invalid()
    name, *arguments = operation
    match name.text, arguments:
        case "adv", [tuple() as inner] if not adv and inner and inner[0] is not name:
            return _instruction(inner, adv=True)
        case ("put" | "create" | "update" as kind, [path, data, *options]) if len(options) <= 1:
            return _put_one(path, data, options, _EXISTING.get(kind), adv)
        case "put_many", [path, data, *options] if len(options) <= 1:
            return _put_many(path, data, options, adv)
        case "compare_and_swap", [path, expected, data, *options] if len(options) <= 1:
            return _swap(path, expected, data, options, adv)
        case "delete", [path]:
            target = requests.written_one(path)
            return target, lambda run: _answer(run.delete(target, one=True), adv)
        case "delete_many", [path]:
            target = requests.written(path)
            return target, lambda run: _answer(run.delete(target, one=False), adv)
        case "clear_payload", [path]:
            return _clear(path, adv)
        case "clear_many_payloads", [path]:
            return _clear_many(path, adv)
        case "get", [path]:
            target = requests.one(path)
            return target, lambda run: _get(run.tree, target, adv)
        case "get_many", [path]:
            target = requests.pattern(path)
            return target, lambda run: _many(run.tree.find(target), adv)
    if adv:
        raise RefusedError("invalid_operation", "this operation has no adv form")
    return _question(name.text, arguments)


def _question(name: str, arguments: list[Any]) -> tuple[Pattern, Instruction]:
    match name, arguments:
        case "exists", [path]:
            target = requests.one(path)
            return target, lambda run: exists(run.tree, target)
        case "has_data", [path]:
            target = requests.one(path)
            return target, lambda run: has_data(run.tree, target)
        case "is_sproc", [path]:
            target = requests.one(path)
            return target, lambda run: False
        case "count", [path]:
            target = requests.pattern(path)
            return target, lambda run: len(run.tree.find(target))
        case "is_empty", []:
            return (), lambda run: is_empty(run.tree)
        case "abort", [reason]:
            requests.storable(reason)
            return (), lambda run: _abort(reason)
    raise _invalid()


def exists(tree: Tree, target: Pattern) -> bool:
    """Whether a node is there; as Khepri 0.16 says also where it is not as demanded."""
    return _unless(lambda: tree.find(target, one=True), "node_not_found") is not None


def has_data(tree: Tree, target: Pattern) -> bool:
    """Whether a node is there and has data."""
    found = _unless(lambda: tree.find(target, one=True), "node_not_found") or {}
    return any(node.payload is not None for node in found.values())


def is_empty(tree: Tree) -> bool:
    """Whether there is nothing beside ``/:bridge``."""
    return all(name is BRIDGE for name in tree.root.children.names())


def data_term(node: Node) -> dict[Atom, Any]:
    """``#{data => Term}``, or ``#{}``."""
    return {} if node.payload is None else {DATA: node.payload.data}


def not_as_demanded(
    target: Pattern, message: str = "the node is there and is not as demanded"
) -> RefusedError:
    """The refusal of an operation whose one node is there."""
    return RefusedError("mismatching_node", message, {"path": requests.path_term(target)})


def _put_one(
    path: Any, data: Any, options: list[Any], demanded: NodeExists | None, adv: bool
) -> tuple[Pattern, Instruction]:
    target = requests.written_one(path)
    payload = Payload(requests.storable(data))
    kept = requests.keep_while(*options) if options else None
    if demanded is not None:
        target = _combined(target, demanded)
    return target, lambda run: _answer(run.put(target, payload, kept, one=True), adv)


def _put_many(path: Any, data: Any, options: list[Any], adv: bool) -> tuple[Pattern, Instruction]:
    target = requests.written(path)
    payload = Payload(requests.storable(data))
    kept = requests.keep_while(*options) if options else None
    if kept is None:
        return _put_matching(target, payload, adv)
    if targets_specific_node(target) is not None:
        return _put_one(path, data, options, None, adv)

    def put_each(run: Transaction) -> Any:
        told: dict[NativePath, Put] = {}
        for found in sorted(run.tree.find(target), key=names_key):
            told.update(run.put(found, payload, kept, one=True))
        return _answer(told, adv)

    return target, put_each


def _put_matching(target: Pattern, payload: Payload | None, adv: bool) -> tuple[Pattern, Instruction]:
    """As the homeserver does: with conditions on one node, it is put as one, or nothing happens."""
    if targets_specific_node(target) in (None, target):
        return target, lambda run: _answer(run.put(target, payload, None, one=False), adv)

    def put(run: Transaction) -> Any:
        told = _unless(lambda: run.put(target, payload, None, one=True), "node_not_found", "mismatching_node")
        return _answer(told or {}, adv)

    return target, put


def _swap(path: Any, expected: Any, data: Any, options: list[Any], adv: bool) -> tuple[Pattern, Instruction]:
    requests.storable(expected)
    target = requests.written_one(path)
    payload = Payload(requests.storable(data))
    kept = requests.keep_while(*options) if options else None

    def swap(run: Transaction) -> Any:
        node = _one(run.tree, target)
        if node.payload is None or not same(node.payload.data, expected):
            raise not_as_demanded(target, "the node holds other data")
        return _answer(run.put(target, payload, kept, one=True), adv)

    return target, swap


def _clear(path: Any, adv: bool) -> tuple[Pattern, Instruction]:
    target = _combined(requests.written_one(path), NodeExists(True))

    def clear(run: Transaction) -> Any:
        cleared = _unless(lambda: run.put(target, None, None, one=True), "node_not_found")
        return _answer(cleared or {}, adv)

    return target, clear


def _clear_many(path: Any, adv: bool) -> tuple[Pattern, Instruction]:
    target = requests.written(path)
    if target and component_targets_specific_node(target[-1]) is not None:
        # By a name, a node that is not there would be made.
        target = _combined(target, NodeExists(True))
    return _put_matching(target, None, adv)


def _get(tree: Tree, target: Pattern, adv: bool) -> Any:
    node = _one(tree, target)
    return _answer(tree.find(target, one=True), adv) if adv else data_term(node)


def _many(found: Mapping[NativePath, Node], adv: bool) -> Any:
    if adv:
        return _answer(found, adv)
    return ErlangMap.of_distinct([list(path) for path in found], [data_term(node) for node in found.values()])


def _one(tree: Tree, target: Pattern) -> Node:
    for node in tree.find(target, one=True).values():
        return node
    raise not_as_demanded(target)


def _answer(touched: Touched, adv: bool) -> Any:
    return nodes_term(touched, ALL_PROPS) if adv else _OK


def _abort(reason: Any) -> Any:
    raise RefusedError("aborted", "the transaction aborted itself", {"reason": reason})


def _combined(target: Pattern, demanded: NodeExists) -> Pattern:
    combined: Any = combine_with_conditions(target, demanded)
    made: Pattern = combined
    return made


def _unless(ask: Callable[[], Found], *reasons: str) -> Found | None:
    try:
        return ask()
    except TreeError as error:
        if error.reason in reasons:
            return None
        raise


def _invalid() -> RefusedError:
    return RefusedError("invalid_operation", "not an operation of docs/protocol.md section 1")

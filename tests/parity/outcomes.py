"""What a call came to, in a form that both sides share."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.errors import ConfigurationError, KhepriError
from bridge.etf import Atom
from bridge.khepri import (
    NativePath,
    NodeProps,
    ProcedureRaisedError,
    TransactionAbortedError,
)

RENAMED: Final[Mapping[str, str]] = {
    "possibly_matching_many_nodes_denied": "invalid_path",
    "condition_targets_parent_node": "invalid_path",
    "projection_already_exists": "projection_exists",
    "denied_update_in_readonly_tx": "invalid_operation",
    "no_sproc_at_given_path": "no_sproc",
    "denied_execution_of_non_sproc_node": "no_sproc",
    "failed_to_get_sproc": "no_sproc",
}
"""reasons of Khepri that have another name in ``docs/protocol.md`` §1"""


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused with a reason; ``path`` where one was told."""

    reason: str
    path: Any = None


@dataclass(frozen=True, slots=True)
class Aborted:
    """A transaction was given up with a reason."""

    reason: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """A function that ran inside the store raised."""

    kind: str
    reason: Any


async def attempt(call: Awaitable[Any]) -> Any:
    """What a call of the Python client gives, or the refusal that it raises."""
    try:
        return await call
    except TransactionAbortedError as error:
        return Aborted(error.props["reason"])
    except ProcedureRaisedError as error:
        return Raised(str(error.props["class"]), error.props["reason"])
    except KhepriError as error:
        return Refused(str(error.reason), error.props.get("path"))
    except ConfigurationError:
        return Refused("invalid_path")


def of_elixir(term: Any) -> Any:
    """What the Python client gives where Khepri gives this term, or raises it."""
    match term:
        case Atom(text="ok"):
            return None
        case (Atom(text="ok"), value):
            return _value(value)
        case (
            Atom(text="raised"),
            _,
            (Atom(text="khepri" | "khepri_ex"), Atom() as reason, Mapping() as props),
        ):
            return _refused(reason, props)
        case (Atom(text="raised"), _, (Atom(text="badmatch"), [])):
            # Khepri's own way to say that the one node which was read is not as demanded.
            return Refused("mismatching_node")
        case (Atom(text="raised"), kind, reason):
            return Raised(str(kind), reason)
        case (Atom(text="error"), (Atom(text="khepri" | "khepri_ex"), Atom() as reason, Mapping() as props)):
            return _refused(reason, props)
        case (Atom(text="error"), reason):
            return Aborted(reason)
        case bare:
            return _value(bare)


def _refused(reason: Atom, props: Mapping[Any, Any]) -> Refused:
    path = props.get(Atom(text="node_path"), props.get(Atom(text="path")))
    return Refused(RENAMED.get(str(reason), str(reason)), path)


def _value(term: Any) -> Any:
    match term:
        # A node without data, and a procedure, whose code Python does not get.
        case Atom(text="undefined") | (Atom(text="procedure"), _):
            return None
        case Mapping() if term and all(isinstance(key, list) for key in term):
            return {tuple(path): _of_node(value) for path, value in term.items()}
    return term


def _of_node(value: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(key, Atom) for key in value):
        return _value(value)
    props = {str(name): prop for name, prop in value.items()}
    if "sproc" in props:
        props["sproc"] = props["sproc"][1]
    return props


def comparable(value: Any, root: NativePath) -> Any:
    """A form in which equal means the same: types count, the order of what has none does not, and paths
    begin at the root of the case."""
    match value:
        case Refused("invalid_path"):
            # What was given, printed: it is no path of a node.
            return ("refused", "invalid_path")
        case NodeProps():
            members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return comparable({name: prop for name, prop in members.items() if prop is not None}, root)
        case Refused("mismatching_node"):
            # Of a read without its path.
            return ("refused", "mismatching_node")
        case Refused(reason, path):
            return ("refused", reason, comparable(path, root))
        case Aborted(reason):
            return ("aborted", comparable(reason, root))
        case Raised(kind, reason):
            return ("raised", kind, comparable(reason, root))
        case Mapping():
            return ("map", frozenset((comparable(k, root), _member(k, v, root)) for k, v in value.items()))
        case tuple() | list():
            inside = value[len(root) :] if tuple(value[: len(root)]) == root else value
            kind = "path" if inside is not value else type(value).__name__
            return (kind, *(comparable(part, root) for part in inside))
        case _:
            return (type(value).__name__, value)


def _member(name: Any, value: Any, root: NativePath) -> Any:
    match str(name), value:
        case "child_names", _:
            # They come in no order.
            return frozenset(comparable(child, root) for child in value)
        case "delete_reason", _:
            return str(value)
    return comparable(value, root)

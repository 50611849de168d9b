"""What a store tells of a node."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, TypeVar

from bridge.errors import ConfigurationError, ProtocolError
from bridge.etf import Atom
from bridge.khepri.paths import Name, NativePath, native_path

Value = TypeVar("Value")
_A_PART: Final = 2_000
"""nodes; a few milliseconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProps:
    """Properties of one node; ``None`` where one was not asked for, or there is none.

    Attributes:
        data: a term, which is never ``None``; of a write, the data that was there before it.
        sproc: number of arguments of the stored procedure.
        payload_version: 1 when the node is made, and one more with each change of the payload.
        child_list_version: 1 when the node is made, and one more when a child appears or goes.
        child_list_length: number of children.
        child_names: their names, in no order.
        has_data: whether it has data; told as ``is_sproc`` where it has a procedure.
        is_sproc: whether it has a procedure.
        delete_reason: why the node went; Khepri tells from 0.17 on.
    """

    data: Any = None
    sproc: int | None = None
    payload_version: int | None = None
    child_list_version: int | None = None
    child_list_length: int | None = None
    child_names: tuple[Name, ...] | None = None
    has_data: bool | None = None
    is_sproc: bool | None = None
    delete_reason: Literal["explicit", "keep_while"] | None = None


def props_from_term(term: Any) -> NodeProps:
    """Properties as a homeserver sends them.

    Raises:
        ProtocolError: a member that this version does not know.
    """
    try:
        members = {str(name): value for name, value in term.items()}
        if "child_names" in members:
            members["child_names"] = native_path(members["child_names"])
        if "delete_reason" in members:
            members["delete_reason"] = str(members["delete_reason"])
        return NodeProps(**members)
    except (AttributeError, TypeError, ConfigurationError):
        raise ProtocolError(f"no properties of a node: {term!r:.200}") from None


def many_props(term: Any) -> dict[NativePath, NodeProps]:
    """Properties by native path.

    Raises:
        ProtocolError: no such map.
    """
    return {path: props_from_term(props) for path, props in _by_path(term)}


def many_data(term: Any) -> dict[NativePath, Any]:
    """Data by native path; ``None`` where a node has none.

    Raises:
        ProtocolError: no such map.
    """
    return {path: data_of(props) for path, props in _by_path(term)}


def told_in_parts(term: Any, read: Callable[[Any], Value]) -> Generator[None, None, dict[NativePath, Value]]:
    """Make what ``read`` makes of each node, by native path, with a stop after each thousands of nodes.

    Args:
        term: properties by path.
        read: ``data_of`` or ``props_from_term``.

    Raises:
        ProtocolError: no such map.
    """
    found: dict[NativePath, Value] = {}
    pairs = iter(_pairs(term))
    while some := list(islice(pairs, _A_PART)):
        if found:
            yield
        for path, props in some:
            found[_path(path)] = read(props)
    return found


def data_of(props: Any) -> Any:
    """The data among properties, or ``None``.

    Raises:
        ProtocolError: no properties.
    """
    if type(props) is not dict and not isinstance(props, Mapping):
        raise ProtocolError(f"no properties of a node: {props!r:.200}")
    return props.get(_DATA)


def _by_path(term: Any) -> list[tuple[NativePath, Any]]:
    return [(_path(path), value) for path, value in _pairs(term)]


def _pairs(term: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(term, Mapping):
        raise ProtocolError(f"no map of paths: {term!r:.200}")
    return term.items()


def _path(path: Any) -> NativePath:
    try:
        return native_path(path)
    except (TypeError, ConfigurationError):
        raise ProtocolError(f"no path: {path!r:.200}") from None


_DATA = Atom("data")

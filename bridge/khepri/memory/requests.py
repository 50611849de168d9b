"""What is checked before the tree is asked: paths, conditions, data, options, as a homeserver checks them.

Source: ``docs/protocol.md`` §1; the Erlang modules ``kb_path``, ``kb_condition`` and ``kb_validate``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.errors import ConfigurationError
from bridge.etf import Atom, Closure, ExportFun, ImproperList, encode_term
from bridge.khepri.conditions import (
    AllOf,
    AnyOf,
    Condition,
    DataMatches,
    NameMatches,
    Not,
    PathMatches,
    condition_from_term,
    condition_term,
)
from bridge.khepri.memory.evaluate import compiled, is_recursive
from bridge.khepri.memory.keep_while import Pattern
from bridge.khepri.memory.match_spec import check_guards, variables
from bridge.khepri.memory.tree import KeepWhile, Unmatched
from bridge.khepri.memory.walk import TreeError
from bridge.khepri.paths import (
    MAX_PATH_BYTES,
    NativePath,
    NativePattern,
    Special,
    component_targets_specific_node,
    parse_path,
    targets_specific_node,
)

MAX_DATA_BYTES: Final = 1_048_576
_MAX_COMPONENTS: Final = 64
_MAX_NAME_BYTES: Final = 1_024
_MAX_RECURSIVE: Final = 2
_MAX_CONDITION_BYTES: Final = 16_384
_MAX_WATCHED: Final = 32
_MAX_TIMEOUT: Final = 60_000
_MAX_PROPS: Final = 16

NOT_AS_DEMANDED: Final = "the node is there and is not as demanded"
BRIDGE: Final = Atom("bridge")
_PAYLOAD: Final = Atom("payload")
_PROPS: Final = tuple(
    map(Atom, ("payload_version", "child_list_version", "child_list_length", "child_names", "has_payload"))
)
ALL_PROPS: Final = (_PAYLOAD, *_PROPS)
_SPECIALS: Final = {special.value: special for special in Special}
_KEEP_WHILE: Final = Atom("keep_while")


class RefusedError(Exception):
    """A request is refused as ``{error, {Reason, Props}}``.

    Attributes:
        reason: of ``docs/protocol.md`` §1.
        props: by name, terms; ``message`` among them.
    """

    def __init__(self, reason: str, message: str, props: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.props: dict[str, Any] = {**(props or {}), "message": message.encode()}

    def term(self) -> Any:
        """``{error, {Reason, Props}}``."""
        props = {Atom(name): value for name, value in self.props.items()}
        return (Atom("error"), (Atom(self.reason), props))


def pattern(term: Any) -> Pattern:
    """Any number of nodes, to be read.

    Raises:
        RefusedError: ``invalid_path`` or ``poison``.
    """
    return _checked(_real(_native(term)), term, keep_while=False)


def one(term: Any) -> Pattern:
    """A pattern that cannot match two nodes."""
    found = pattern(term)
    if targets_specific_node(found) is None:
        raise _invalid(term, "this pattern may match many nodes, and one is asked for")
    return found


def writable(term: Any) -> NativePath:
    """One node, by names alone, where callers may write."""
    found = pattern(term)
    if not found:
        raise _invalid(term, "the root is no node that holds data")
    names = tuple([name for name in found if isinstance(name, Atom | bytes)])
    if len(names) != len(found):
        raise _invalid(term, "a path of one node is needed, not a pattern")
    if names[0] is BRIDGE:
        raise _reserved()
    return names


def written(term: Any) -> Pattern:
    """A pattern of nodes that callers may write."""
    found = pattern(term)
    if not found:
        raise _invalid(term, "the root is no node that holds data")
    if not _avoids_bridge(found[0]):
        raise _reserved()
    return found


def written_one(term: Any) -> Pattern:
    """The same, of at most one node."""
    found = one(term)
    if not found:
        raise _invalid(term, "the root is no node that holds data")
    if component_targets_specific_node(found[0]) is BRIDGE:
        raise _reserved()
    return found


def keep_while(term: Any) -> KeepWhile | None:
    """The options of an operation that puts.

    Raises:
        RefusedError: ``invalid_options``; ``poison`` for a condition on data.
    """
    match term:
        case Mapping() if len(term) == 0:
            return None
        case Mapping() if len(term) == 1 and isinstance(watched := term.get(_KEEP_WHILE), Mapping):
            if len(watched) <= _MAX_WATCHED:
                return {_watched(path): condition(one, keep_while=True) for path, one in watched.items()}
    raise RefusedError(
        "invalid_options", "the option is #{keep_while => #{Path => Condition}}, with up to 32 paths"
    )


def data(term: Any) -> Any:
    """Data that may be stored.

    Raises:
        RefusedError: ``too_large`` or ``invalid_data``.
    """
    bounded(term)
    return storable(term)


def bounded(term: Any) -> None:
    """Refuse what is beyond 1 MiB."""
    size = len(encode_term(term))
    if size > MAX_DATA_BYTES:
        raise RefusedError(
            "too_large",
            "data is beyond 1 MiB: keep large things elsewhere",
            {"size": size, "maximum": MAX_DATA_BYTES},
        )


def storable(term: Any) -> Any:
    """The term; a function in it is refused."""
    pending = [term]
    while pending:
        match pending.pop():
            case ExportFun() | Closure():
                raise RefusedError("invalid_data", "a function cannot be stored")
            case tuple() | list() as several:
                pending.extend(several)
            case ImproperList(elements, tail):
                pending.extend((*elements, tail))
            case Mapping() as pairs:
                pending.extend(pairs.keys())
                pending.extend(pairs.values())
    return term


def write_options(term: Any) -> None:
    """``#{timeout}``."""
    _timeout(term)
    if any(str(key) != "timeout" for key in term):
        raise RefusedError("invalid_options", "the only option is timeout")


def read_options(term: Any) -> tuple[tuple[Atom, ...], bool, bool]:
    """``Read``: the properties to return, whether one node is expected, whether the root is included."""
    _timeout(term)
    props: tuple[Atom, ...] = (_PAYLOAD,)
    flags = {"expect_specific_node": False, "include_root_props": False}
    for key, value in term.items():
        match str(key):
            case "timeout":
                continue
            case "favor" if value in (Atom("low_latency"), Atom("consistency")):
                continue
            case "expect_specific_node" | "include_root_props" as flag if type(value) is bool:
                flags[flag] = value
                continue
            case "props_to_return" if type(value) is list and len(value) <= _MAX_PROPS:
                if all(any(prop is known for known in ALL_PROPS) for prop in value):
                    props = tuple(value)
                    continue
        raise RefusedError(
            "invalid_options",
            "options are favor (low_latency, consistency), timeout, props_to_return (a list of properties), "
            "expect_specific_node and include_root_props",
        )
    return props, flags["expect_specific_node"], flags["include_root_props"]


def condition(term: Any, *, keep_while: bool) -> Condition:
    """A condition that may be evaluated.

    Raises:
        RefusedError: ``poison``.
    """
    if isinstance(term, tuple) and len(encode_term(term)) > _MAX_CONDITION_BYTES:
        raise _poison("a condition has up to 16 KiB")
    try:
        found = condition_from_term(term)
    except ConfigurationError as error:
        raise _poison(f"not a condition of docs/protocol.md section 1: {error}") from None
    _check(found, keep_while=keep_while)
    return found


def path_term(path: Pattern) -> list[Any]:
    """The components of a path as terms."""
    return [condition_term(component) for component in path]


def refusal(error: TreeError, path: Pattern | None = None) -> RefusedError:
    """What the tree refused, as an answer tells it; ``path`` where the error knows none."""
    props: dict[str, Any] = {} if path is None else {"path": path_term(path)}
    known = error.props
    if "path" in known:
        props["path"] = path_term(tuple(known["path"]))
    if "condition" in known:
        props["condition"] = condition_term(known["condition"])
    match known.get("because"):
        case Unmatched(unmatched):
            props["because"] = (Atom("pattern_matches_no_nodes"), path_term(unmatched))
        case str() as text:
            props["reason"] = text.encode()
        case None:
            pass
        case failed:
            props["because"] = condition_term(failed)
    return RefusedError(error.reason, _MESSAGES.get(error.reason, "the store failed on this request"), props)


_MESSAGES: Final = {
    "node_not_found": "no node at this path: create it first",
    "mismatching_node": NOT_AS_DEMANDED,
    "keep_while_conditions_not_met": "a keep_while condition does not hold now",
    "invalid_path": "the store does not take this path here",
}


def _native(term: Any) -> NativePattern:
    if type(term) is bytes and len(term) <= MAX_PATH_BYTES:
        try:
            term.decode()
            return parse_path(term)
        except (UnicodeDecodeError, ConfigurationError):
            raise _invalid(term, "not a path such as /:stock/wood") from None
    if type(term) is list and len(term) <= _MAX_COMPONENTS:
        return tuple([_component(component, term) for component in term])
    raise _invalid(term, "a path is a binary such as /:stock/wood, or a list of atoms and binaries")


def _component(term: Any, path: Any) -> Any:
    match term:
        case bool():
            return Atom("true" if term else "false")
        case Atom() | bytes():
            return term
        case int() if term in _SPECIALS:
            return _SPECIALS[term]
        case tuple():
            return term
    raise _invalid(path, _SHAPE)


def _real(native: NativePattern) -> Any:
    found: list[Any] = []
    for component in native:
        if component is Special.ROOT:
            found.clear()
        elif component is Special.PARENT:
            del found[-1:]
        elif component is not Special.THIS:
            found.append(component)
    return tuple(found)


def _checked(native: Any, term: Any, *, keep_while: bool) -> Pattern:
    if len(native) > _MAX_COMPONENTS or not all(map(_is_component, native)):
        raise _invalid(term, _SHAPE)
    made = tuple([_condition(component, term, keep_while=keep_while) for component in native])
    if sum(map(is_recursive, made)) > _MAX_RECURSIVE:
        raise RefusedError(
            "poison",
            "more than two ** in a pattern: the store would try every way to match it",
            {"path": _printed(term)},
        )
    return made


def _condition(component: Any, path: Any, *, keep_while: bool) -> Condition:
    try:
        if isinstance(component, tuple):
            return condition(component, keep_while=keep_while)
        found: Condition = component
        _check(found, keep_while=keep_while)
    except RefusedError as refused:
        refused.props["path"] = _printed(path)
        raise
    return found


def _is_component(component: Any) -> bool:
    match component:
        case Atom():
            return len(component.text) > 0 and max(map(ord, component.text)) < 256
        case bytes():
            return 0 < len(component) <= _MAX_NAME_BYTES
    return True


def _watched(term: Any) -> NativePattern:
    native = _native(term)
    up = 0
    while up < len(native) and native[up] in (Special.THIS, Special.PARENT):
        up += 1
    down = native[up:] if up else _real(native)
    checked: Any = _checked(down, term, keep_while=True)
    return (*native[:up], *checked)


def _check(found: Condition, *, keep_while: bool) -> None:
    match found:
        case Atom() | bytes():
            if not _is_component(found):
                raise _poison("a name is a Latin-1 atom, or a binary, of 1 to 1024 bytes")
        case NameMatches(bytes() as regex) | PathMatches(bytes() as regex):
            _check_regex(regex)
        case DataMatches(matched, guards):
            if keep_while:
                raise _poison(
                    "if_data_matches in keep_while kills the store at a later write: watch existence or "
                    "versions instead"
                )
            if (wrong := check_guards(guards, variables(matched))) is not None:
                raise _poison(f"the pattern or the guards of if_data_matches do not compile: {wrong}")
        case Not(inner):
            _check(inner, keep_while=keep_while)
        case AllOf(several) | AnyOf(several):
            for inner in several:
                _check(inner, keep_while=keep_while)


def _check_regex(regex: bytes) -> None:
    if regex.startswith(b"(*"):
        raise _poison("a regular expression may not begin with (*")
    try:
        compiled(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise _poison(f"the regular expression does not compile in Python: {error}") from None


def _avoids_bridge(component: Condition) -> bool:
    match component:
        case Atom() | bytes():
            return component is not BRIDGE
        case AllOf(several):
            return any(map(_avoids_bridge, several))
        case AnyOf(several):
            return len(several) > 0 and all(map(_avoids_bridge, several))
    return False


def _timeout(term: Any) -> None:
    if not isinstance(term, Mapping):
        raise RefusedError("invalid_options", "options are a map such as #{timeout => 5000}")
    timeout = term.get(Atom("timeout"), 5_000)
    if type(timeout) is not int or not 1 <= timeout <= _MAX_TIMEOUT:
        raise RefusedError("invalid_options", "timeout is 1 to 60000 milliseconds")


_SHAPE: Final = "a path has up to 64 names of 1 to 1024 bytes (atoms in Latin-1), or conditions"


def _invalid(term: Any, message: str) -> RefusedError:
    return RefusedError("invalid_path", message, {"path": _printed(term)})


def _poison(message: str) -> RefusedError:
    return RefusedError("poison", message)


def _reserved() -> RefusedError:
    return RefusedError(
        "reserved_path",
        "below /:bridge only the homeserver itself writes; a pattern that writes begins with a name",
    )


def _printed(term: Any) -> bytes:
    return f"{term!r:.200}".encode()

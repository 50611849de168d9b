"""Conditions on nodes of the tree: in patterns, and in ``keep_while``.

Source: Khepri, ``include/khepri.hrl`` ("Path conditions") and module ``khepri_condition``. Khepri evaluates
conditions inside the log's ``apply``, where one it cannot evaluate ends the store on every member; so what is
malformed is refused here, and by the homeserver again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from bridge.errors import ConfigurationError
from bridge.etf import Atom, ErlangMap, ImproperList
from bridge.khepri.reply import PoisonError

MAX_REGEX_BYTES: Final = 256
"""bytes; a regular expression runs against every candidate, on every member"""
MAX_CONDITIONS: Final = 32
"""conditions side by side in ``AllOf`` or ``AnyOf``"""
MAX_CONDITION_DEPTH: Final = 8
"""levels of ``Not``, ``AllOf`` and ``AnyOf`` within one another, and the condition inside"""
MAX_PATTERN_DEPTH: Final = 32
"""levels of tuples, lists and maps in the pattern of ``DataMatches``"""

Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge"]
_COMPARISONS: Final = get_args(Comparison)
_VARIABLE: Final = re.compile(r"\$(0|[1-9]\d{0,8})")
_MAX_VARIABLE: Final = 100_000_000
_ANY: Final = Atom("any")
_UNDEFINED: Final = Atom("undefined")
_ANYTHING: Final = Atom("_")


@dataclass(frozen=True, slots=True)
class MatchAny:
    """In a pattern of ``DataMatches``: whatever stands there; ``'_'`` in Erlang."""


@dataclass(frozen=True, slots=True)
class MatchVariable:
    """In a pattern of ``DataMatches``: whatever stands there, for guards to speak of; ``'$1'`` in Erlang.

    Args:
        number: 0 to 100,000,000.
    """

    number: int

    def __post_init__(self) -> None:
        if type(self.number) is not int or not 0 <= self.number <= _MAX_VARIABLE:
            raise ConfigurationError(
                f"match variables are numbered 0 to {_MAX_VARIABLE}, not {self.number!r}"
            )


@dataclass(frozen=True, slots=True)
class _Regex:
    TAG: ClassVar[Atom]
    regex: str | bytes | None = None

    def __post_init__(self) -> None:
        if self.regex is not None and not isinstance(self.regex, str | bytes):
            raise ConfigurationError(f"a regular expression is str or bytes, not {self.regex!r:.100}")
        if self.regex is not None and len(_octets(self.regex)) > MAX_REGEX_BYTES:
            raise ConfigurationError(f"a regular expression has up to {MAX_REGEX_BYTES} bytes")


class NameMatches(_Regex):
    """The node's name matches a regular expression; without one every name does: ``*`` in a text path.

    Args:
        regex: as Erlang's ``re`` takes it, up to 256 bytes; unanchored unless it says ``^`` and ``$``.
    """

    __slots__ = ()
    TAG = Atom("if_name_matches")


class PathMatches(_Regex):
    """Like ``NameMatches``, for nodes at any depth below: ``**`` in a text path."""

    __slots__ = ()
    TAG = Atom("if_path_matches")


@dataclass(frozen=True, slots=True)
class _Flag:
    TAG: ClassVar[Atom]
    expected: bool = True

    def __post_init__(self) -> None:
        if type(self.expected) is not bool:
            raise ConfigurationError(f"{type(self).__name__} takes True or False, not {self.expected!r:.100}")


class HasPayload(_Flag):
    """The node has data or a stored procedure, or with ``False`` neither."""

    __slots__ = ()
    TAG = Atom("if_has_payload")


class HasData(_Flag):
    """The node has data, or with ``False`` none."""

    __slots__ = ()
    TAG = Atom("if_has_data")


class HasSproc(_Flag):
    """The node has a stored procedure, or with ``False`` none."""

    __slots__ = ()
    TAG = Atom("if_has_sproc")


class NodeExists(_Flag):
    """There is such a node, or with ``False`` none."""

    __slots__ = ()
    TAG = Atom("if_node_exists")


@dataclass(frozen=True, slots=True)
class _Bound:
    TAG: ClassVar[Atom]
    comparison: Comparison
    number: int

    def __post_init__(self) -> None:
        if self.comparison not in _COMPARISONS:
            raise ConfigurationError(f"a comparison is one of {_COMPARISONS}, not {self.comparison!r}")
        if type(self.number) is not int or self.number < 0:
            raise ConfigurationError(
                f"{type(self).__name__} compares with an integer from 0, not {self.number!r}"
            )


class PayloadVersion(_Bound):
    """The node's payload version compares so with a number: ``PayloadVersion("ge", 3)``.

    It is 1 when the node is made and rises with every change of the payload.
    """

    __slots__ = ()
    TAG = Atom("if_payload_version")


class ChildListVersion(_Bound):
    """Like ``PayloadVersion``, of the child list: it rises when a child appears or goes."""

    __slots__ = ()
    TAG = Atom("if_child_list_version")


class ChildListLength(_Bound):
    """The number of the node's children compares so with a number: ``ChildListLength("eq", 0)``."""

    __slots__ = ()
    TAG = Atom("if_child_list_length")


@dataclass(frozen=True, slots=True)
class DataMatches:
    """The node's data matches a pattern, and the guards hold. Never in ``keep_while``: it ends the store.

    Args:
        pattern: a term in which ``MatchAny`` and ``MatchVariable`` stand for anything. A map in it matches
            maps that have its members, and perhaps more.
        guards: terms of a match specification, such as ``(Atom(">="), MatchVariable(1), 3)``; a tuple that is
            data stands in a tuple of one.

    Source: Erlang, "Match Specifications in Erlang".
    """

    TAG: ClassVar[Atom] = Atom("if_data_matches")
    pattern: Any = MatchAny()
    guards: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.guards, tuple | list):
            raise ConfigurationError(f"guards are a list of terms, not {self.guards!r:.100}")
        object.__setattr__(self, "guards", tuple(self.guards))


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    TAG: ClassVar[Atom] = Atom("if_not")
    condition: Condition


@dataclass(frozen=True, slots=True, init=False)
class _Several:
    TAG: ClassVar[Atom]
    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        if len(conditions) > MAX_CONDITIONS:
            raise ConfigurationError(f"{type(self).__name__} takes up to {MAX_CONDITIONS} conditions")
        object.__setattr__(self, "conditions", conditions)


class AllOf(_Several):
    """Every condition holds; without any it always does: ``AllOf("wood", PayloadVersion("eq", 2))``."""

    __slots__ = ()
    TAG = Atom("if_all")


class AnyOf(_Several):
    """At least one condition holds; without any it never does."""

    __slots__ = ()
    TAG = Atom("if_any")


ConditionRecord = (
    NameMatches
    | PathMatches
    | HasPayload
    | HasData
    | HasSproc
    | NodeExists
    | DataMatches
    | PayloadVersion
    | ChildListVersion
    | ChildListLength
    | Not
    | AllOf
    | AnyOf
)
"""A condition that is no name."""
Condition = ConditionRecord | Atom | str | bytes
"""A condition; a name is met by the node of that name."""

_REGEXES: Final = {cls.TAG: cls for cls in (NameMatches, PathMatches)}
_FLAGS: Final = {cls.TAG: cls for cls in (HasPayload, HasData, HasSproc, NodeExists)}
_BOUNDS: Final = {cls.TAG: cls for cls in (PayloadVersion, ChildListVersion, ChildListLength)}
_SEVERAL: Final = {cls.TAG: cls for cls in (AllOf, AnyOf)}


def condition_term(condition: Condition) -> Any:
    """The term to send.

    Raises:
        ConfigurationError: no condition, or nested too deep; the text says what to write instead.
    """
    return _term(condition, MAX_CONDITION_DEPTH, keep_while=False)


def keep_while_term(condition: Condition) -> Any:
    """The term to send for a condition of ``keep_while``.

    Raises:
        PoisonError: ``DataMatches`` is in it: Khepri accepts that and fails on it at a later write, on every
            member and for good.
        ConfigurationError: as ``condition_term``.
    """
    return _term(condition, MAX_CONDITION_DEPTH, keep_while=True)


def condition_from_term(term: Any) -> Condition:
    """The condition that a homeserver sent, in a refusal say.

    Raises:
        ConfigurationError: no condition of Khepri.
    """
    return _condition(term, MAX_CONDITION_DEPTH)


def _term(condition: Condition, depth: int, *, keep_while: bool) -> Any:
    if depth == 0:
        raise _too_deep()
    match condition:
        case Atom() | bytes():
            return condition
        case str():
            return condition.encode()
        case _Regex(regex):
            return (condition.TAG, _ANY if regex is None else _octets(regex), _UNDEFINED)
        case _Flag(expected):
            return (condition.TAG, expected)
        case _Bound(comparison, number):
            return (condition.TAG, (Atom(comparison), number))
        case DataMatches(pattern, guards):
            if keep_while:
                raise PoisonError(
                    "DataMatches in keep_while ends the store at a later write: watch existence or versions",
                    reason=Atom("poison"),
                )
            wire_guards = [_match_term(guard, MAX_PATTERN_DEPTH) for guard in guards]
            return (condition.TAG, _match_term(pattern, MAX_PATTERN_DEPTH), wire_guards, _UNDEFINED)
        case Not(inner):
            return (condition.TAG, _term(inner, depth - 1, keep_while=keep_while))
        case _Several(conditions):
            return (condition.TAG, [_term(inner, depth - 1, keep_while=keep_while) for inner in conditions])
    raise ConfigurationError(
        f"{condition!r:.100} is no condition: use a name, or a class such as HasData, NodeExists, Not, AllOf"
    )


def _condition(term: Any, depth: int) -> Condition:
    if depth == 0:
        raise _too_deep()
    match term:
        case Atom() | bytes():
            return term
        case bool():
            return Atom("true" if term else "false")  # a name, as the decoder gives it
        case (Atom() as tag, regex, _) if tag in _REGEXES:
            return _REGEXES[tag](None if regex == _ANY else _octets(regex))
        case (Atom() as tag, pattern, list() as guards, _) if tag == DataMatches.TAG:
            return DataMatches(
                _match_pattern(pattern, MAX_PATTERN_DEPTH),
                [_match_pattern(guard, MAX_PATTERN_DEPTH) for guard in guards],
            )
        case (Atom() as tag, inner) if tag == Not.TAG:
            return Not(_condition(inner, depth - 1))
        case (Atom() as tag, list() as inner) if tag in _SEVERAL:
            return _SEVERAL[tag](*(_condition(one, depth - 1) for one in inner))
        case (Atom() as tag, flag) if tag in _FLAGS:
            return _FLAGS[tag](flag)
        case (Atom() as tag, (Atom() as comparison, number)) if tag in _BOUNDS:
            return _BOUNDS[tag](str(comparison), number)  # type: ignore[arg-type]  # it checks for itself
        case (Atom() as tag, number) if tag in _BOUNDS:
            return _BOUNDS[tag]("eq", number)
    raise ConfigurationError(f"{term!r:.100} is no condition of Khepri")


def _match_term(pattern: Any, depth: int) -> Any:
    """A pattern or a guard with its variables as the atoms that Erlang has for them."""
    if depth == 0:
        raise _pattern_too_deep()
    match pattern:
        case MatchAny():
            return _ANYTHING
        case MatchVariable(number):
            return Atom(f"${number}")
        case tuple():
            return tuple(_match_term(part, depth - 1) for part in pattern)
        case list():
            return [_match_term(part, depth - 1) for part in pattern]
        case ImproperList(elements, tail):
            return ImproperList(
                [_match_term(part, depth - 1) for part in elements], _match_term(tail, depth - 1)
            )
        case Mapping():
            # Match specifications know no variables in keys.
            return ErlangMap((key, _match_term(value, depth - 1)) for key, value in pattern.items())
    return pattern


def _match_pattern(term: Any, depth: int) -> Any:
    """The inverse of ``_match_term``."""
    if depth == 0:
        raise _pattern_too_deep()
    match term:
        case Atom():
            if term == _ANYTHING:
                return MatchAny()
            variable = _VARIABLE.fullmatch(str(term))
            return MatchVariable(int(variable[1])) if variable and int(variable[1]) <= _MAX_VARIABLE else term
        case tuple():
            return tuple(_match_pattern(part, depth - 1) for part in term)
        case list():
            return [_match_pattern(part, depth - 1) for part in term]
        case ImproperList(elements, tail):
            return ImproperList(
                [_match_pattern(part, depth - 1) for part in elements], _match_pattern(tail, depth - 1)
            )
        case Mapping():
            return ErlangMap((key, _match_pattern(value, depth - 1)) for key, value in term.items())
    return term


def _octets(regex: Any) -> bytes:
    """A regular expression as bytes, which Khepri's own paths write as a list of them."""
    match regex:
        case str():
            return regex.encode()
        case bytes():
            return regex
        case list() if all(type(part) is int and part < 256 for part in regex):
            return bytes(regex)
    raise ConfigurationError(f"a regular expression is bytes, not {regex!r:.100}")


def _too_deep() -> ConfigurationError:
    return ConfigurationError(f"conditions are nested deeper than {MAX_CONDITION_DEPTH} levels")


def _pattern_too_deep() -> ConfigurationError:
    return ConfigurationError(f"a pattern of data is nested deeper than {MAX_PATTERN_DEPTH} levels")

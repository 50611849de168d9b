"""Match specifications, as far as ``if_data_matches`` may hold them.

Source: Erlang, "Match Specifications in Erlang"; what may be in guards is ``docs/protocol.md`` §1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.etf import Atom, BitString, Closure, ErlangMap, ExportFun, ImproperList, Pid, Port, Reference
from bridge.khepri.conditions import MatchAny, MatchVariable
from bridge.khepri.memory.order import compare, same

Bindings = dict[int, Any]


def matches(pattern: Any, guards: Sequence[Any], term: Any) -> bool:
    """Whether a term matches a pattern, and every guard is ``true``; a guard that fails is not.

    Args:
        pattern: with ``MatchAny`` and ``MatchVariable`` for what may be anything.
        guards: terms that ``check_guards`` took.
        term: the data.
    """
    found: Bindings = {}
    if not _bind(pattern, term, found):
        return False
    scope = _Scope(term, found)
    try:
        return all(scope.value(guard) is True for guard in guards)
    except _BadargError:
        return False


def variables(pattern: Any) -> set[int]:
    """Numbers of the variables that a pattern binds."""
    match pattern:
        case MatchVariable(number):
            return {number}
        case tuple() | list():
            return set().union(*map(variables, pattern))
        case ImproperList(elements, tail):
            return variables([*elements, tail])
        case Mapping():
            return variables(list(pattern.values()))
    return set()


def check_guards(guards: Sequence[Any], bound: set[int]) -> str | None:
    """What is wrong with guards: a function that there is not, say, or a variable that the pattern lacks."""
    return next((wrong for guard in guards if (wrong := _wrong(guard, bound)) is not None), None)


class _BadargError(Exception):
    """A guard failed."""


def _bind(pattern: Any, term: Any, found: Bindings) -> bool:
    match pattern:
        case MatchAny():
            return True
        case MatchVariable(number):
            if number in found:
                return same(found[number], term)
            found[number] = term
            return True
        case tuple():
            return type(term) is tuple and _bind_all(pattern, term, found)
        case list():
            return type(term) is list and _bind_all(pattern, term, found)
        case ImproperList(elements, tail):
            heads, rest = (term.elements, term.tail) if isinstance(term, ImproperList) else (term, [])
            if type(heads) not in (list, tuple) or type(term) is tuple or len(heads) < len(elements):
                return False
            left = list(heads[len(elements) :])
            over = rest if not left else left if rest == [] else ImproperList(left, rest)
            return _bind_all(elements, heads[: len(elements)], found) and _bind(tail, over, found)
        case Mapping():
            return isinstance(term, Mapping) and _bind_map(pattern, term, found)
    return same(pattern, term)


def _bind_all(patterns: Sequence[Any], terms: Sequence[Any], found: Bindings) -> bool:
    return len(patterns) == len(terms) and all(
        _bind(pattern, term, found) for pattern, term in zip(patterns, terms, strict=True)
    )


def _bind_map(pattern: Mapping[Any, Any], term: Mapping[Any, Any], found: Bindings) -> bool:
    """A map matches maps that have its members, and perhaps more."""
    known = ErlangMap(term.items())
    return all(key in known and _bind(value, known[key], found) for key, value in pattern.items())


class _Scope:
    def __init__(self, whole: Any, found: Bindings) -> None:
        self._whole = whole
        self._found = found

    def value(self, guard: Any) -> Any:
        match guard:
            case MatchVariable(number):
                return self._found[number]
            case Atom():
                return self._whole if guard is _WHOLE else self._all() if guard is _ALL else guard
            case list():
                return [self.value(part) for part in guard]
            case Mapping():
                return ErlangMap((key, self.value(value)) for key, value in guard.items())
            case (tuple() as made,):
                return tuple([self.value(part) for part in made])
            case (Atom() as name, *arguments) if isinstance(guard, tuple):
                return self._call(name.text, arguments)
        return guard

    def _all(self) -> list[Any]:
        return [self._found[number] for number in sorted(self._found)]

    def _call(self, name: str, arguments: list[Any]) -> Any:
        match name:
            case "const":
                return arguments[0]
            case "andalso":
                return all(_flag(self.value(argument)) for argument in arguments)
            case "orelse":
                return any(_flag(self.value(argument)) for argument in arguments)
            case "is_record":
                return _is_record(self.value(arguments[0]), *arguments[1:])
        return _FUNCTIONS[name][1](*[self.value(argument) for argument in arguments])


def _wrong(guard: Any, bound: set[int]) -> str | None:
    match guard:
        case MatchAny():
            return "'_' stands in a guard"
        case MatchVariable(number):
            return None if number in bound else f"the pattern has no '${number}'"
        case list():
            return check_guards(guard, bound)
        case Mapping():
            return check_guards(list(guard.values()), bound)
        case (Atom() as name, *arguments) if isinstance(guard, tuple):
            return _wrong_call(name.text, arguments, bound)
        case (tuple() as made,):
            return check_guards(made, bound)
        case tuple():
            return "a tuple that is data stands in a tuple of one"
    return None


def _wrong_call(name: str, arguments: list[Any], bound: set[int]) -> str | None:
    if name == "const":
        return None if len(arguments) == 1 else "const takes one term"
    least, most = _SHORT_CIRCUIT.get(name) or (_FUNCTIONS[name][0] if name in _FUNCTIONS else (-1, -1))
    if not least <= len(arguments) <= most:
        return f"{name}/{len(arguments)} is no guard function that is offered"
    return check_guards(arguments, bound)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _BadargError
    return value


def _number(value: Any) -> Any:
    if type(value) not in (int, float):
        raise _BadargError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise _BadargError
    return value


def _finite(value: Any) -> Any:
    if type(value) is float and not math.isfinite(value):
        raise _BadargError
    return value


def _divide(left: Any, right: Any) -> int:
    """Towards zero, as Erlang divides."""
    dividend, divisor = _integer(left), _integer(right)
    if divisor == 0:
        raise _BadargError
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _remainder(left: Any, right: Any) -> int:
    return _integer(left) - _divide(left, right) * _integer(right)


def _rounded(value: Any) -> int:
    """Away from zero where it lies between two integers."""
    number = _number(value)
    whole: int = math.trunc(number)
    return whole + (0 if abs(number - whole) < 0.5 else 1 if number > 0 else -1)


def _element(position: Any, value: Any) -> Any:
    if type(value) is not tuple or not 1 <= _integer(position) <= len(value):
        raise _BadargError
    return value[position - 1]


def _head(value: Any) -> Any:
    return _cons(value)[0]


def _tail(value: Any) -> Any:
    elements = _cons(value)[1:]
    if not isinstance(value, ImproperList):
        return elements
    return ImproperList(elements, value.tail) if elements else value.tail


def _cons(value: Any) -> list[Any]:
    elements = list(value.elements) if isinstance(value, ImproperList) else value
    if type(elements) is not list or not elements:
        raise _BadargError
    return elements


def _length(value: Any) -> int:
    if type(value) is not list:
        raise _BadargError
    return len(value)


def _map(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _BadargError
    return value if isinstance(value, ErlangMap) else ErlangMap(value)


def _map_get(key: Any, value: Any) -> Any:
    found = _map(value)
    if key not in found:
        raise _BadargError
    return found[key]


def _size(value: Any) -> int:
    match value:
        case tuple() | bytes():
            return len(value)
        case BitString():
            return len(value) // 8
    raise _BadargError


def _is_record(value: Any, tag: Any, size: Any = None) -> bool:
    return (
        type(value) is tuple
        and len(value) > 0
        and isinstance(value[0], Atom)
        and same(value[0], tag)
        and (size is None or len(value) == size)
    )


def _is_of(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and (bool in types or type(value) is not bool)


_WHOLE: Final = Atom("$_")
_ALL: Final = Atom("$$")
_MANY: Final = 255
_SHORT_CIRCUIT: Final = {"andalso": (1, _MANY), "orelse": (1, _MANY), "is_record": (2, 3)}
_FUNCTIONS: Final[Mapping[str, tuple[tuple[int, int], Callable[..., Any]]]] = {
    "is_atom": ((1, 1), _is_of(Atom, bool)),
    "is_float": ((1, 1), _is_of(float)),
    "is_integer": ((1, 1), _is_of(int)),
    "is_list": ((1, 1), _is_of(list, ImproperList)),
    "is_number": ((1, 1), _is_of(int, float)),
    "is_pid": ((1, 1), _is_of(Pid)),
    "is_port": ((1, 1), _is_of(Port)),
    "is_reference": ((1, 1), _is_of(Reference)),
    "is_tuple": ((1, 1), _is_of(tuple)),
    "is_map": ((1, 1), _is_of(Mapping)),
    "is_map_key": ((2, 2), lambda key, value: key in _map(value)),
    "is_binary": ((1, 1), _is_of(bytes)),
    "is_function": ((1, 1), _is_of(ExportFun, Closure)),
    "and": ((1, _MANY), lambda *flags: False not in [_flag(flag) for flag in flags]),
    "or": ((1, _MANY), lambda *flags: True in [_flag(flag) for flag in flags]),
    "not": ((1, 1), lambda flag: not _flag(flag)),
    "xor": ((2, 2), lambda left, right: _flag(left) is not _flag(right)),
    "abs": ((1, 1), lambda value: abs(_number(value))),
    "element": ((2, 2), _element),
    "hd": ((1, 1), _head),
    "tl": ((1, 1), _tail),
    "length": ((1, 1), _length),
    "map_get": ((2, 2), _map_get),
    "map_size": ((1, 1), lambda value: len(_map(value))),
    "round": ((1, 1), _rounded),
    "trunc": ((1, 1), lambda value: math.trunc(_number(value))),
    "size": ((1, 1), _size),
    "+": ((1, 2), lambda left, *right: _finite(_number(left) + sum(map(_number, right)))),
    "-": (
        (1, 2),
        lambda left, *right: _finite(_number(left) - _number(right[0]) if right else -_number(left)),
    ),
    "*": ((2, 2), lambda left, right: _finite(_number(left) * _number(right))),
    "div": ((2, 2), _divide),
    "rem": ((2, 2), _remainder),
    "band": ((2, 2), lambda left, right: _integer(left) & _integer(right)),
    "bor": ((2, 2), lambda left, right: _integer(left) | _integer(right)),
    "bxor": ((2, 2), lambda left, right: _integer(left) ^ _integer(right)),
    "bnot": ((1, 1), lambda value: ~_integer(value)),
    ">": ((2, 2), lambda left, right: compare(left, right) > 0),
    ">=": ((2, 2), lambda left, right: compare(left, right) >= 0),
    "<": ((2, 2), lambda left, right: compare(left, right) < 0),
    "=<": ((2, 2), lambda left, right: compare(left, right) <= 0),
    "==": ((2, 2), lambda left, right: compare(left, right) == 0),
    "/=": ((2, 2), lambda left, right: compare(left, right) != 0),
    "=:=": ((2, 2), same),
    "=/=": ((2, 2), lambda left, right: not same(left, right)),
}
"""how many arguments a function takes, and the function"""

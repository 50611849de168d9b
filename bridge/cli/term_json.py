"""Erlang terms as JSON, both ways and without loss: how values are written on the command line.

====================================  ==================================================
JSON                                  Erlang
====================================  ==================================================
``"text"``                            binary (UTF-8)
``1``, ``1.5``, ``[…]``               integer, float, list
``true``, ``false``, ``null``         the atoms ``true``, ``false``, ``null``
``{"count": 3}``                      map with binary keys
``{"$atom": "ready"}``                atom
``{"$tuple": […]}``                   tuple
``{"$base64": "…"}``                  binary that is no UTF-8 text
``{"$map": [[key, value], …]}``       map with other keys, or with binary keys that begin with ``$``
``{"$term": "…"}``                    anything else (process ids, references, bit strings, …):
                                      External Term Format, base64
====================================  ==================================================
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.errors import BridgeError, ConfigurationError
from bridge.etf import Atom, ErlangMap, decode_term, encode_term

_NULL: Final = Atom("null")
_MAX_DIGITS: Final = 4_300
"""with its sign; Python converts no more, since that takes quadratic time"""


def term_from_json(text: str) -> Any:
    """The term that a JSON text means.

    Raises:
        ConfigurationError: no JSON, or a ``$`` form that is malformed.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ConfigurationError("the JSON value is nested too deeply") from None
    except ValueError as error:
        raise ConfigurationError(
            f"the value is no JSON ({error}); text needs its quotation marks: '\"text\"'"
        ) from None
    return _to_term(value)


def json_from_term(term: Any) -> Any:
    """What `json.dumps` takes, for any term."""
    match term:
        case bool() | int() | str():
            return term
        case float() if math.isfinite(term):
            return term
        case None:
            return None
        case Atom():
            return None if term == _NULL else {"$atom": str(term)}
        case bytes():
            try:
                return term.decode("utf-8")
            except UnicodeDecodeError:
                return {"$base64": base64.b64encode(term).decode("ascii")}
        case tuple():
            return {"$tuple": [json_from_term(item) for item in term]}
        case list():
            return [json_from_term(item) for item in term]
        case Mapping():
            pairs = [(json_from_term(key), json_from_term(value)) for key, value in term.items()]
            if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
                return dict(pairs)
            return {"$map": [[key, value] for key, value in pairs]}
    return {"$term": base64.b64encode(encode_term(term)).decode("ascii")}


def _to_term(value: Any) -> Any:
    match value:
        case None:
            return _NULL
        case str():
            try:
                return value.encode("utf-8")
            except UnicodeEncodeError:
                raise ConfigurationError(
                    'the value has text that is no UTF-8: bytes are {"$base64": "…"}'
                ) from None
        case list():
            return [_to_term(item) for item in value]
        case dict() if len(value) == 1 and (name := next(iter(value))) in _FORMS:
            try:
                return _FORMS[name](value[name])
            except (ValueError, TypeError, binascii.Error, BridgeError) as error:
                raise ConfigurationError(f"{name} in the value is malformed: {error}") from None
        case dict():
            return {_to_term(key): _to_term(item) for key, item in value.items()}
    return value


_FORMS: Final[dict[str, Callable[[Any], Any]]] = {
    "$atom": lambda value: Atom(value),
    "$tuple": lambda value: tuple(_to_term(item) for item in value),
    "$base64": lambda value: base64.b64decode(value, validate=True),
    "$map": lambda value: ErlangMap([(_to_term(key), _to_term(item)) for key, item in value]),
    "$term": lambda value: decode_term(base64.b64decode(value, validate=True)),
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is more than a float holds")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer has at most {_MAX_DIGITS} digits, and this one {len(text)}")
    return int(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} has no Erlang counterpart")

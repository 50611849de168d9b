"""Terms to bytes.

Source of the format: Erlang "External Term Format", section by tag. One loop over a stack of iterators
instead of recursion: a term of any depth encodes, and the calls saved pay for the stack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Any, Final

from bridge.errors import ConfigurationError, LimitExceededError
from bridge.etf.limits import DEFAULT_LIMITS, TermLimits
from bridge.etf.terms import Atom, BitString, Closure, ExportFun, ImproperList, Pid, Port, Reference

_SMALL: Final = [bytes((97, n)) for n in range(256)]
_SMALL_TUPLE: Final = [bytes((104, n)) for n in range(256)]
_INTEGER: Final = struct.Struct(">Bi").pack
_FLOAT: Final = struct.Struct(">Bd").pack
_SIZED: Final = struct.Struct(">BI").pack
_BITS: Final = struct.Struct(">BIB").pack
_THREE_WORDS: Final = struct.Struct(">III").pack
_PORT: Final = struct.Struct(">QI").pack
_REFERENCE: Final = struct.Struct(">BH").pack
_TRUE: Final = Atom("true").wire
_FALSE: Final = Atom("false").wire
_NIL: Final = b"j"
_END_OF_LIST: Final[tuple[Any, ...]] = ([],)


def encode_term(term: Any, *, limits: TermLimits = DEFAULT_LIMITS) -> bytes:
    """The term as ``binary_to_term/1`` reads it, uncompressed.

    Args:
        term: see ``bridge.etf.terms`` for what maps to what.
        limits: ``max_depth`` holds here too, which ends the encoding of a list that contains itself.

    Raises:
        ConfigurationError: something in it is no term (``None``, NaN, an arbitrary object, a key twice).
        LimitExceededError: it is nested deeper than ``max_depth``.
    """
    parts = [b"\x83"]
    _encode(term, parts, limits.max_depth, canonical=False)
    return b"".join(parts)


def encode_bare(term: Any, *, limits: TermLimits = DEFAULT_LIMITS) -> bytes:
    """Like ``encode_term``, without the leading 131: what follows a distribution header.

    Raises:
        ConfigurationError: something in it is no term.
        LimitExceededError: it is nested deeper than ``max_depth``.
    """
    parts: list[bytes] = []
    _encode(term, parts, limits.max_depth, canonical=False)
    return b"".join(parts)


def term_identity(term: Any) -> bytes:
    """Bytes that are equal exactly for terms that are ``=:=`` in Erlang (as of OTP 27 for ``-0.0``).

    Raises:
        ConfigurationError: no term.
        LimitExceededError: nested too deep.
    """
    parts: list[bytes] = []
    _encode(term, parts, DEFAULT_LIMITS.max_depth, canonical=True)
    return b"".join(parts)


def _encode(root: Any, parts: list[bytes], max_depth: int, *, canonical: bool) -> None:
    add = parts.append
    stack: list[Iterator[Any]] = []
    pending: Iterator[Any] = iter((root,))
    while True:
        # The tests are in the order of how often a type occurs in calls and their answers.
        for term in pending:
            kind = type(term)
            if kind is Atom:
                add(term.wire)
            elif kind is bytes:
                add(_SIZED(109, len(term)))
                add(term)
            elif kind is int:
                if 0 <= term <= 255:
                    add(_SMALL[term])
                elif -0x8000_0000 <= term <= 0x7FFF_FFFF:
                    add(_INTEGER(98, term))
                else:
                    add(_big(term))
            elif kind is tuple:
                size = len(term)
                add(_SMALL_TUPLE[size] if size < 256 else _SIZED(105, size))
                if not size:
                    continue  # what is empty is no level, here as in the decoder
                stack.append(pending)
                pending = iter(term)
                break
            elif kind is list:
                if not term:
                    add(_NIL)
                    continue
                add(_SIZED(108, len(term)))
                stack.append(pending)
                pending = chain(term, _END_OF_LIST)
                break
            elif kind is dict and not canonical:
                add(_SIZED(116, len(term)))
                if not term:
                    continue
                stack.append(pending)
                pending = chain.from_iterable(term.items())
                break
            elif kind is str:
                raw = _utf8(term)
                add(_SIZED(109, len(raw)))
                add(raw)
            elif kind is Pid:
                add(_pid(term))
            elif kind is Reference:
                add(_reference(term))
            elif kind is bool:
                add(_TRUE if term else _FALSE)
            elif kind is float:
                if not isfinite(term):
                    raise ConfigurationError(f"{term} is no term: Erlang has neither NaN nor infinity")
                add(_FLOAT(70, term))
            elif kind is ImproperList:
                add(_SIZED(108, len(term.elements)))
                stack.append(pending)
                pending = chain(term.elements, (term.tail,))
                break
            elif isinstance(term, Mapping):
                add(_SIZED(116, len(term)))
                if not term:
                    continue
                stack.append(pending)
                if canonical:
                    pending = chain.from_iterable(
                        (
                            pair
                            for _, pair in sorted(
                                ((term_identity(k), (k, v)) for k, v in term.items()), key=_first
                            )
                        )
                    )
                else:
                    pending = chain.from_iterable(term.items())
                break
            else:
                replaced = _rare(term, add)
                if replaced is not None:
                    stack.append(pending)
                    pending = iter((replaced,))
                    break
        else:
            if not stack:
                return
            pending = stack.pop()
            continue
        if len(stack) > max_depth:
            raise LimitExceededError("max_depth", max_depth, "levels")


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _rare(term: Any, add: Any) -> Any:
    """Encode a rare kind, or give the plain value that a subclass of a common one stands for."""
    match term:
        case Port():
            _check_words(term, term.creation)
            if not 0 <= term.id < 1 << 64:
                raise ConfigurationError(f"{term!r} does not fit the format")
            add(b"x" + term.node.wire + _PORT(term.id, term.creation))
        case ExportFun():
            if not 0 <= term.arity <= 255:
                raise ConfigurationError(f"{term!r}: an arity is 0–255")
            add(b"q" + term.module.wire + term.function.wire + _SMALL[term.arity])
        case Closure():
            add(_SIZED(112, len(term.data) + 4))
            add(term.data)
        case BitString():
            add(_BITS(77, len(term.data), term.bits))
            add(term.data)
        case bytearray() | memoryview():
            return bytes(term)
        # Subclasses: IntEnum, NamedTuple and their like. bool cannot be subclassed.
        case bytes():
            return bytes(term)
        case int():
            return int(term)
        case str():
            return str.__str__(term)
        case float():
            return float(term)
        case tuple():
            return tuple(term)
        case list():
            return list(term)
        case None:
            raise ConfigurationError("None is no term: say Atom('undefined') or Atom('nil')")
        case _:
            raise ConfigurationError(f"{type(term).__name__} is no term")
    return None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{text[:40]!a} holds a lone surrogate; pass bytes") from None


def _check_words(term: Any, *words: int) -> None:
    if any(not 0 <= word <= 0xFFFF_FFFF for word in words):
        raise ConfigurationError(f"{term!r} does not fit the format: a field is 32 bits")


def _pid(pid: Pid) -> bytes:
    try:
        return b"X" + pid.node.wire + _THREE_WORDS(pid.id, pid.serial, pid.creation)
    except struct.error:
        raise ConfigurationError(f"{pid!r} does not fit the format: a field is 32 bits") from None


def _reference(reference: Reference) -> bytes:
    ids = reference.ids
    try:
        if not 1 <= len(ids) <= 5:
            raise ConfigurationError(f"{reference!r}: a reference has one to five words")
        return (
            _REFERENCE(90, len(ids))
            + reference.node.wire
            + struct.pack(f">{len(ids) + 1}I", reference.creation, *ids)
        )
    except struct.error:
        raise ConfigurationError(f"{reference!r} does not fit the format: a field is 32 bits") from None


def _big(number: int) -> bytes:
    size = (number.bit_length() + 7) // 8
    header = bytes((110, size)) if size < 256 else _SIZED(111, size)
    return header + (b"\x01" if number < 0 else b"\x00") + abs(number).to_bytes(size, "little")

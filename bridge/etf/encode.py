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
_BINARY: Final = [_SIZED(109, n) for n in range(256)]
_LIST: Final = [_SIZED(108, n) for n in range(256)]
_MAP: Final = [_SIZED(116, n) for n in range(256)]
_BITS: Final = struct.Struct(">BIB").pack
_THREE_WORDS: Final = struct.Struct(">III").pack
_PORT: Final = struct.Struct(">QI").pack
_ARITY: Final = struct.Struct(">BB").pack
_REFERENCES: Final = {n: (bytes((90, 0, n)), struct.Struct(f">{n + 1}I").pack) for n in range(1, 6)}
"""head, and packer of creation and words, by the number of words"""
_TRUE: Final = Atom("true").wire
_FALSE: Final = Atom("false").wire
_NIL: Final = b"j"


def encode_term(term: Any, *, limits: TermLimits = DEFAULT_LIMITS) -> bytes:
    """The term as ``binary_to_term/1`` reads it, uncompressed.

    Args:
        term: see ``bridge.etf.terms`` for what maps to what.
        limits: ``max_depth`` holds here too, which ends the encoding of a list that contains itself.

    Raises:
        ConfigurationError: something in it is no term (``None``, NaN, an arbitrary object, a key twice).
        LimitExceededError: it is nested deeper than ``max_depth``, or has an atom beyond the budget.
    """
    parts = [b"\x83"]
    encode_parts(term, parts, limits.max_depth)
    return b"".join(parts)


def encode_bare(term: Any, *, limits: TermLimits = DEFAULT_LIMITS) -> bytes:
    """Like ``encode_term``, without the leading 131: what follows a distribution header.

    Raises:
        ConfigurationError: something in it is no term.
        LimitExceededError: it is nested deeper than ``max_depth``, or has an atom beyond the budget.
    """
    parts: list[bytes] = []
    encode_parts(term, parts, limits.max_depth)
    return b"".join(parts)


def encode_parts(
    root: Any, parts: list[bytes], max_depth: int, digests: Mapping[int, bytes] | None = None
) -> None:
    """Append the term's encoding to ``parts``; ``digests``: by ``id``, what to write in place of its maps.

    Raises:
        ConfigurationError: something in it is no term.
        LimitExceededError: it is nested deeper than ``max_depth``, or has an atom beyond the budget.
    """
    # What is left of the containers around, each with the bytes that end the one inside it.
    stack: list[tuple[Iterator[Any], bytes]] = []
    pending: Iterator[Any] = iter((root,))
    ending = b""
    while True:
        # The tests are in the order of how often a type occurs in calls and their answers.
        for term in pending:
            kind = type(term)
            if kind is Atom:
                parts.append(term.wire)
            elif kind is bytes:
                size = len(term)
                parts.append(_BINARY[size] if size < 256 else _SIZED(109, size))
                parts.append(term)
            elif kind is int:
                if 0 <= term <= 255:
                    parts.append(_SMALL[term])
                elif -0x8000_0000 <= term <= 0x7FFF_FFFF:
                    parts.append(_INTEGER(98, term))
                else:
                    parts.append(_big(term))
            elif kind is dict and digests is None:
                size = len(term)
                parts.append(_MAP[size] if size < 256 else _SIZED(116, size))
                if size:  # what is empty is no level, here as in the decoder
                    stack.append((pending, ending))
                    pending = chain.from_iterable(term.items())
                    ending = b""
                    break
            elif kind is tuple:
                size = len(term)
                parts.append(_SMALL_TUPLE[size] if size < 256 else _SIZED(105, size))
                if size:
                    stack.append((pending, ending))
                    pending = iter(term)
                    ending = b""
                    break
            elif kind is list:
                size = len(term)
                if size:
                    parts.append(_LIST[size] if size < 256 else _SIZED(108, size))
                    stack.append((pending, ending))
                    pending = iter(term)
                    ending = _NIL
                    break
                parts.append(_NIL)
            elif kind is str:
                raw = _utf8(term)
                parts.append(_SIZED(109, len(raw)))
                parts.append(raw)
            elif kind is bool:
                parts.append(_TRUE if term else _FALSE)
            elif kind is float:
                if not isfinite(term):
                    raise ConfigurationError(f"{term} is no term: Erlang has neither NaN nor infinity")
                parts.append(_FLOAT(70, term))
            elif kind is Reference:
                parts.append(_reference(term))
            elif kind is Pid:
                parts.append(_pid(term))
            elif kind is ImproperList:
                parts.append(_SIZED(108, len(term.elements)))
                stack.append((pending, ending))
                pending = chain(term.elements, (term.tail,))
                ending = b""
                break
            elif isinstance(term, Mapping):
                if digests is not None:
                    parts.append(digests[id(term)])
                    continue
                parts.append(_SIZED(116, len(term)))
                if term:
                    stack.append((pending, ending))
                    pending = chain.from_iterable(term.items())
                    ending = b""
                    break
            else:
                replaced = _rare(term, parts.append)
                if replaced is not None:
                    stack.append((pending, ending))
                    pending = iter((replaced,))
                    ending = b""
                    break
        else:
            if ending:
                parts.append(ending)
            if not stack:
                return
            pending, ending = stack.pop()
            continue
        if len(stack) > max_depth:
            raise LimitExceededError("max_depth", max_depth, "levels")


def _rare(term: Any, add: Any) -> Any:
    """Encode a rare kind, or give the plain value that a subclass of a common one stands for."""
    match term:
        case Port():
            add(_port(term))
        case ExportFun():
            add(_export(term))
        case Closure():
            if type(term.data) is not bytes:
                raise ConfigurationError("the content of a closure is bytes")
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


_MISFITS: Final = (AttributeError, TypeError, struct.error)
"""what comes of a name that is no atom, or of a field that is no number or too large"""


def _pid(pid: Pid) -> bytes:
    try:
        return b"X" + pid.node.wire + _THREE_WORDS(pid.id, pid.serial, pid.creation)
    except _MISFITS:
        raise ConfigurationError(f"{pid!r}: a node is an atom, and a field has 32 bits") from None


def _port(port: Port) -> bytes:
    try:
        return b"x" + port.node.wire + _PORT(port.id, port.creation)
    except _MISFITS:
        raise ConfigurationError(f"{port!r}: a node is an atom, an id has 64 bits, a creation 32") from None


def _reference(reference: Reference) -> bytes:
    ids = reference.ids
    try:
        head, pack = _REFERENCES[len(ids)]
        return head + reference.node.wire + pack(reference.creation, *ids)
    except KeyError:
        raise ConfigurationError(f"{reference!r}: a reference has one to five words") from None
    except _MISFITS:
        raise ConfigurationError(f"{reference!r}: a node is an atom, and a word has 32 bits") from None


def _export(fun: ExportFun) -> bytes:
    try:
        return b"q" + fun.module.wire + fun.function.wire + _ARITY(97, fun.arity)
    except _MISFITS:
        raise ConfigurationError(f"{fun!r}: its names are atoms, and an arity is 0–255") from None


def _big(number: int) -> bytes:
    size = (number.bit_length() + 7) // 8
    header = bytes((110, size)) if size < 256 else _SIZED(111, size)
    return header + (b"\x01" if number < 0 else b"\x00") + abs(number).to_bytes(size, "little")

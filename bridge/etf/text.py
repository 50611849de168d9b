"""Terms as people read them, in messages of errors and of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from bridge.etf.terms import BitString, Closure, ImproperList

_MAX_DEPTH: Final = 32
"""levels that are written out; Python has a thousand for everything under way"""
_MAX_BITS: Final = 2_048
"""of an integer that is written out: Python refuses more than 4,300 digits, or as few as 640 if told so"""


def shorten(term: Any, characters: int = 500) -> str:
    """A term, or anything else, in so many characters at most; what it costs is bounded too.

    What fits reads as ``repr`` would write it. It never raises: whatever a peer sent can be told.

    Args:
        term: anything.
        characters: of the text; one more tells that something was left out.
    """
    pieces = []
    left = characters
    for piece in _pieces(term, characters, _MAX_DEPTH):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            break
    text = "".join(pieces)
    return text if left >= 0 else f"{text[:characters]}…"


def _pieces(term: Any, characters: int, depth: int) -> Iterator[str]:
    """What a term reads as, in pieces of at least one character."""
    if not depth:
        yield "…"
        return
    inner = depth - 1
    match term:
        case bool():
            yield repr(term)
        case int():
            bits = term.bit_length()
            yield repr(term) if bits <= _MAX_BITS else f"<an integer of {bits} bits>"
        case bytes() | str():
            yield repr(term[:characters])
            if len(term) > characters:
                yield "…"
        case list():
            yield from _items("[", term, "]", characters, inner)
        case tuple():
            yield from _items("(", term, ",)" if len(term) == 1 else ")", characters, inner)
        case Mapping():
            yield "{"
            for place, (key, value) in enumerate(term.items()):
                yield from chain((", ",) * bool(place), _pieces(key, characters, inner), (": ",))
                yield from _pieces(value, characters, inner)
            yield "}"
        case ImproperList():
            yield from chain(("[",), _items("", term.elements, " | ", characters, inner))
            yield from chain(_pieces(term.tail, characters, inner), ("]",))
        case BitString():
            yield from chain(("BitString(",), _pieces(term.data, characters, inner), (f", {term.bits})",))
        case Closure():
            yield f"<a fun of arity {term.arity}>" if term.data else "<a fun>"
        case _:
            yield _other(term)


def _items(start: str, items: Iterable[Any], end: str, characters: int, depth: int) -> Iterator[str]:
    yield from (start,) * bool(start)
    for place, item in enumerate(items):
        yield from chain((", ",) * bool(place), _pieces(item, characters, depth))
    yield end


def _other(thing: object) -> str:
    """What is no container: short in itself, or a class of somebody else's."""
    try:
        return repr(thing) or "''"
    except Exception:
        return f"<{type(thing).__name__}>"

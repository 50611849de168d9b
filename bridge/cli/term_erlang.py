"""Erlang terms as Erlang writes them, on one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.etf import Atom, BitString, ExportFun, ImproperList

_PLAIN_ATOM: Final = re.compile(r"[a-z][a-zA-Z0-9_@]*")
_RESERVED: Final = re.compile(
    "after|and|andalso|band|begin|bnot|bor|bsl|bsr|bxor|case|catch|cond|div|else|end|fun|if|let|maybe|not|of|"
    "or|orelse|receive|rem|try|when|xor"
)
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def erlang_from_term(term: Any) -> str:
    """A term in Erlang's syntax; what has none, such as a process id, as Python writes it, in ``<…>``.

    Args:
        term: as ``bridge.etf`` maps it; ``str`` stands for the binary that it is sent as.
    """
    match term:
        case bool():
            return "true" if term else "false"
        case Atom():
            return _atom(str(term))
        case int():
            return str(term)
        case float():
            return _float(term)
        case bytes() | str():
            return _binary(term.encode("utf-8") if isinstance(term, str) else term)
        case tuple():
            return f"{{{_items(term)}}}"
        case ImproperList():
            return f"[{_items(term.elements)} | {erlang_from_term(term.tail)}]"
        case list():
            return f"[{_items(term)}]"
        case Mapping():
            pairs = (f"{erlang_from_term(key)} => {erlang_from_term(value)}" for key, value in term.items())
            return f"#{{{', '.join(pairs)}}}"
        case BitString(data=data, bits=bits):
            whole = [str(octet) for octet in data[:-1]]
            return f"<<{', '.join([*whole, f'{data[-1] >> (8 - bits)}:{bits}'])}>>"
        case ExportFun(module=module, function=function, arity=arity):
            return f"fun {_atom(str(module))}:{_atom(str(function))}/{arity}"
    return f"<{term!r}>"


def _items(terms: Any) -> str:
    return ", ".join(erlang_from_term(term) for term in terms)


def _atom(text: str) -> str:
    if _PLAIN_ATOM.fullmatch(text) and not _RESERVED.fullmatch(text):
        return text
    return f"'{_escaped(text, quote=chr(39))}'"


def _binary(octets: bytes) -> str:
    text = octets.decode("utf-8", errors="replace")
    if "\ufffd" in text or not all(character.isprintable() or character in _ESCAPES for character in text):
        return f"<<{', '.join(map(str, octets))}>>"
    encoding = "" if text.isascii() else "/utf8"
    return f'<<"{_escaped(text, quote=chr(34))}"{encoding}>>' if text else "<<>>"


def _float(number: float) -> str:
    text = repr(number)
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{exponent}{power}"


def _escaped(text: str, *, quote: str) -> str:
    escapes = {**_ESCAPES, quote: f"\\{quote}"}
    return "".join(
        escapes.get(character) or (character if character.isprintable() else f"\\x{{{ord(character):x}}}")
        for character in text
    )

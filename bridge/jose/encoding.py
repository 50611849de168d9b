"""Strict base64url and JSON: one text for each value, and a bound on all of them.

Lenient decoders make several texts out of one message: padding, ignored characters, non-zero trailing bits,
duplicate members. Whatever compares, hashes or signs text then disagrees with whatever reads it, so here
is exactly one spelling of every byte string, and no object with two answers.

Source: RFC 7515 section 2 and appendix C (base64url), RFC 8259 (JSON), RFC 7515 section 4 (unique members).
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Any, Final, NoReturn

import msgspec

MAX_JSON_DEPTH = 8
"""Levels of nesting; a header with a key inside has two, and a claim of it may hold some more."""

# A string that never ends is taken to the end of the text and nothing backtracks: otherwise a text of
# quotation marks would be searched once from each of them.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
# What is foreign to base64url but not to base64 becomes what is foreign to both, so that decoding refuses it.
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
# The last character of a text whose length leaves 2 or 3 holds 4 or 2 bits that stand for nothing: zero.
_LAST: Final = {2: "AQgw", 3: "AEIMQUYcgkosw048"}

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def base64url_encode(raw: bytes) -> str:
    """Encode without padding."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def base64url_decode_untrusted(text: str) -> bytes:
    """Decode the one canonical spelling of a byte string.

    Raises:
        ValueError: padding, a character outside the alphabet, an impossible length, non-zero trailing bits.
    """
    left = len(text) % 4
    if left and (left == 1 or text[-1] not in _LAST[left]):
        raise ValueError("not canonical base64url")
    try:
        padded = text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4)
        return binascii.a2b_base64(padded, strict_mode=True)
    except ValueError as error:
        raise ValueError("not canonical base64url") from error


def json_encode(value: object) -> bytes:
    """Encode as erlang-jose does: members sorted, no white space, UTF-8.

    Raises:
        ValueError: a lone surrogate, which no UTF-8 text has.
    """
    return _ENCODER.encode(value)


def json_object_untrusted(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object whose size the caller has bounded.

    Raises:
        ValueError: no UTF-8, no JSON, no object, a duplicate member at any level, nesting deeper than
            ``MAX_JSON_DEPTH``, ``NaN`` or ``Infinity``, a lone surrogate.
    """
    text = raw.decode("utf-8")
    # Measured before parsing: the parser recurses, and how deep it may go depends on the caller's stack.
    # A text with no more brackets than levels, as every header is, needs no closer look.
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH:
        _check_depth(text)
    value = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if "\\u" in text:
        # An escape can smuggle in a lone surrogate, which no UTF-8 text has and no later encoder takes.
        json_encode(value)
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        match match[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_JSON_DEPTH} levels")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate JSON member")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_no_constant)

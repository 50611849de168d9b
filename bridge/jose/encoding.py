"""Strict base64url and JSON: one text for each value, and a bound on all of them.

Lenient decoders make several texts out of one message: padding, ignored characters, non-zero trailing bits,
duplicate members. Whatever compares, hashes or signs text then disagrees with whatever reads it, so here
is exactly one spelling of every byte string, and no object with two answers.

Source: RFC 7515 section 2 and appendix C (base64url), RFC 8259 (JSON), RFC 7515 section 4 (unique members).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NoReturn

MAX_JSON_DEPTH = 8
"""Levels of nesting; a header with a key inside has two, and a claim of it may hold some more."""

# A string that never ends is taken to the end of the text and nothing backtracks: otherwise a text of
# quotation marks would be searched once from each of them.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)


def base64url_encode(raw: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def base64url_decode_untrusted(text: str) -> bytes:
    """Decode the one canonical spelling of a byte string.

    Raises:
        ValueError: padding, a character outside the alphabet, an impossible length, non-zero trailing bits.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    # Encoding again is the whole canonical check: the decoder skips foreign characters, takes '+' for '-'
    # and drops trailing bits, and each of these changes the text that comes back.
    if base64url_encode(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def json_encode(value: object) -> bytes:
    """Encode as erlang-jose does: members sorted, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def json_object_untrusted(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object whose size the caller has bounded.

    Raises:
        ValueError: no UTF-8, no JSON, no object, a duplicate member at any level, nesting deeper than
            ``MAX_JSON_DEPTH``, ``NaN`` or ``Infinity``, a lone surrogate.
    """
    text = raw.decode("utf-8")
    # Measured before parsing: the parser recurses, and how deep it may go depends on the caller's stack.
    depth = 0
    for piece in _STRING_OR_BRACKET.findall(text):
        if piece in "[{":
            depth += 1
        elif piece in "]}":
            depth -= 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_JSON_DEPTH} levels")
    value = json.loads(text, object_pairs_hook=_unique_members, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if "\\u" in text:
        # An escape can smuggle in a lone surrogate, which no UTF-8 text has and no later encoder takes.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate JSON member")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

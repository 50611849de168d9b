from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.jose.encoding import (
    MAX_JSON_DEPTH,
    base64url_decode_untrusted,
    base64url_encode,
    json_encode,
    json_object_untrusted,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | _TEXT


@given(st.binary())
def test_base64url_decodes_to_what_was_encoded(raw: bytes) -> None:
    assert base64url_decode_untrusted(base64url_encode(raw)) == raw


@given(st.text(alphabet=st.sampled_from("AQgwZ09-_+/= \n.é")))
def test_base64url_has_one_text_for_each_value(text: str) -> None:
    try:
        raw = base64url_decode_untrusted(text)
    except ValueError:
        return
    assert base64url_encode(raw) == text


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A+A/", "AA A", "AAA\n", "AAAé", "AAAA=", "AA!A"])
def test_base64url_refuses_other_spellings(text: str) -> None:
    with pytest.raises(ValueError):
        base64url_decode_untrusted(text)


@given(
    st.dictionaries(
        _TEXT,
        _SCALARS | st.lists(_SCALARS) | st.dictionaries(_TEXT, _SCALARS),
    )
)
def test_json_objects_decode_to_what_was_encoded(value: dict[str, object]) -> None:
    assert json_object_untrusted(json_encode(value)) == value


@given(st.binary() | st.text(alphabet='{}[]":,\\u0d8a1 ').map(str.encode))
def test_any_bytes_are_an_object_or_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(json_object_untrusted(raw), dict)


def _nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_json_nests_up_to_the_limit_and_no_further() -> None:
    json_object_untrusted(_nested(MAX_JSON_DEPTH - 1))
    json_object_untrusted(_nested(MAX_JSON_DEPTH))
    with pytest.raises(ValueError, match="nested deeper"):
        json_object_untrusted(_nested(MAX_JSON_DEPTH + 1))
    with pytest.raises(ValueError, match="nested deeper"):
        json_object_untrusted(b'{"a":' + b"[" * 100_000)


def test_brackets_inside_strings_do_not_count_as_nesting() -> None:
    assert json_object_untrusted(b'{"a":"\\"[[[[[[[[[[[[{{{{"}') == {"a": '"[[[[[[[[[[[[{{{{'}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"[]",
        b"1",
        b"",
        b'{"a":' + b"9" * 5000 + b"}",
        b'"' * 1000,
        b'{"a\\',
    ],
)
def test_json_refuses_what_has_two_readings(raw: bytes) -> None:
    with pytest.raises(ValueError):
        json_object_untrusted(raw)

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.term_json import json_from_term, term_from_json
from bridge.errors import ConfigurationError
from bridge.etf import Atom, BitString, ErlangMap, ImproperList, term_identity

scalars = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=20)
    | st.text(max_size=20).map(str.encode)
    | st.text(st.characters(max_codepoint=0x3FF, exclude_categories=["Cs"]), max_size=20).map(Atom)
)


def _map(pairs: list[tuple[Any, Any]]) -> ErlangMap:
    """The last of equal keys counts: `unique_by` would draw again, and describe itself at length."""
    return ErlangMap(list({term_identity(key): (key, value) for key, value in pairs}.values()))


terms = st.recursive(
    scalars,
    lambda items: (
        st.lists(items, max_size=4)
        | st.lists(items, max_size=4).map(tuple)
        | st.lists(st.tuples(items, items), max_size=4).map(_map)
    ),
    max_leaves=20,
)


@given(term=terms)
def test_a_term_survives_json(term: Any) -> None:
    text = json.dumps(json_from_term(term))
    assert term_identity(term_from_json(text)) == term_identity(term)


@given(text=st.text(max_size=60))
def test_any_text_is_a_term_or_a_configuration_error(text: str) -> None:
    with suppress(ConfigurationError):
        term_from_json(text)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ('{"count": 3}', {b"count": 3}),
        ('"wood"', b"wood"),
        ("1.0", 1.0),
        ("null", Atom("null")),
        ('{"$atom": "ready"}', Atom("ready")),
        ('{"$tuple": [1, "a"]}', (1, b"a")),
        ('{"$base64": "/w=="}', b"\xff"),
    ],
)
def test_plain_json_has_plain_counterparts(text: str, term: Any) -> None:
    assert term_identity(term_from_json(text)) == term_identity(term)


@pytest.mark.parametrize("term", [BitString(b"\x80", 1), ImproperList([1], 2)])
def test_what_json_has_no_form_for_crosses_as_external_term_format(term: Any) -> None:
    value = json_from_term(term)
    assert set(value) == {"$term"}
    assert term_from_json(json.dumps(value)) == term


@pytest.mark.parametrize(
    "text",
    [
        "wood",
        "{",
        "NaN",
        "1e999",
        '{"a":1,"a":2}',
        '{"$atom": 1}',
        '{"$base64": "%"}',
        '{"$map": [1]}',
        '{"$map": [[1, 2], [1, 3]]}',
        '{"$term": ""}',
        "[" * 100_000,
        '"\\ud800"',
        '{"\\ud800": 1}',
    ],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        term_from_json(text)


def test_an_integer_has_so_many_digits_and_no_more() -> None:
    assert term_from_json("9" * 4_300) == 10**4_300 - 1
    with pytest.raises(ConfigurationError, match="at most 4300 digits, and this one 4301"):
        term_from_json("9" * 4_301)

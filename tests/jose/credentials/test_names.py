import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.jose.credentials.names import MAX_NAME_BYTES, NAME_PATTERN, name_fault


@pytest.mark.parametrize(
    "name",
    ["ball", "Grün", "a b", "x" * 255, "é" * 127, "…", ".gitignore", "Ann@ruby", "%2F", ":atom", "*", "-x"],
)
def test_a_name_is_a_text_that_stands_for_itself_in_a_path(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has 0 bytes"),
        ("x" * 256, "has 256 bytes"),
        ("é" * 128, "has 256 bytes"),
        ("a/b", "no path"),
        ("/", "no path"),
        (".", "no path"),
        ("..", "no path"),
        ("a\nb", "control"),
        ("a\x00", "control"),
        ("\x7f", "control"),
        ("\x85", "control"),
        ("\ud800", "whole characters"),
    ],
    ids=repr,
)
def test_what_no_path_can_hold_or_no_terminal_should_show_is_no_name(text: str, fault: str) -> None:
    assert fault in (name_fault(text) or "")


@given(st.text(max_size=300))
def test_the_pattern_says_the_same(text: str) -> None:
    fits = re.fullmatch(NAME_PATTERN, text) is not None and text not in (".", "..")
    assert (name_fault(text) is None) == (fits and len(text.encode()) <= MAX_NAME_BYTES)

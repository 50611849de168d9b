from __future__ import annotations

from typing import Any

import pytest

from bridge.etf import Atom
from bridge.khepri import AllOf, AnyOf, HasData, NameMatches, NodeExists, Not, PathMatches
from bridge.khepri.conditions import condition_term
from bridge.khepri.memory.requests import RefusedError
from bridge.khepri.memory.watches import watches

ANY = condition_term(NameMatches())
REST = condition_term(PathMatches())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        (b"/a", (b"a",), True),
        (b"/a", (b"a", b"b"), True),
        (b"/a", (b"b",), False),
        (b"/", (b"a",), True),
        (b"/a/*", (b"a", b"b"), True),
        (b"/a/*", (b"a", b"b", b"c"), False),
        (b"/a/**", (b"a", b"b", b"c"), True),
        (b"/a/**/x", (b"a", b"x"), False),
        (b"/a/**/x", (b"a", b"b", b"c", b"x"), True),
        (b"/:a*", (b"a",), False),
        ([b"a", condition_term(NameMatches("^w"))], (b"a", b"wood"), True),
        ([b"a", condition_term(Not(b"x"))], (b"a", b"x"), False),
        ([condition_term(AnyOf(b"a", AllOf(b"b", Not(b"c"))))], (b"b",), True),
    ],
)
def test_a_watch_wants_what_its_pattern_matches(
    pattern: Any, path: tuple[bytes, ...], expected: bool
) -> None:
    (watch,) = watches([pattern])
    assert watch.wants(path) is expected


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ([[b"a", condition_term(HasData())]], "invalid_path"),
        ([[b"a", condition_term(AllOf(b"b", NodeExists()))]], "invalid_path"),
        ([[condition_term(Not(PathMatches()))]], "invalid_path"),
        ([[condition_term(PathMatches("a"))]], "invalid_path"),
        ([b"/a"] * 65, "invalid_options"),
        (b"/a", "invalid_options"),
        ([b"a/%ff/:" + b"x" * 300], "invalid_path"),
    ],
)
def test_what_cannot_be_watched_is_refused(patterns: Any, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        watches(patterns)
    assert caught.value.reason == reason


def test_a_snapshot_looks_up_the_node_and_what_is_below_it() -> None:
    below, everything, pattern = watches([[Atom("a")], [], [Atom("a"), ANY, REST]])
    assert list(below.queries()) == [(Atom("a"),), (Atom("a"), PathMatches())]
    assert list(everything.queries()) == [(PathMatches(),)]
    assert list(pattern.queries()) == [(Atom("a"), NameMatches(), PathMatches())]

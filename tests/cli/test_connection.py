"""How a command reaches the cluster."""

from __future__ import annotations

from bridge.cli.connection import plain_term
from bridge.etf import Atom


def test_terms_are_shown_as_text() -> None:
    assert plain_term(Atom("undefined")) is None
    assert plain_term([Atom("hs1@h"), b"local", b"\xff", 3]) == ["hs1@h", "local", "\\xff", 3]

"""How a command reaches the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli.connection import own_host, plain_term, read_cookie_file
from bridge.errors import ConfigurationError
from bridge.etf import Atom


def test_terms_are_shown_as_text() -> None:
    assert plain_term(Atom("undefined")) is None
    assert plain_term([Atom("hs1@h"), b"local", b"\xff", 3]) == ["hs1@h", "local", "\\xff", 3]


def test_a_command_is_of_the_kind_of_host_that_the_member_is_of() -> None:
    assert own_host("127.0.0.1") == "127.0.0.1"
    assert "." not in own_host("rabbit1")


def test_a_cookie_file_is_read_or_said_to_be_missing_or_empty(tmp_path: Path) -> None:
    assert read_cookie_file(None) is None
    with pytest.raises(ConfigurationError, match="cannot read the cookie file"):
        read_cookie_file(tmp_path / "none")
    (tmp_path / "cookie").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        read_cookie_file(tmp_path / "cookie")
    (tmp_path / "cookie").write_text("secret\n")
    assert read_cookie_file(tmp_path / "cookie") == "secret"

"""How a command reaches the cluster."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

import pytest

from bridge.cli.connection import Way, node_config, open_store, own_host, read_cookie_file
from bridge.errors import ConfigurationError


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


async def test_sixteen_commands_share_sixteen_names_and_one_more_is_told_to_wait(tmp_path: Path) -> None:
    way = Way(members=("a@127.0.0.1",), store="s", slots=tmp_path, config=node_config(), cookie="secret")
    with contextlib.ExitStack() as stack:
        for number in range(16):
            lock = stack.enter_context((tmp_path / f".cli{number}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="16 commands"):
            async with open_store(way):
                pass

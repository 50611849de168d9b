from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.homeserver.signer.key_file import make_key_file, read_key_file
from bridge.jose import Jwk


def test_a_key_that_was_made_reads_back_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "instance.jwk"
    public = make_key_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    key = read_key_file(file)
    assert (key.is_private, key.public()) == (True, public)


def test_a_key_is_never_overwritten_nor_written_through_a_link(tmp_path: Path) -> None:
    file = tmp_path / "instance.jwk"
    before = make_key_file(file)
    with pytest.raises(ConfigurationError, match="exists already"):
        make_key_file(file)
    assert read_key_file(file).public() == before
    (tmp_path / "link.jwk").symlink_to(tmp_path / "elsewhere.jwk")
    with pytest.raises(ConfigurationError):
        make_key_file(tmp_path / "link.jwk")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o004])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "instance.jwk"
    make_key_file(file)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key_file(file)


def test_another_users_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "instance.jwk"
    make_key_file(file)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigurationError, match="another user"):
        read_key_file(file)


def test_what_holds_no_private_key_on_p_256_is_refused(tmp_path: Path) -> None:
    contents = ("", "{}", Jwk.generate().public().to_json(), Jwk.generate("P-384").to_json())
    for number, content in enumerate(contents):
        file = tmp_path / f"{number}.jwk"
        file.write_text(content)
        file.chmod(0o600)
        with pytest.raises(ConfigurationError, match="key"):
            read_key_file(file)


def test_pem_is_read_too(tmp_path: Path) -> None:
    key, file = Jwk.generate(), tmp_path / "instance.pem"
    file.write_bytes(key.to_pem())
    file.chmod(0o600)
    assert read_key_file(file) == key


def test_a_directory_or_a_pipe_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises((ConfigurationError, OSError)):
        read_key_file(tmp_path)
    with pytest.raises(ConfigurationError, match="no file"):
        read_key_file(Path("/dev/null"))

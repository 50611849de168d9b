import os
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError, KeyFormatError
from bridge.jose import Jwk
from bridge.sim.dataplane.keys import load_or_create_key


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    first = load_or_create_key(str(file))
    assert first.is_private
    assert load_or_create_key(str(file)).thumbprint() == first.thumbprint()


def test_only_its_user_can_read_a_new_key(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    before = os.umask(0)
    try:
        load_or_create_key(str(file))
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key.pem"
    load_or_create_key(str(file))
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {file}"):
        load_or_create_key(str(file))


def test_without_a_file_the_key_is_for_this_run_alone() -> None:
    assert load_or_create_key(None).thumbprint() != load_or_create_key(None).thumbprint()


def test_a_public_key_is_not_enough(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(Jwk.generate("P-256").public().to_pem())
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="needs its private one"):
        load_or_create_key(str(file))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100])
def test_a_file_without_a_key_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFormatError, match=r"key\.pem"):
        load_or_create_key(str(file))
    assert file.read_bytes() == content


def test_a_jwk_is_taken_too(tmp_path: Path) -> None:
    key, file = Jwk.generate(), tmp_path / "key.jwk"
    file.write_text(key.to_json())
    file.chmod(0o600)
    assert load_or_create_key(str(file)) == key


def test_a_key_on_another_curve_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    file.write_text(Jwk.generate("X25519").to_json())
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"X25519.*keygen"):
        load_or_create_key(str(file))


def test_a_place_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot make the key file"):
        load_or_create_key(str(tmp_path / "missing" / "key.pem"))
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="cannot read the key file"):
        load_or_create_key(str(directory))

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli.app import build_app
from bridge.errors import BoxError, ConfigurationError, SignatureError


def run(*arguments: str, stdin: bytes = b"") -> str:
    result = CliRunner().invoke(build_app(), ["box", *arguments], input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("alice", "bob"):
        run("keygen", "--out", str(tmp_path / f"{name}.jwk"))
    return tmp_path


def test_a_private_key_file_is_its_owners_alone(keys: Path) -> None:
    assert stat.S_IMODE((keys / "alice.jwk").stat().st_mode) == 0o600
    assert "d" not in json.loads((keys / "alice.public.jwk").read_text())


def test_a_key_is_never_overwritten(keys: Path) -> None:
    before = (keys / "alice.jwk").read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        run("keygen", "--out", str(keys / "alice.jwk"))
    assert (keys / "alice.jwk").read_bytes() == before


def test_a_sealed_box_opens_for_its_recipient_alone(keys: Path) -> None:
    (keys / "letter").write_bytes(b"hello \xff")
    box = run("seal", "--to", str(keys / "bob.public.jwk"), str(keys / "letter"))
    (keys / "box").write_text(box)
    opened = json.loads(run("open", "--key", str(keys / "bob.jwk"), "--json", str(keys / "box")))
    assert opened == {"base64": "aGVsbG8g/w=="}
    with pytest.raises(BoxError):
        run("open", "--key", str(keys / "alice.jwk"), str(keys / "box"))


def test_a_signature_is_verified_with_the_public_key(keys: Path) -> None:
    token = run("sign", "--key", str(keys / "alice.jwk"), stdin=b"hello")
    verified = run("verify", "--key", str(keys / "alice.public.jwk"), "--json", stdin=token.encode())
    assert json.loads(verified) == {"text": "hello"}
    with pytest.raises(SignatureError):
        run("verify", "--key", str(keys / "bob.public.jwk"), stdin=token.encode())


def test_pem_keys_are_read_too(tmp_path: Path) -> None:
    run("keygen", "--pem", "--out", str(tmp_path / "carol.pem"))
    token = run("sign", "--key", str(tmp_path / "carol.pem"), stdin=b"x")
    assert run("verify", "--key", str(tmp_path / "carol.public.pem"), "--json", stdin=token.encode())


@pytest.mark.parametrize("token", [b"\xff", b"{"])
def test_what_is_no_token_is_refused(keys: Path, token: bytes) -> None:
    with pytest.raises(ConfigurationError, match="neither a compact token nor JSON"):
        run("open", "--key", str(keys / "bob.jwk"), stdin=token)

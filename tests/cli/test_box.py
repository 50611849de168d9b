from __future__ import annotations

import json
import re
import shlex
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli.app import build_app
from bridge.errors import BoxError, ConfigurationError, KeyFormatError, SignatureError
from bridge.jose import Jwk, box_compact
from tests.support.jose_keys import KEYS, genuine_box


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


def test_both_halves_of_a_key_have_one_thumbprint(keys: Path) -> None:
    expected = Jwk.from_json((keys / "alice.jwk").read_text()).thumbprint()
    assert run("thumbprint", str(keys / "alice.jwk")) == expected + "\n"
    assert json.loads(run("thumbprint", "--json", str(keys / "alice.public.jwk"))) == {"thumbprint": expected}


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


def test_what_is_no_token_is_refused(keys: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a compact box or token"):
        run("open", "--key", str(keys / "bob.jwk"), stdin=b"\xff")
    with pytest.raises(BoxError, match="no box"):
        run("open", "--key", str(keys / "bob.jwk"), stdin=b"{")
    with pytest.raises(SignatureError, match="no token"):
        run("verify", "--key", str(keys / "bob.jwk"), stdin=b"{")


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521", "X25519", "X448"])
def test_a_box_goes_to_a_key_of_every_curve_in_every_form(tmp_path: Path, curve: str) -> None:
    for name in ("to.pem", "from.jwk"):
        form = ["--pem"] if name.endswith("pem") else []
        run("keygen", "--curve", curve, "--out", str(tmp_path / name), *form)
    for options in ([], ["--flattened"], ["--from", str(tmp_path / "from.jwk")]):
        box = run("seal", "--to", str(tmp_path / "to.public.pem"), *options, stdin=b"letter")
        assert box.startswith("{") == ("--flattened" in options)
        opened = run("open", "--key", str(tmp_path / "to.pem"), "--json", stdin=box.encode())
        assert json.loads(opened) == {"text": "letter"}
    sealed = json.loads(
        run("seal", "--to", str(tmp_path / "to.pem"), "--flattened", "--json", stdin=b"letter")
    )
    assert sealed["box"].keys() == {"ciphertext", "encrypted_key", "iv", "protected", "tag"}


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521", "Ed25519", "Ed448"])
def test_a_key_of_every_signing_curve_signs_in_every_form(tmp_path: Path, curve: str) -> None:
    run("keygen", "--curve", curve, "--out", str(tmp_path / "key.jwk"))
    for options in ([], ["--flattened"]):
        token = run("sign", "--key", str(tmp_path / "key.jwk"), *options, stdin=b"letter")
        assert token.startswith("{") == bool(options)
        verified = run("verify", "--key", str(tmp_path / "key.public.jwk"), "--json", stdin=token.encode())
        assert json.loads(verified) == {"text": "letter"}


def test_a_box_that_proves_its_sender_opens_with_that_senders_key(tmp_path: Path) -> None:
    for name, key in (("bob", KEYS["P-256"]), ("alice", Jwk.generate())):
        (tmp_path / name).write_text(key.to_json())
    sender = Jwk.from_json((tmp_path / "alice").read_text())
    box = box_compact(genuine_box(KEYS["P-256"], lambda h: h.update(alg="ECDH-1PU"), static=sender))
    arguments = ("open", "--key", str(tmp_path / "bob"))
    assert "genuine" in run(*arguments, "--from", str(tmp_path / "alice"), "--json", stdin=box.encode())
    with pytest.raises(BoxError, match="give the sender's public key"):
        run(*arguments, stdin=box.encode())
    with pytest.raises(BoxError):
        run(*arguments, "--from", str(tmp_path / "bob"), stdin=box.encode())


def test_a_flattened_text_is_read_as_strictly_as_by_the_library(keys: Path) -> None:
    box = run("seal", "--to", str(keys / "bob.public.jwk"), "--flattened", stdin=b"x").strip()
    with pytest.raises(BoxError, match="duplicate"):
        run("open", "--key", str(keys / "bob.jwk"), stdin=f'{box[:-1]},"tag":"AA"}}'.encode())


def test_an_unusable_key_is_called_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("{}")
    with pytest.raises(KeyFormatError, match="key: member 'kty'"):
        run("sign", "--key", str(tmp_path / "key"), stdin=b"x")
    (tmp_path / "key").write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    with pytest.raises(KeyFormatError, match="key: PEM block"):
        run("sign", "--key", str(tmp_path / "key"), stdin=b"x")
    with pytest.raises(KeyFormatError, match="secp256k1"):
        run("keygen", "--curve", "secp256k1")


def test_half_a_pair_of_files_is_never_left(tmp_path: Path) -> None:
    (tmp_path / "key.public.jwk").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        run("keygen", "--out", str(tmp_path / "key.jwk"))
    assert [path.name for path in tmp_path.iterdir()] == ["key.public.jwk"]


def test_input_longer_than_a_box_is_refused_before_its_end_is_read(keys: Path) -> None:
    with (keys / "endless").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(BoxError, match="too long"):
        run("seal", "--to", str(keys / "bob.public.jwk"), str(keys / "endless"))
    with pytest.raises(BoxError, match="longer than"):
        run("open", "--key", str(keys / "bob.jwk"), str(keys / "endless"))


@pytest.mark.parametrize("command", ["keygen", "seal", "open", "sign", "verify"])
def test_the_example_of_each_commands_help_runs(
    command: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keys)
    (keys / "letter.txt").write_text("dear bob")
    (keys / "letter.box").write_text(run("seal", "--to", "bob.public.jwk", "letter.txt"))
    (keys / "letter.jws").write_text(run("sign", "--key", "alice.jwk", "letter.txt"))
    if command == "keygen":
        for name in ("alice.jwk", "alice.public.jwk"):
            (keys / name).unlink()
    example = re.search(r"Example: khepri-bridge box (.*)", run(command, "--help"))
    assert example is not None
    run(*shlex.split(example[1]))

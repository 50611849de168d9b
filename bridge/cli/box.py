"""``box …``: keys, sealed boxes and signatures by hand, in the forms that Erlang/Elixir JOSE reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.datagram import verify_datagram
from bridge.cli.key_file import read_key
from bridge.cli.output import Json, emit, example
from bridge.errors import ConfigurationError
from bridge.files import write_new

if TYPE_CHECKING:
    from bridge.jose import Jwk

_MAX_INPUT_BYTES = 2 * 1024 * 1024
"""Twice what any box or token holds: longer input is refused as too long, and not read to its end before."""

Flattened = Annotated[
    bool, typer.Option("--flattened", help="Print the flattened form, one JSON object, not the compact one.")
]
Input = Annotated[Path | None, typer.Argument(help="File to read.", show_default="stdin", metavar="[FILE]")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(
        help="Keys, sealed boxes and signatures (JOSE).", no_args_is_help=True, rich_markup_mode=None
    )
    example(family, "keygen", "khepri-bridge box keygen --out alice.jwk")(keygen)
    example(family, "seal", "khepri-bridge box seal --to bob.public.jwk letter.txt")(seal)
    example(family, "open", "khepri-bridge box open --key bob.jwk letter.box")(open_box)
    example(family, "sign", "khepri-bridge box sign --key alice.jwk letter.txt")(sign)
    example(family, "verify", "khepri-bridge box verify --key alice.public.jwk letter.jws")(verify)
    example(family, "thumbprint", "khepri-bridge box thumbprint alice.public.jwk")(thumbprint)
    example(
        family, "verify-datagram", "khepri-bridge box verify-datagram --key alice.public.jwk state.evidence"
    )(verify_datagram)
    app.add_typer(family, name="box")


def keygen(
    curve: Annotated[
        str,
        typer.Option(
            help="P-256, P-384 or P-521, for boxes and signatures; X25519 or X448, for boxes; "
            "Ed25519 or Ed448, for signatures."
        ),
    ] = "P-256",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the private key here (0600), and the public one beside it (NAME.public.EXT)."
        ),
    ] = None,
    pem: Annotated[bool, typer.Option("--pem", help="Write PEM instead of JSON (JWK).")] = False,
    as_json: Json = False,
) -> None:
    """Make a key pair; prints the private key, or writes both halves with --out."""
    from bridge.jose import Jwk

    key = Jwk.generate(curve)
    result: dict[str, object] = {"thumbprint": key.thumbprint(), "public": key.public().to_dict()}
    if out is None:
        private = key.to_pem().decode("ascii") if pem else key.to_json()
        emit({**result, "private": key.to_dict()}, as_json=as_json, text=private.rstrip("\n"))
        return
    public_file = out.with_name(f"{out.stem}.public{out.suffix}")
    # Looked at before: half a pair would have to be removed by hand.
    if public_file.exists():
        raise ConfigurationError(f"{public_file} exists already: remove it first, or choose another name")
    _write_new(out, _serialised(key, pem=pem), mode=0o600)
    _write_new(public_file, _serialised(key.public(), pem=pem), mode=0o644)
    emit(
        {**result, "private_file": str(out), "public_file": str(public_file)},
        as_json=as_json,
        text=f"{out} and {public_file}, thumbprint {key.thumbprint()}",
    )


def thumbprint(
    file: Annotated[Path, typer.Argument(help="Private or public key, JWK or PEM.", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Print a key's thumbprint (RFC 7638), the same of either half: its name in evidence and revocations."""
    name = read_key(file).thumbprint()
    emit({"thumbprint": name}, as_json=as_json, text=name)


def seal(
    to: Annotated[Path, typer.Option("--to", help="Public key of the recipient, JWK or PEM.")],
    file: Input = None,
    sender: Annotated[
        Path | None, typer.Option("--from", help="Private key of the sender; a fresh one by default.")
    ] = None,
    flattened: Flattened = False,
    as_json: Json = False,
) -> None:
    """Encrypt for one recipient; prints a box (JWE)."""
    from bridge.jose import box_compact, box_encrypt

    box = box_encrypt(_read(file), read_key(to).public(), read_key(sender) if sender else None)
    _emit_token("box", box if flattened else box_compact(box), as_json=as_json)


def open_box(
    key: Annotated[Path, typer.Option("--key", help="Private key of the recipient, JWK or PEM.")],
    file: Input = None,
    sender: Annotated[
        Path | None,
        typer.Option("--from", help="Public key of the sender, for boxes that prove it (ECDH-1PU)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decrypt a box, compact or flattened, to stdout."""
    from bridge.jose import box_decrypt

    content = box_decrypt(_token(_read(file)), read_key(key), read_key(sender) if sender else None)
    _emit_bytes(content, as_json=as_json)


def sign(
    key: Annotated[Path, typer.Option("--key", help="Private key of the signer, JWK or PEM.")],
    file: Input = None,
    flattened: Flattened = False,
    as_json: Json = False,
) -> None:
    """Sign; prints a token (JWS) that carries what was signed."""
    from bridge.jose import sign as sign_payload
    from bridge.jose import token_flattened

    token = sign_payload(_read(file), read_key(key))
    _emit_token("token", token_flattened(token) if flattened else token, as_json=as_json)


def verify(
    key: Annotated[Path, typer.Option("--key", help="Public key of the signer, JWK or PEM.")],
    file: Input = None,
    as_json: Json = False,
) -> None:
    """Check a signature, compact or flattened, and print what was signed to stdout."""
    from bridge.jose import verify as verify_token

    _emit_bytes(verify_token(_token(_read(file)), read_key(key).public()), as_json=as_json)


def _read(file: Path | None) -> bytes:
    if file is None or file == Path("-"):
        return sys.stdin.buffer.read(_MAX_INPUT_BYTES)
    with file.open("rb") as stream:
        return stream.read(_MAX_INPUT_BYTES)


def _token(content: bytes) -> str:
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(
            "neither a compact box or token nor a flattened one: no ASCII text"
        ) from None


def _emit_token(name: str, token: str | dict[str, str], *, as_json: bool) -> None:
    text = token if isinstance(token, str) else json.dumps(token, separators=(",", ":"))
    emit({name: token}, as_json=as_json, text=text)


def _serialised(key: Jwk, *, pem: bool) -> bytes:
    return key.to_pem() if pem else key.to_json().encode() + b"\n"


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Never over an existing key: losing one cannot be undone."""
    try:
        write_new(path, content, mode=mode)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already: remove it first, or choose another name") from None


def _emit_bytes(content: bytes, *, as_json: bool) -> None:
    """Bytes as they are for people and pipes; in JSON as text where they are text, else as base64."""
    if not as_json:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        emit({"text": content.decode("utf-8")}, as_json=True, text="")
    except UnicodeDecodeError:
        from base64 import b64encode

        emit({"base64": b64encode(content).decode("ascii")}, as_json=True, text="")

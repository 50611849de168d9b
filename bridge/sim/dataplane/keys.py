"""The server's private key: made once, kept in a file that only its user can read."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.errors import ConfigurationError, KeyFormatError
from bridge.files import write_new
from bridge.jose import Jwk


def load_or_create_key(path: str | None) -> Jwk:
    """The P-256 key of ``path``, made there if there is none; without a path a key for this run alone.

    Raises:
        ConfigurationError: the file can be read by others, can be neither read nor written, or holds a key
            of another kind.
        KeyFormatError: it holds no key, in PEM or as a JWK.
    """
    if path is None:
        return Jwk.generate("P-256")
    file = Path(path)
    if os.path.lexists(file):
        return _load(file)
    key = Jwk.generate("P-256")
    try:
        write_new(file, key.to_pem())
    except FileExistsError:  # another process was faster
        return _load(file)
    except OSError as error:
        raise ConfigurationError(f"cannot make the key file {file}: {error.strerror}") from error
    return key


def _load(file: Path) -> Jwk:
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigurationError(f"others can read the key file {file}: chmod 600 {file}")
        key = Jwk.from_text(file.read_bytes())
    except KeyFormatError as error:
        raise KeyFormatError(f"{file}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read the key file {file}: {error.strerror}") from error
    if key.curve != "P-256":
        raise ConfigurationError(
            f"{file} holds a key of {key.curve or key.kty}; a server has one on P-256: "
            "khepri-bridge box keygen makes one"
        )
    if not key.is_private:
        raise ConfigurationError(f"{file} holds a public key; a server needs its private one")
    return key

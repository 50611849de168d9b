"""The file that an instance's private key lies in: made once, for its owner's eyes alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError, KeyFormatError
from bridge.files import write_new
from bridge.jose import Jwk

CURVE: Final = "P-256"
_MAX_BYTES: Final = 16_384


def make_key_file(path: Path) -> Jwk:
    """Make a key in a new file, mode 0600; never over an existing one.

    Returns:
        The public half.

    Raises:
        ConfigurationError: there is such a file already.
        OSError: it cannot be written.
    """
    key = Jwk.generate(CURVE)
    try:
        write_new(path, key.to_json().encode() + b"\n")
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already: a key that is overwritten is lost") from None
    return key.public()


def read_key_file(path: Path) -> Jwk:
    """Read a private key, JWK or PEM, from a file that nobody but its owner may read.

    Raises:
        ConfigurationError: others may, or it is not this user's, or no private key on P-256.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{path} is no file")
        if found.st_uid != os.geteuid():
            raise ConfigurationError(f"{path} belongs to another user: run the signer as its owner")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigurationError(f"others than its owner may use {path}: chmod 600 it")
        content = file.read(_MAX_BYTES)
    try:
        key = Jwk.from_text(content)
    except KeyFormatError as error:
        raise ConfigurationError(f"{path} holds no key: {error}") from None
    if key.curve != CURVE or not key.is_private:
        raise ConfigurationError(f"{path} holds no private key on {CURVE}: make one with homeserver keygen")
    return key

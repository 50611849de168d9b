"""Keys in files, as the commands take them: JWK or PEM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.errors import KeyFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.jose import Jwk

_MAX_KEY_BYTES = 64 * 1024


def read_key(path: Path) -> Jwk:
    """A key from a file, JWK or PEM.

    Raises:
        KeyFormatError: it holds none that is used here; the text names the file.
    """
    from bridge.jose import Jwk

    with path.open("rb") as file:
        content = file.read(_MAX_KEY_BYTES)
    try:
        return Jwk.from_text(content)
    except KeyFormatError as error:
        raise KeyFormatError(f"{path}: {error}") from None

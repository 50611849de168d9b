"""Records that are on disk before what they tell of can have an effect, so that a killed process leaves them.

A line is handed to the kernel before the request is sent, or the state sealed: what a process does afterwards
cannot be missing, unless the machine itself goes down. A record that cannot be written ends what wanted to
act: evidence that has holes would prove nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.authority.entries import Alive, Entry, encode_entry
from bridge.errors import ConfigurationError

_ALIVE_BYTES: Final = 1_024
"""bytes of the first line, which is written anew in place: a server's name has up to 255, escaped sixfold"""


class RecordFile:
    """A history file (``bridge.authority.entries``) that is written as things happen.

    Args:
        path: made anew, with its directory.

    Raises:
        ConfigurationError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(f"cannot write the record {path}: {error.strerror}") from error
        # Room for the line of the last tick, and valid while there is none.
        os.write(self._file, b"\n".rjust(_ALIVE_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, entry: Entry) -> None:
        """Append an entry."""
        os.write(self._file, encode_entry(entry) + b"\n")

    def alive(self, server: str, session: bytes, at_ns: int) -> None:
        """Say that the server lives, in the place where it said so last."""
        line = encode_entry(Alive(server=server, session=session, at_ns=at_ns))
        os.pwrite(self._file, line.ljust(_ALIVE_BYTES - 1), 0)

    def close(self) -> None:
        """End the file; harmless twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def record_path(directory: str | Path, server: str, session: bytes, what: str) -> Path:
    """Where one run of a server writes; names of servers may hold anything."""
    name = "".join(letter if letter.isalnum() else "_" for letter in server)[:64]
    return Path(directory) / f"{name}-{session.hex()[:12]}-{what}.jsonl"

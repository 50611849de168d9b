"""Files that are there whole or not at all, whatever moment their writer is killed in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make a file that was not there; never over an existing one.

    Its name appears once its content is on the disk, so that nobody reads half of it, and a writer that was
    killed left nothing in its way. *Rejected:* to create it exclusively and then write: who is killed in
    between leaves an empty file, which is never written again.

    Args:
        mode: less what the process's umask takes away.

    Raises:
        FileExistsError: there is one, a link to nothing included.
        OSError: it cannot be written.
    """
    draft = _draft(path, content, mode)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file whether it was there or not: whoever reads it sees the old one or the new one.

    Args:
        mode: less what the process's umask takes away.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    draft = _draft(path, content, mode)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _draft(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft
